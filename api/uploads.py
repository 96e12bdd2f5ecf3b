"""Uploads over HTTP: resources come in, statuses go out."""

from contextlib import suppress
from typing import Annotated
from uuid import UUID

import orjson
import structlog
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse

from uplift.api.admission import Admission, AdmissionDep
from uplift.api.bodies import media_type_version, read_json_body
from uplift.api.callers import CallerDep, RelayDep, find_caller
from uplift.api.fair_share import Receiving
from uplift.api.idempotency import idempotency_key
from uplift.api.named_user import id_of_user
from uplift.api.pages import After, PageSize, Sorted, next_page
from uplift.api.problems import documented
from uplift.api.rate_limits import RateLimits
from uplift.api.schemas import (
    AppUserId,
    AttemptList,
    Instant,
    ResourceType,
    UploadList,
    UploadStatus,
    dump_status,
)
from uplift.api.upload_openapi import ACCEPTED, IF_NONE_MATCH, STATUS_READ, SUBMIT
from uplift.api.work import resume_for, work_of
from uplift.fhir.versions import FhirVersion
from uplift.intake.labels import Labels, parse_force
from uplift.intake.submission import parse_unblocked
from uplift.ledger import attempts, uploads
from uplift.ledger.credentials import Scope
from uplift.ledger.filters import Filter
from uplift.ledger.pages import Order
from uplift.ledger.uploads import UploadRow
from uplift.lifecycle import Reason, State
from uplift.metrics import of_submissions
from uplift.wiring import Relay

_log = structlog.get_logger(__name__)

router = APIRouter(tags=["uploads"])

_READERS = (Scope.SUBMIT, Scope.OPERATOR, Scope.DEVICE)
_MAX_RETRY_AFTER = 60
_ROWS_AT_ONCE = 20


@router.post(
    "/v1/uploads",
    status_code=202,
    response_model=UploadStatus,
    summary="Submit a resource",
    openapi_extra=SUBMIT,
    responses=ACCEPTED | documented(400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503),
)
async def submit_upload(request: Request, caller: CallerDep) -> Response:
    """Accepts a FHIR resource. 202 means that it is committed. Its status is at `Location`.

    Send the bare resource with its labels in the query, or an envelope that contains both.
    """
    caller.require(Scope.SUBMIT, Scope.DEVICE)
    rate_limits: RateLimits = request.app.state.rate_limits
    rate_limits.acquire(caller)
    key = idempotency_key(request, caller)
    # FastAPI's own parameters and response model take a quarter of the time of a request.
    relay: Relay = request.app.state.relay
    admission: Admission = request.app.state.admission
    query = request.query_params
    labels = Labels(
        user=query.get("user"),
        fhir_version=query.get("fhirVersion"),
        source=query.get("source"),
        record_id=query.get("recordId"),
        received_at=query.get("receivedAt"),
        force=parse_force(query.get("force")),
        media_type_version=media_type_version(request),
    )
    limit = relay.settings.max_body_bytes
    async with admission.body(caller.credential, Receiving()) as part:
        body = await read_json_body(request, limit, part)
        rate_limits.charge_bytes(caller, len(body))
        submission = await parse_unblocked(body, labels, relay.settings.max_json_values)
        accepted = await relay.acceptor.accept(
            caller.user(submission.labels.user), submission, by=caller.actor, key=key
        )
    known = accepted.duplicate or accepted.replayed
    of_submissions("single", "duplicate" if known else "accepted").inc()
    upload_id = str(accepted.upload.id)
    _log.info("upload_accepted", upload=upload_id, duplicate=accepted.duplicate)
    status = dump_status(relay.statuses.open(accepted.upload), duplicate=accepted.duplicate)
    headers = {"Location": f"/v1/uploads/{upload_id}", **rate_limits.headers(caller)}
    if accepted.replayed:
        headers["Idempotent-Replayed"] = "true"
    return Response(status, 202, headers, media_type="application/json")


async def serve_submission(request: Request) -> Response:
    """`submit_upload`, as its route calls it."""
    return await submit_upload(request, await find_caller(request))


@router.get(
    "/v1/uploads/{upload_id}",
    response_model=UploadStatus,
    summary="Read an upload's status",
    openapi_extra=IF_NONE_MATCH,
    responses=STATUS_READ | documented(400, 401, 403, 404, 503),
)
async def get_upload(
    upload_id: Annotated[UUID, Path(description="The id of the upload.")],
    request: Request,
    relay: RelayDep,
    caller: CallerDep,
    admission: AdmissionDep,
    wait: Annotated[
        float, Query(ge=0, description="Seconds to wait until the status is settled or changes.")
    ] = 0.0,
) -> Response:
    """The status now. With `wait`, the answer comes when the status is settled (neither `queued`
    nor `sending`), or when the time is up.

    With If-None-Match, `wait` ends when the status is no longer the one with that ETag.
    """
    caller.require(*_READERS)
    async with relay.database.transaction() as connection:
        found = await uploads.get_uploads(connection, [upload_id])
    row = caller.check_sees(found.get(upload_id))
    known = _etags(request.headers.getlist("if-none-match"))

    def is_news(row: UploadRow) -> bool:
        return _etag(row) not in known if known else not row.state.in_progress

    if wait and not is_news(row):
        work_of(request).pause()
        seconds = min(wait, relay.settings.max_wait_seconds)
        receiving = Receiving()
        async with admission.long_poll(caller.credential, receiving):
            # If another credential needs the place, the answer is the status as it is.
            with suppress(TimeoutError):
                async with receiving.within(None):
                    row = await relay.long_poll.wait(row, is_news, seconds)
    headers = {"ETag": _etag(row)}
    if not row.state.final:
        headers["Retry-After"] = str(_retry_after(row))
    if _etag(row) in known or "*" in known:
        return Response(status_code=304, headers=headers)
    shown = UploadStatus.of(relay.statuses.open(row))
    return JSONResponse(shown.model_dump(mode="json", by_alias=True), headers=headers)


@router.get(
    "/v1/uploads/{upload_id}/attempts",
    response_model=AttemptList,
    summary="List an upload's attempts",
    responses=documented(400, 401, 403, 404, 503),
)
async def list_upload_attempts(
    upload_id: Annotated[UUID, Path(description="The id of the upload.")],
    relay: RelayDep,
    caller: CallerDep,
) -> AttemptList:
    """The latest 100 attempts to deliver it, newest first. A tombstone has none.

    Attempts that `attempts` of the status does not count are in it too.
    """
    caller.require(*_READERS)
    async with relay.database.transaction() as connection:
        found = await uploads.get_uploads(connection, [upload_id])
        caller.check_sees(found.get(upload_id))
        return AttemptList.of(await attempts.latest_attempts(connection, upload_id))


@router.get(
    "/v1/uploads",
    response_model=UploadList,
    summary="List uploads",
    responses=documented(400, 401, 403, 404, 503),
)
async def list_uploads(
    request: Request,
    relay: RelayDep,
    caller: CallerDep,
    user: Annotated[AppUserId | None, Query(description="Only uploads of this user.")] = None,
    status: Annotated[
        list[State] | None, Query(description="Only uploads with this status. Can be repeated.")
    ] = None,
    reason: Annotated[Reason | None, Query(description="Only uploads with this reason.")] = None,
    resource_type: Annotated[
        ResourceType | None,
        Query(alias="resourceType", description="Only resources of this type."),
    ] = None,
    fhir_version: Annotated[
        FhirVersion | None,
        Query(alias="fhirVersion", description="Only resources of this FHIR version."),
    ] = None,
    batch: Annotated[
        UUID | None, Query(description="Only uploads that this batch created.")
    ] = None,
    updated_since: Annotated[
        Instant | None,
        Query(alias="updatedSince", description="Only uploads with `updatedAt` at or after this."),
    ] = None,
    updated_before: Annotated[
        Instant | None,
        Query(alias="updatedBefore", description="Only uploads with `updatedAt` before this."),
    ] = None,
    order: Sorted = Order.NEWEST_FIRST,
    after: After = None,
    limit: PageSize = 100,
) -> Response:
    """One page of uploads by the time of acceptance, the newest first.

    `next` is the address of the next page.
    """
    caller.require(*_READERS)
    if caller.is_device:
        user = caller.user(user)
    states = status or []
    await resume_for(request, limit)
    work = work_of(request)
    async with relay.database.transaction() as connection:
        user_id = await id_of_user(connection, user)
        matching = Filter(
            states=states,
            reason=reason,
            resource_type=resource_type,
            fhir_version=fhir_version,
            user_id=user_id,
            batch_id=batch,
            since=updated_since,
            before=updated_before,
        )
        rows: list[UploadRow] = []
        # Parts, because to read hundreds of rows at once would stop all other requests.
        while len(rows) < limit:
            most = min(_ROWS_AT_ONCE, limit - len(rows))
            part = await uploads.list_uploads(
                connection,
                matching,
                order=order,
                after=rows[-1].id if rows else after,
                limit=most,
            )
            rows += part
            if len(part) < most:
                break
            await work.rest()
    following = next_page(
        "/v1/uploads",
        [row.id for row in rows],
        limit=limit,
        order=order,
        query=[
            ("user", user),
            ("batch", batch),
            *(("status", state) for state in states),
            ("reason", reason),
            ("resourceType", resource_type),
            ("fhirVersion", fhir_version),
            ("updatedSince", updated_since and updated_since.isoformat()),
            ("updatedBefore", updated_before and updated_before.isoformat()),
        ],
    )
    shown: list[bytes] = []
    for row in rows:
        if len(shown) % _ROWS_AT_ONCE == _ROWS_AT_ONCE - 1:
            await work.rest()
        shown.append(dump_status(relay.statuses.open(row)))
    content = b'{"uploads":[%b],"next":%b}' % (b",".join(shown), orjson.dumps(following))
    return Response(content, media_type="application/json")


def _etag(row: UploadRow) -> str:
    return f'"{row.revision}"'


def _etags(if_none_match: list[str]) -> set[str]:
    # Weak comparison, RFC 9110, 13.1.2. Uplift's tags contain no comma.
    listed = ",".join(if_none_match).split(",")
    return {each.strip().removeprefix("W/") for each in listed if each.strip()}


def _retry_after(row: UploadRow) -> int:
    """Seconds until the status can have changed."""
    if row.state is State.PARKED:
        return _MAX_RETRY_AFTER  # it waits for the person
    return min(max(1, round(row.due_in or 0.0)), _MAX_RETRY_AFTER)
