"""Control over HTTP: dead letters begin anew, uploads are cancelled, sending is paused."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response

from uplift.api.bodies import documented_body, read_model
from uplift.api.callers import Caller, CallerDep, RelayDep
from uplift.api.control_schemas import PauseList, PauseStatus, RedriveReport, RedriveRequest
from uplift.api.problems import documented, not_found
from uplift.api.schemas import UploadStatus
from uplift.api.slashes import UserInPath
from uplift.ledger import uploads, users
from uplift.ledger.credentials import Scope
from uplift.ledger.uploads import UploadRow
from uplift.lifecycle import State
from uplift.wiring import Relay

router = APIRouter()

_UploadId = Annotated[UUID, Path(description="As in `Location`.")]

# What one request redrives before it answers where to go on: some seconds' work.
_REDRIVEN_AT_ONCE = 10_000


@router.post(
    "/v1/uploads/redrive",
    tags=["uploads"],
    response_model=RedriveReport,
    summary="Redrive many dead letters",
    openapi_extra=documented_body(RedriveRequest),
    responses=documented(400, 401, 403, 404, 408, 413, 415, 503),
)
async def redrive_many(request: Request, relay: RelayDep, caller: CallerDep) -> RedriveReport:
    """Have those of the rejected, refused and expired uploads begin anew that the filter finds.

    One request moves at most 10,000; `after` in the answer, sent with the same filter, goes on.
    Repeat at will: what is on its way is no dead letter any more.
    """
    caller.require(Scope.OPERATOR)
    wanted = await read_model(request, RedriveRequest)
    user_id = None
    if wanted.user is not None:
        async with relay.database.transaction() as connection:
            user = await users.find_user(connection, wanted.user)
        if user is None:
            raise not_found("There is no such user.")
        user_id = user.id
    tally = await relay.redriver.redrive_all(
        wanted.filter(user_id), by=caller.actor, after=wanted.after, limit=_REDRIVEN_AT_ONCE
    )
    return RedriveReport.of(tally)


@router.post(
    "/v1/uploads/{upload_id}/redrive",
    tags=["uploads"],
    status_code=202,
    response_model=UploadStatus,
    summary="Redrive a dead letter",
    responses={
        200: {"model": UploadStatus, "description": "It is on its way already, or superseded"},
        202: {"description": "It begins anew"},
        **documented(400, 401, 403, 404, 409, 503),
    },
)
async def redrive(
    upload_id: _UploadId, response: Response, relay: RelayDep, caller: CallerDep
) -> UploadStatus:
    """Have a rejected, refused or expired upload begin anew, with a fresh time to give up.

    It is validated again, and looked for at 1upHealth first if it may be there. Where a newer
    version of its record was delivered or is on its way, it is superseded instead.
    """
    caller.require(Scope.BACKEND, Scope.OPERATOR)
    outcome = await relay.redriver.redrive(upload_id, by=caller.actor)
    response.status_code = 202 if outcome is State.QUEUED else 200
    return UploadStatus.of(relay.statuses.open(await _row(relay, caller, upload_id)))


@router.delete(
    "/v1/uploads/{upload_id}",
    tags=["uploads"],
    response_model=UploadStatus,
    summary="Cancel an upload",
    responses={
        202: {
            "model": UploadStatus,
            "description": "It may have been sent: a worker ends it once that is known",
        },
        **documented(400, 401, 403, 404, 409, 503),
    },
)
async def cancel(
    upload_id: _UploadId, response: Response, relay: RelayDep, caller: CallerDep
) -> UploadStatus:
    """Withdraw an upload that has not ended. Repeat at will.

    200: it is cancelled, and will not be sent. 202: a worker has it, or it may be at 1upHealth and
    is looked for first; it ends `delivered` if it is there, and else `cancelled`. 409: it ended
    otherwise before.
    """
    caller.require(Scope.BACKEND, Scope.OPERATOR, Scope.DEVICE)
    await _row(relay, caller, upload_id)
    done = await relay.canceller.cancel(upload_id, by=caller.actor)
    response.status_code = 200 if done else 202
    return UploadStatus.of(relay.statuses.open(await _row(relay, caller, upload_id)))


async def _row(relay: Relay, caller: Caller, upload_id: UUID) -> UploadRow:
    async with relay.database.transaction() as connection:
        found = await uploads.get_uploads(connection, [upload_id])
    return caller.check_sees(found.get(upload_id))


@router.get(
    "/v1/pauses",
    tags=["pauses"],
    response_model=PauseList,
    summary="Who is paused",
    responses=documented(400, 401, 403, 503),
)
async def list_pauses(relay: RelayDep, caller: CallerDep) -> PauseList:
    """All pauses, the oldest first."""
    caller.require(Scope.BACKEND, Scope.OPERATOR)
    return PauseList(pauses=[PauseStatus.of(row) for row in await relay.pauser.list()])


@router.put(
    "/v1/pause",
    tags=["pauses"],
    response_model=PauseStatus,
    summary="Pause everything",
    responses=documented(400, 401, 403, 503),
)
async def pause_all(relay: RelayDep, caller: CallerDep) -> PauseStatus:
    """Send nothing more, for anybody, until it is resumed. Repeat at will.

    Uploads are accepted all the same. What workers have under way ends; nothing expires meanwhile,
    and the time to give up stands still.
    """
    caller.require(Scope.OPERATOR)
    return PauseStatus.of(await relay.pauser.pause(None, by=caller.actor))


@router.delete(
    "/v1/pause",
    tags=["pauses"],
    status_code=204,
    summary="Resume everything",
    responses=documented(400, 401, 403, 503),
)
async def resume_all(relay: RelayDep, caller: CallerDep) -> None:
    """Send again, but for users who are paused themselves. Repeat at will."""
    caller.require(Scope.OPERATOR)
    await relay.pauser.resume(None, by=caller.actor)


@router.put(
    "/v1/users/{user}/pause",
    tags=["pauses"],
    response_model=PauseStatus,
    summary="Pause a user",
    responses=documented(400, 401, 403, 404, 503),
)
async def pause_user(user: UserInPath, relay: RelayDep, caller: CallerDep) -> PauseStatus:
    """Send nothing more for this user until they are resumed. Repeat at will."""
    caller.require(Scope.OPERATOR)
    return PauseStatus.of(await relay.pauser.pause(user, by=caller.actor))


@router.delete(
    "/v1/users/{user}/pause",
    tags=["pauses"],
    status_code=204,
    summary="Resume a user",
    responses=documented(400, 401, 403, 404, 503),
)
async def resume_user(user: UserInPath, relay: RelayDep, caller: CallerDep) -> None:
    """Send for this user again, unless everybody is paused. Repeat at will."""
    caller.require(Scope.OPERATOR)
    await relay.pauser.resume(user, by=caller.actor)
