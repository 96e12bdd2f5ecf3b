"""Control over HTTP: redrive dead letters, cancel uploads, pause sending."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response

from uplift.api.bodies import documented_body, read_model
from uplift.api.callers import Caller, CallerDep, RelayDep
from uplift.api.control_schemas import (
    PauseList,
    PauseStatus,
    RedriveReport,
    RedriveRequest,
    TryNowReport,
    TryNowRequest,
)
from uplift.api.named_user import id_of_user
from uplift.api.problems import documented
from uplift.api.schemas import UploadStatus
from uplift.api.slashes import UserInPath
from uplift.api.work import resume_as_large
from uplift.ledger import uploads
from uplift.ledger.credentials import Scope
from uplift.ledger.uploads import UploadRow
from uplift.lifecycle import State
from uplift.wiring import Relay

router = APIRouter()

_UploadId = Annotated[UUID, Path(description="The id of the upload.")]

# One request redrives at most this many, which takes some seconds. The answer says how to go on.
_REDRIVES_PER_REQUEST = 10_000


@router.post(
    "/v1/uploads/redrive",
    tags=["uploads"],
    response_model=RedriveReport,
    summary="Redrive many dead letters",
    openapi_extra=documented_body(RedriveRequest),
    responses=documented(400, 401, 403, 404, 408, 413, 415, 503),
)
async def redrive_uploads(request: Request, relay: RelayDep, caller: CallerDep) -> RedriveReport:
    """Redrives all rejected, refused and expired uploads that the filter selects.

    One request redrives at most 10,000. To go on, send `after` of the answer with the same filter.
    You can repeat the request: a redriven upload is not a dead letter any more.
    """
    caller.require(Scope.OPERATOR)
    wanted = await read_model(request, RedriveRequest)
    await resume_as_large(request)
    tally = await relay.redriver.redrive_all(
        wanted.filter(await _user_id(relay, wanted.user)),
        by=caller.actor,
        after=wanted.after,
        limit=_REDRIVES_PER_REQUEST,
    )
    return RedriveReport.of(tally)


@router.post(
    "/v1/uploads/{upload_id}/redrive",
    tags=["uploads"],
    status_code=202,
    response_model=UploadStatus,
    summary="Redrive a dead letter",
    responses={
        200: {
            "model": UploadStatus,
            "description": "The upload was not a dead letter any more, or is superseded now",
        },
        202: {"description": "The upload is queued again"},
        **documented(400, 401, 403, 404, 409, 503),
    },
)
async def redrive_upload(
    upload_id: _UploadId, response: Response, relay: RelayDep, caller: CallerDep
) -> UploadStatus:
    """Queues a rejected, refused or expired upload again, with a new deadline.

    A worker validates it again. If it may be at the destination, the worker looks it up there
    first. If a newer version of its record was delivered or is being delivered, the upload becomes
    superseded.
    """
    caller.require(Scope.SUBMIT, Scope.OPERATOR)
    outcome = await relay.redriver.redrive(upload_id, by=caller.actor)
    response.status_code = 202 if outcome is State.QUEUED else 200
    return UploadStatus.of(relay.statuses.open(await _row(relay, caller, upload_id)))


@router.post(
    "/v1/uploads/try-now",
    tags=["uploads"],
    response_model=TryNowReport,
    summary="Try many waiting uploads now",
    openapi_extra=documented_body(TryNowRequest),
    responses=documented(400, 401, 403, 404, 408, 413, 415, 503),
)
async def try_uploads_now(request: Request, relay: RelayDep, caller: CallerDep) -> TryNowReport:
    """Makes queued uploads due that wait for a later attempt, when the cause of the wait is gone.

    An upload that may be at the destination still waits until a look-up can tell. The request can
    be repeated.
    """
    caller.require(Scope.OPERATOR)
    wanted = await read_model(request, TryNowRequest)
    await resume_as_large(request)
    matching = wanted.filter(await _user_id(relay, wanted.user))
    return TryNowReport(tried=await relay.try_now.all(matching, by=caller.actor))


@router.post(
    "/v1/uploads/{upload_id}/try-now",
    tags=["uploads"],
    response_model=UploadStatus,
    summary="Try a waiting upload now",
    responses=documented(400, 401, 403, 404, 503),
)
async def try_upload_now(upload_id: _UploadId, relay: RelayDep, caller: CallerDep) -> UploadStatus:
    """Makes a queued upload due that waits for a later attempt. `nextAttemptAt` says when it is.

    An upload that may be at the destination still waits until a look-up can tell. Any other upload
    stays as it is. The request can be repeated.
    """
    caller.require(Scope.SUBMIT, Scope.OPERATOR)
    await _row(relay, caller, upload_id)
    await relay.try_now.one(upload_id, by=caller.actor)
    return UploadStatus.of(relay.statuses.open(await _row(relay, caller, upload_id)))


@router.delete(
    "/v1/uploads/{upload_id}",
    tags=["uploads"],
    response_model=UploadStatus,
    summary="Cancel an upload",
    responses={
        202: {
            "model": UploadStatus,
            "description": "The upload may have been sent. A worker finds out and ends it",
        },
        **documented(400, 401, 403, 404, 409, 503),
    },
)
async def cancel_upload(
    upload_id: _UploadId, response: Response, relay: RelayDep, caller: CallerDep
) -> UploadStatus:
    """Cancels an upload that is not final. The request can be repeated.

    200: the upload is cancelled and will not be sent. 202: a worker is sending it, or it may be at
    the destination already. A worker looks it up; it ends `delivered` if it is there, otherwise
    `cancelled`. 409: it already has another final status.
    """
    caller.require(Scope.SUBMIT, Scope.OPERATOR, Scope.DEVICE)
    await _row(relay, caller, upload_id)
    done = await relay.canceller.cancel(upload_id, by=caller.actor)
    response.status_code = 200 if done else 202
    return UploadStatus.of(relay.statuses.open(await _row(relay, caller, upload_id)))


async def _user_id(relay: Relay, name: str | None) -> UUID | None:
    """The ledger's id of a named user. Raises a Problem (404) if there is none of that name."""
    async with relay.database.transaction() as connection:
        return await id_of_user(connection, name)


async def _row(relay: Relay, caller: Caller, upload_id: UUID) -> UploadRow:
    async with relay.database.transaction() as connection:
        found = await uploads.get_uploads(connection, [upload_id])
    return caller.check_sees(found.get(upload_id))


@router.get(
    "/v1/pauses",
    tags=["pauses"],
    response_model=PauseList,
    summary="List pauses",
    responses=documented(400, 401, 403, 503),
)
async def list_pauses(relay: RelayDep, caller: CallerDep) -> PauseList:
    """All pauses, the oldest first."""
    caller.require(Scope.SUBMIT, Scope.USERS, Scope.OPERATOR)
    return PauseList(pauses=[PauseStatus.of(row) for row in await relay.pauser.list()])


@router.put(
    "/v1/pause",
    tags=["pauses"],
    response_model=PauseStatus,
    summary="Pause everything",
    responses=documented(400, 401, 403, 503),
)
async def pause_everybody(relay: RelayDep, caller: CallerDep) -> PauseStatus:
    """Stops sending for all users until you resume. The request can be repeated.

    Uploads are still accepted. Workers finish what they are sending. Paused uploads do not expire:
    their deadlines move by the length of the pause.
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
async def resume_everybody(relay: RelayDep, caller: CallerDep) -> None:
    """Sends again, except for users with a pause of their own. The request can be repeated."""
    caller.require(Scope.OPERATOR)
    await relay.pauser.resume(None, by=caller.actor)


@router.put(
    "/v1/users/{user}/pause",
    tags=["pauses"],
    response_model=PauseStatus,
    summary="Pause a user",
    responses=documented(400, 401, 403, 404, 409, 503),
)
async def pause_user(user: UserInPath, relay: RelayDep, caller: CallerDep) -> PauseStatus:
    """Stops sending for this user until you resume. The request can be repeated."""
    caller.require(Scope.OPERATOR)
    return PauseStatus.of(await relay.pauser.pause(user, by=caller.actor))


@router.delete(
    "/v1/users/{user}/pause",
    tags=["pauses"],
    status_code=204,
    summary="Resume a user",
    responses=documented(400, 401, 403, 404, 409, 503),
)
async def resume_user(user: UserInPath, relay: RelayDep, caller: CallerDep) -> None:
    """Sends for this user again, unless everything is paused. The request can be repeated."""
    caller.require(Scope.OPERATOR)
    await relay.pauser.resume(user, by=caller.actor)
