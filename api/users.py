"""Users over HTTP: made at 1upHealth, given grants, handed device tokens."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from api.callers import CallerDep, RelayDep
from api.problems import Problem, documented, not_found
from api.schemas import (
    AppUserId,
    BroughtGrant,
    DeviceToken,
    DeviceTokenRequest,
    NewUser,
    UserStatus,
)
from relay.ledger import credentials, users
from relay.ledger.credentials import Scope
from relay.tokens import Tokens

router = APIRouter(tags=["users"], prefix="/v1/users")

_User = Annotated[AppUserId, Path(description="The backend's name of the person.")]


@router.post(
    "",
    status_code=201,
    response_model=UserStatus,
    summary="Make a user",
    responses={
        200: {"model": UserStatus, "description": "The user was there, with a working grant"},
        **documented(400, 401, 403, 503),
    },
)
async def add(new: NewUser, response: Response, relay: RelayDep, caller: CallerDep) -> UserStatus:
    """Create the user at 1upHealth, or adopt the one there, and obtain a grant. Repeat at will."""
    caller.require(Scope.BACKEND)
    user, made = await relay.provisioner.provision(new.app_user_id)
    response.status_code = 201 if made else 200
    return UserStatus.of(user)


@router.get(
    "/{user}",
    response_model=UserStatus,
    summary="A user",
    responses=documented(400, 401, 403, 404, 503),
)
async def show(user: _User, relay: RelayDep, caller: CallerDep) -> UserStatus:
    """The user, and whether their grant works."""
    caller.require(Scope.BACKEND, Scope.OPERATOR)
    async with relay.database.transaction() as connection:
        found = await users.find_user(connection, user)
    if found is None:
        raise not_found("There is no such user.")
    return UserStatus.of(found)


@router.put(
    "/{user}/grant",
    response_model=UserStatus,
    summary="Bring a grant",
    responses=documented(400, 401, 403, 503),
)
async def bring_grant(
    user: _User, grant: BroughtGrant, relay: RelayDep, caller: CallerDep
) -> UserStatus:
    """Keep tokens that the backend obtained itself; makes the user if there is none."""
    caller.require(Scope.BACKEND)
    tokens = Tokens(grant.access_token, grant.refresh_token, grant.expires_in)
    return UserStatus.of(await relay.provisioner.bring_grant(user, tokens))


@router.post(
    "/{user}/device-tokens",
    status_code=201,
    response_model=DeviceToken,
    summary="Make a device token",
    responses=documented(400, 401, 403, 404, 503),
)
async def add_device_token(
    user: _User, request: DeviceTokenRequest, relay: RelayDep, caller: CallerDep
) -> DeviceToken:
    """A token with which a device submits and reads this user's uploads, and nothing else."""
    caller.require(Scope.BACKEND)
    most = relay.settings.device_token_seconds_max
    if request.expires_in > most:
        raise Problem(
            400,
            "The request is malformed",
            f"expiresIn is at most {most} seconds (UPLIFT_DEVICE_TOKEN_SECONDS_MAX).",
        )
    async with relay.database.transaction() as connection:
        found = await users.find_user(connection, user)
        if found is None:
            raise not_found("There is no such user.")
        token, expires_at = await credentials.add_device_token(
            connection, found.id, request.expires_in
        )
    return DeviceToken(token=token, expires_at=expires_at)
