"""Users over HTTP: made at 1upHealth, given grants, watched, and erased."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from uplift.api.bodies import documented_body, read_model
from uplift.api.callers import CallerDep, RelayDep
from uplift.api.pages import next_page
from uplift.api.problems import documented, not_found
from uplift.api.schemas import BroughtGrant, Erasing, NewUser, UserList, UserStatus, UserSummary
from uplift.api.slashes import UserInPath
from uplift.ledger import users
from uplift.ledger.credentials import Scope
from uplift.ledger.summary import summarize
from uplift.ledger.token_pair import TokenPair
from uplift.ledger.users import GrantState

router = APIRouter(tags=["users"], prefix="/v1/users")

_ERASING_RETRY_SECONDS = 5


@router.post(
    "",
    status_code=201,
    response_model=UserStatus,
    summary="Make a user",
    openapi_extra=documented_body(NewUser),
    responses={
        200: {"model": UserStatus, "description": "The user was there, with a working grant"},
        **documented(400, 401, 403, 408, 409, 413, 415, 503),
    },
)
async def add(
    request: Request, response: Response, relay: RelayDep, caller: CallerDep
) -> UserStatus:
    """Create the user at 1upHealth, or adopt the one there, and obtain a grant. Repeat at will."""
    caller.require(Scope.BACKEND)
    new = await read_model(request, NewUser)
    user, made = await relay.provisioner.provision(new.app_user_id, by=caller.actor)
    response.status_code = 201 if made else 200
    return UserStatus.of(user)


@router.get(
    "",
    response_model=UserList,
    summary="Users, in the order in which they were added",
    responses=documented(400, 401, 403, 503),
)
async def list_(
    relay: RelayDep,
    caller: CallerDep,
    grant: Annotated[
        GrantState | None,
        Query(description="Only these; needs_authorization are the people to ask again."),
    ] = None,
    after: Annotated[UUID | None, Query(description="As `next` has it.")] = None,
    limit: Annotated[int, Query(ge=1, le=500, description="How many on a page.")] = 100,
) -> UserList:
    """One page of users; `next` is the address of the page after it."""
    caller.require(Scope.BACKEND, Scope.OPERATOR)
    async with relay.database.transaction() as connection:
        rows = await users.list_users(connection, grant=grant, after=after, limit=limit)
    last = rows[-1].id if rows else None
    following = next_page("/v1/users", last, size=len(rows), limit=limit, query=[("grant", grant)])
    return UserList(users=[UserStatus.of(row) for row in rows], next=following)


@router.get(
    "/{user}",
    response_model=UserStatus,
    summary="A user",
    responses=documented(400, 401, 403, 404, 503),
)
async def show(user: UserInPath, relay: RelayDep, caller: CallerDep) -> UserStatus:
    """The user, and whether their grant works."""
    caller.require(Scope.BACKEND, Scope.OPERATOR)
    async with relay.database.transaction() as connection:
        found = await users.find_user(connection, user)
    if found is None:
        raise not_found("There is no such user.")
    return UserStatus.of(found)


@router.get(
    "/{user}/summary",
    response_model=UserSummary,
    summary="How far a user's uploads are",
    responses=documented(400, 401, 403, 404, 503),
)
async def summary(user: UserInPath, relay: RelayDep, caller: CallerDep) -> UserSummary:
    """Counts by status and by resource type, and whether everything has come to its end."""
    caller.require(Scope.BACKEND, Scope.OPERATOR, Scope.DEVICE)
    name = caller.user(user)
    async with relay.database.transaction() as connection:
        found = await users.find_user(connection, name)
        if found is None:
            raise not_found("There is no such user.")
        counted = await summarize(connection, found.id)
    return UserSummary.of(found, counted)


@router.put(
    "/{user}/grant",
    response_model=UserStatus,
    summary="Bring a grant",
    openapi_extra=documented_body(BroughtGrant),
    responses=documented(400, 401, 403, 408, 413, 415, 503),
)
async def bring_grant(
    user: UserInPath, request: Request, relay: RelayDep, caller: CallerDep
) -> UserStatus:
    """Keep tokens that the backend obtained itself; makes the user if there is none."""
    caller.require(Scope.BACKEND)
    grant = await read_model(request, BroughtGrant)
    tokens = TokenPair(grant.access_token, grant.refresh_token, grant.expires_in)
    return UserStatus.of(await relay.provisioner.bring_grant(user, tokens, by=caller.actor))


@router.delete(
    "/{user}",
    status_code=204,
    response_class=Response,
    summary="Erase a user",
    responses={
        202: {
            "model": Erasing,
            "description": "Nothing can be read or opened any more; workers still end what they"
            " had under way",
            "headers": {
                "Retry-After": {
                    "schema": {"type": "integer"},
                    "description": "Seconds until it is worth asking again.",
                }
            },
        },
        **documented(400, 401, 403, 404, 503),
    },
)
async def erase(
    user: UserInPath,
    relay: RelayDep,
    caller: CallerDep,
    wait: Annotated[
        float, Query(ge=0, description="Seconds to wait for what workers have under way.")
    ] = 10.0,
) -> Response:
    """Destroy what Uplift keeps of the user: key, grant, device tokens, records and uploads.

    204 once nothing is left and nothing is sent for them any more. 202 while a worker is still
    sending: that ends by itself, within the lease at most; repeat the request to see when.
    """
    caller.require(Scope.BACKEND)
    seconds = min(wait, relay.settings.max_wait_seconds)
    erasure = await relay.eraser.erase(user, wait=seconds, by=caller.actor)
    if erasure.done:
        return Response(status_code=204)
    return JSONResponse(
        Erasing.of(erasure).model_dump(mode="json", by_alias=True),
        202,
        {"Retry-After": str(_ERASING_RETRY_SECONDS)},
    )
