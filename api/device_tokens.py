"""Device tokens over HTTP: make one for a user, list them, revoke one or all."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Request

from uplift.api.bodies import documented_body, read_model
from uplift.api.callers import CallerDep, RelayDep
from uplift.api.named_user import named_user
from uplift.api.problems import Problem, documented
from uplift.api.slashes import UserInPath
from uplift.api.user_schemas import DeviceToken, DeviceTokenList, DeviceTokenRequest
from uplift.ledger import credentials, users
from uplift.ledger.credentials import Scope
from uplift.problem_types import ProblemType

router = APIRouter(tags=["users"], prefix="/v1/users/{user}/device-tokens")


@router.post(
    "",
    status_code=201,
    response_model=DeviceToken,
    summary="Make a device token",
    openapi_extra=documented_body(DeviceTokenRequest),
    responses=documented(400, 401, 403, 404, 408, 409, 413, 415, 503),
)
async def add_device_token(
    user: UserInPath, request: Request, relay: RelayDep, caller: CallerDep
) -> DeviceToken:
    """Makes a token with which a device can submit, read and cancel this user's uploads."""
    caller.require(Scope.USERS)
    wanted = await read_model(request, DeviceTokenRequest)
    limit = relay.settings.max_device_token_seconds
    if wanted.expires_in > limit:
        raise Problem(
            ProblemType.INVALID_REQUEST,
            f"expiresIn must be at most {limit} seconds (UPLIFT_MAX_DEVICE_TOKEN_SECONDS).",
        )
    async with relay.database.transaction() as connection:
        found = await users.require_user(connection, user, lock=True)
        made = await credentials.add_device_token(
            connection,
            relay.key_ring,
            found.id,
            wanted.expires_in,
            name=wanted.name,
            by=caller.actor,
        )
    return DeviceToken(id=made.id, token=made.secret, expires_at=made.expires_at)


@router.get(
    "",
    response_model=DeviceTokenList,
    summary="List the device tokens of a user",
    responses=documented(400, 401, 403, 404, 503),
)
async def list_device_tokens(
    user: UserInPath, relay: RelayDep, caller: CallerDep
) -> DeviceTokenList:
    """The tokens that are neither revoked nor expired, without their secrets."""
    caller.require(Scope.USERS)
    async with relay.database.transaction() as connection:
        found = await named_user(connection, user)
        return DeviceTokenList.of(await credentials.list_device_tokens(connection, found.id))


@router.delete(
    "",
    status_code=204,
    summary="Revoke all device tokens of a user",
    responses=documented(400, 401, 403, 404, 503),
)
async def revoke_device_tokens(user: UserInPath, relay: RelayDep, caller: CallerDep) -> None:
    """Ends all device tokens of the user immediately. The next request with one gets 401."""
    caller.require(Scope.USERS)
    async with relay.database.transaction() as connection:
        found = await named_user(connection, user, lock=True)
        await credentials.revoke_device_tokens(connection, found.id, by=caller.actor)


@router.delete(
    "/{token_id}",
    status_code=204,
    summary="Revoke a device token",
    responses=documented(400, 401, 403, 404, 503),
)
async def revoke_device_token(
    user: UserInPath,
    token_id: Annotated[
        UUID, Path(description="The id of the token, from the answer that showed it.")
    ],
    relay: RelayDep,
    caller: CallerDep,
) -> None:
    """Ends the token immediately: the next request with it gets 401. The request can be
    repeated."""
    caller.require(Scope.USERS)
    async with relay.database.transaction() as connection:
        found = await named_user(connection, user, lock=True)
        if not await credentials.is_device_token(connection, token_id, found.id):
            raise Problem(ProblemType.NO_SUCH_DEVICE_TOKEN, "The user has no such device token.")
        await credentials.revoke(connection, token_id, by=caller.actor)
