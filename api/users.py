"""Users over HTTP: make, list, show and erase users, and store their grants."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from uplift.api.bodies import documented_body, read_model
from uplift.api.callers import CallerDep, RelayDep
from uplift.api.named_user import named_user
from uplift.api.pages import After, PageSize, Sorted, next_page
from uplift.api.problems import documented
from uplift.api.slashes import UserInPath
from uplift.api.user_schemas import (
    BroughtGrant,
    ErasureStatus,
    NamedPatient,
    NewDestination,
    NewUser,
    UserList,
    UserStatus,
    UserSummary,
)
from uplift.api.work import resume_as_large, resume_for, work_of
from uplift.ledger import erasing_upstream, users
from uplift.ledger.credentials import Scope
from uplift.ledger.pages import Order
from uplift.ledger.summary import summarize
from uplift.ledger.token_pair import TokenPair
from uplift.ledger.users import GrantState
from uplift.users.erase import Upstream

router = APIRouter(tags=["users"], prefix="/v1/users")

_ERASING_RETRY_SECONDS = 5


@router.post(
    "",
    status_code=201,
    response_model=UserStatus,
    summary="Make a user",
    openapi_extra=documented_body(NewUser),
    responses={
        200: {"model": UserStatus, "description": "The user existed and has a working grant"},
        **documented(400, 401, 403, 408, 409, 413, 415, 503),
    },
)
async def add_user(
    request: Request, response: Response, relay: RelayDep, caller: CallerDep
) -> UserStatus:
    """Creates the user at 1upHealth, or adopts the one that is there, and obtains a grant.

    The request can be repeated.
    """
    caller.require(Scope.USERS)
    new = await read_model(request, NewUser)
    work_of(request).pause()  # it waits for 1upHealth
    user, made = await relay.provisioner.provision(new.app_user_id, by=caller.actor)
    response.status_code = 201 if made else 200
    return UserStatus.of(user)


@router.get(
    "",
    response_model=UserList,
    summary="List users",
    responses=documented(400, 401, 403, 503),
)
async def list_users(
    request: Request,
    relay: RelayDep,
    caller: CallerDep,
    grant: Annotated[
        GrantState | None,
        Query(
            description="Only users with this grant. `needs_authorization`: ask these people to"
            " authorise again."
        ),
    ] = None,
    order: Sorted = Order.NEWEST_FIRST,
    after: After = None,
    limit: PageSize = 100,
) -> UserList:
    """One page of users by the time when they were added, the newest first.

    `next` is the address of the next page.
    """
    caller.require(Scope.USERS, Scope.OPERATOR)
    await resume_for(request, limit)
    async with relay.database.transaction() as connection:
        rows = await users.list_users(
            connection, grant=grant, order=order, after=after, limit=limit
        )
    ids = [row.id for row in rows]
    following = next_page("/v1/users", ids, limit=limit, order=order, query=[("grant", grant)])
    return UserList(users=[UserStatus.of(row) for row in rows], next=following)


@router.get(
    "/{user}",
    response_model=UserStatus,
    summary="Show a user",
    responses=documented(400, 401, 403, 404, 503),
)
async def get_user(user: UserInPath, relay: RelayDep, caller: CallerDep) -> UserStatus:
    """The user, and the state of the grant."""
    caller.require(Scope.USERS, Scope.OPERATOR)
    async with relay.database.transaction() as connection:
        found = await named_user(connection, user)
        progress = await erasing_upstream.progress(connection, user)
    return UserStatus.of(found, progress, relay.patient_namer.of(found))


@router.get(
    "/{user}/summary",
    response_model=UserSummary,
    summary="Summarise a user's uploads",
    responses=documented(400, 401, 403, 404, 503),
)
async def get_user_summary(
    user: UserInPath, request: Request, relay: RelayDep, caller: CallerDep
) -> UserSummary:
    """The user's uploads by status and by resource type, and whether all of them have ended."""
    caller.require(Scope.SUBMIT, Scope.USERS, Scope.OPERATOR, Scope.DEVICE)
    name = caller.user(user)
    await resume_as_large(request)
    async with relay.database.transaction() as connection:
        found = await named_user(connection, name)
        counted = await summarize(connection, found.id)
    return UserSummary.of(found, counted)


@router.put(
    "/{user}/grant",
    response_model=UserStatus,
    summary="Store a grant",
    openapi_extra=documented_body(BroughtGrant),
    responses=documented(400, 401, 403, 408, 413, 415, 503),
)
async def store_grant(
    user: UserInPath, request: Request, relay: RelayDep, caller: CallerDep
) -> UserStatus:
    """Stores tokens that the backend obtained itself. Creates the user if there is none."""
    caller.require(Scope.USERS)
    grant = await read_model(request, BroughtGrant)
    tokens = TokenPair(grant.access_token, grant.refresh_token, grant.expires_in)
    return UserStatus.of(await relay.provisioner.bring_grant(user, tokens, by=caller.actor))


@router.put(
    "/{user}/destination",
    response_model=UserStatus,
    summary="Move a user to another destination",
    openapi_extra=documented_body(NewDestination),
    responses=documented(400, 401, 403, 404, 408, 409, 413, 415, 503),
)
async def move_user(
    user: UserInPath, request: Request, relay: RelayDep, caller: CallerDep
) -> UserStatus:
    """Sends what the user brings to another destination from now on, and what was never sent.

    What may be at the old destination ends there. `syncToken` changes: the app sends everything
    again. The request can be repeated.
    """
    caller.require(Scope.USERS)
    wanted = await read_model(request, NewDestination)
    return UserStatus.of(await relay.mover.move(user, wanted.destination, by=caller.actor))


@router.put(
    "/{user}/patient",
    response_model=UserStatus,
    summary="Name a user's Patient",
    openapi_extra=documented_body(NamedPatient),
    responses=documented(400, 401, 403, 404, 408, 409, 413, 415, 503),
)
async def name_patient(
    user: UserInPath, request: Request, relay: RelayDep, caller: CallerDep
) -> UserStatus:
    """Says which Patient stands for the user at a destination, before the first record goes there.

    Records refer to it. Uplift makes no Patient then, and never writes or deletes this one. The
    request can be repeated.
    """
    caller.require(Scope.USERS)
    wanted = await read_model(request, NamedPatient)
    named = await relay.patient_namer.name(user, wanted.id, wanted.destination, by=caller.actor)
    return UserStatus.of(named.user, patients=named.patients)


@router.post(
    "/{user}/resend",
    response_model=UserStatus,
    summary="Send everything of a user again",
    responses=documented(400, 401, 403, 404, 409, 503),
)
async def resend_user(user: UserInPath, relay: RelayDep, caller: CallerDep) -> UserStatus:
    """Makes the next upload of each record new content, whatever was delivered.

    `syncToken` changes: the app sends everything again. What is at the destination is updated, not
    doubled.
    """
    caller.require(Scope.USERS)
    return UserStatus.of(await relay.mover.resend(user, by=caller.actor))


@router.delete(
    "/{user}",
    response_model=ErasureStatus,
    summary="Erase a user",
    responses={
        202: {
            "model": ErasureStatus,
            "description": "It goes on by itself: workers are still sending, or something is still"
            " at a destination",
            "headers": {
                "Retry-After": {
                    "schema": {"type": "integer"},
                    "description": "Seconds until you should ask again.",
                }
            },
        },
        **documented(400, 401, 403, 404, 503),
    },
)
async def erase_user(
    user: UserInPath,
    request: Request,
    relay: RelayDep,
    caller: CallerDep,
    wait: Annotated[
        float, Query(ge=0, description="Seconds to wait for uploads that workers are sending.")
    ] = 10.0,
    upstream: Annotated[
        Upstream | None,
        Query(
            description="What becomes of what the user has at destinations. `delete`: it is deleted"
            " there first, and then the user is erased here. `keep`: it stays, also if it was being"
            " deleted. Without it: `keep`, or what an earlier request began."
        ),
    ] = None,
) -> Response:
    """Destroys all data of the user: key, grant, device tokens, records and uploads.

    200: nothing is left, and nothing is sent any more. 202: a worker is still sending, or something
    is still at a destination. That ends by itself. Repeat the request to see when.
    """
    caller.require(Scope.ERASE)
    seconds = min(wait, relay.settings.max_wait_seconds)
    work_of(request).pause()  # it waits for workers
    erasure = await relay.eraser.erase(user, wait=seconds, upstream=upstream, by=caller.actor)
    body = ErasureStatus.of(erasure).model_dump(mode="json", by_alias=True)
    if erasure.done:
        return JSONResponse(body)
    return JSONResponse(body, 202, {"Retry-After": str(_ERASING_RETRY_SECONDS)})
