"""Uploads over HTTP: resources in, statuses out."""

from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse

from uplift.api.bodies import JSON_TYPES, max_bytes, read_json_body
from uplift.api.callers import CallerDep, RelayDep
from uplift.api.idempotency import KEY_PATTERN, idempotency_key
from uplift.api.intake import Intake
from uplift.api.limits import LIMIT_HEADERS, Limits
from uplift.api.pages import next_page
from uplift.api.problems import documented, not_found
from uplift.api.schemas import AppUserId, Instant, ResourceType, UploadList, UploadStatus
from uplift.intake.submission import Labels, parse_unblocked
from uplift.ledger import uploads, users
from uplift.ledger.credentials import Scope
from uplift.ledger.filters import Filter
from uplift.ledger.uploads import UploadRow
from uplift.lifecycle import Reason, State
from uplift.metrics import submissions
from uplift.wiring import Relay

_log = structlog.get_logger(__name__)

router = APIRouter(tags=["uploads"])

_READERS = (Scope.BACKEND, Scope.OPERATOR, Scope.DEVICE)
_MAX_RETRY_AFTER = 60

_RESOURCE_EXAMPLE = {
    "resourceType": "Condition",
    "id": "A1-77",
    "code": {"text": "Asthma"},
    "subject": {"reference": "Patient/1"},
}
_RESOURCE_SCHEMA: dict[str, Any] = {
    "title": "Resource",
    "description": "A FHIR resource. What else it holds is judged by the worker.",
    "type": "object",
    "required": ["resourceType"],
    "properties": {"resourceType": {"type": "string", "pattern": "^[A-Za-z]{1,64}$"}},
}
_LABEL_SCHEMA = {"type": ["string", "null"], "maxLength": 1024}
_ENVELOPE_SCHEMA: dict[str, Any] = {
    "title": "Envelope",
    "description": "A resource, and the labels that would else be in the query.",
    "type": "object",
    "required": ["resource"],
    "properties": {
        "user": {"type": ["string", "null"], "minLength": 1, "maxLength": 256},
        "fhirVersion": {"type": ["string", "null"], "pattern": "^[A-Za-z0-9.]{1,16}$"},
        "source": _LABEL_SCHEMA,
        "recordId": _LABEL_SCHEMA,
        "resource": _RESOURCE_SCHEMA,
    },
}
_LABELS: dict[str, tuple[str, dict[str, Any]]] = {
    "user": (
        "The backend's name of the person.",
        {"minLength": 1, "maxLength": 256, "pattern": r"^[^\x00-\x1f\x7f]+$"},
    ),
    "fhirVersion": ("DSTU2, STU3, R4, 1.0.2 or 4.0.1.", {"pattern": "^[A-Za-z0-9.]{1,16}$"}),
    "source": ("Where the record is from.", {"maxLength": 1024}),
    "recordId": ("What its source calls it.", {"maxLength": 1024}),
}
_BODY: dict[str, Any] = {
    "parameters": [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": description,
            "schema": {"type": "string", **limits},
        }
        for name, (description, limits) in _LABELS.items()
    ]
    + [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "A name of your own for this request, for a day: sent again with the"
            " same key, it has the same answer.",
            "schema": {
                "type": "string",
                "minLength": 1,
                "maxLength": 255,
                "pattern": KEY_PATTERN,
            },
            "example": '"8e03978e-40d5-43e8-bc93-6894a57f9324"',
        }
    ],
    "requestBody": {
        "required": True,
        "description": "A FHIR resource, or an envelope around one.",
        "content": {
            content_type: {
                "schema": {"anyOf": [_RESOURCE_SCHEMA, _ENVELOPE_SCHEMA]},
                "examples": {
                    "resource": {"summary": "A bare resource", "value": _RESOURCE_EXAMPLE},
                    "envelope": {
                        "summary": "An envelope",
                        "value": {
                            "user": "alice",
                            "fhirVersion": "R4",
                            "source": "org.example.hospital",
                            "recordId": "A1-77",
                            "resource": _RESOURCE_EXAMPLE,
                        },
                    },
                },
            }
            for content_type in JSON_TYPES[:2]
        },
    },
}


@router.post(
    "/v1/uploads",
    status_code=202,
    response_model=UploadStatus,
    summary="Submit a resource",
    openapi_extra=_BODY,
    responses={
        202: {
            "headers": {
                "Location": {"schema": {"type": "string"}, "description": "The status's address."},
                **LIMIT_HEADERS,
            }
        },
        **documented(400, 401, 403, 404, 408, 413, 415, 422, 429, 503),
    },
)
async def submit(request: Request, caller: CallerDep) -> Response:
    """Take a resource in. 202 means it is committed; what comes of it is at `Location`.

    Send a bare FHIR resource with its labels in the query, or an envelope that holds them.
    """
    caller.require(Scope.BACKEND, Scope.DEVICE)
    limits: Limits = request.app.state.limits
    limits.acquire(caller)
    key = idempotency_key(request, caller)
    # FastAPI's own parameters and response model would take a quarter of the time that there is
    # for a request.
    relay: Relay = request.app.state.relay
    intake: Intake = request.app.state.intake
    query = request.query_params
    labels = Labels(
        user=query.get("user"),
        fhir_version=query.get("fhirVersion"),
        source=query.get("source"),
        record_id=query.get("recordId"),
    )
    limit = relay.settings.max_body_bytes
    async with intake.body(max_bytes(request, limit)):
        body = await read_json_body(request, limit)
        submission = await parse_unblocked(body, labels)
        accepted = await relay.acceptor.accept(
            caller.user(submission.labels.user), submission, by=caller.actor, key=key
        )
    before = accepted.duplicate or accepted.replayed
    submissions.labels("single", "duplicate" if before else "accepted").inc()
    _log.info("upload_accepted", upload=str(accepted.upload.id), duplicate=accepted.duplicate)
    status = UploadStatus.of(relay.statuses.open(accepted.upload), duplicate=accepted.duplicate)
    return Response(
        status.model_dump_json(by_alias=True),
        202,
        {"Location": status.status_url, **limits.headers(caller)},
        media_type="application/json",
    )


@router.get(
    "/v1/uploads/{upload_id}",
    response_model=UploadStatus,
    summary="An upload's status",
    responses={
        200: {
            "headers": {
                "ETag": {"schema": {"type": "string"}},
                "Retry-After": {
                    "schema": {"type": "integer"},
                    "description": "Seconds until it is worth asking again; absent when final.",
                },
            }
        },
        304: {"description": "As If-None-Match has it"},
        **documented(400, 401, 403, 404, 503),
    },
)
async def status(
    upload_id: Annotated[UUID, Path(description="As in `Location`.")],
    relay: RelayDep,
    caller: CallerDep,
    wait: Annotated[
        float, Query(ge=0, description="Seconds to wait for the status to settle or to change.")
    ] = 0.0,
    if_none_match: Annotated[
        list[str] | None, Header(description="ETags of statuses that are known already.")
    ] = None,
) -> Response:
    """The status now; with `wait`, as soon as no worker has it any more, or once that time is up.

    With If-None-Match, `wait` ends as soon as the status is another than that ETag's.
    """
    caller.require(*_READERS)
    async with relay.database.transaction() as connection:
        found = await uploads.get_uploads(connection, [upload_id])
    row = caller.check_sees(found.get(upload_id))
    known = _etags(if_none_match or [])

    def worth_telling(row: UploadRow) -> bool:
        return _etag(row) not in known if known else not row.state.in_progress

    if wait and not worth_telling(row):
        row = await relay.long_poll.wait(
            row, worth_telling, min(wait, relay.settings.max_wait_seconds)
        )
    headers = {"ETag": _etag(row), "Cache-Control": "private, no-cache"}
    if not row.state.final:
        headers["Retry-After"] = str(_retry_after(row))
    if _etag(row) in known or "*" in known:
        return Response(status_code=304, headers=headers)
    shown = UploadStatus.of(relay.statuses.open(row))
    return JSONResponse(shown.model_dump(mode="json", by_alias=True), headers=headers)


@router.get(
    "/v1/uploads",
    response_model=UploadList,
    summary="Uploads, in the order of acceptance",
    responses=documented(400, 401, 403, 404, 503),
)
async def list_(
    relay: RelayDep,
    caller: CallerDep,
    user: Annotated[AppUserId | None, Query(description="Only this user's.")] = None,
    status: Annotated[list[State] | None, Query(description="Only these; may be repeated.")] = None,
    reason: Annotated[Reason | None, Query(description="Only with this reason.")] = None,
    type_: Annotated[ResourceType | None, Query(alias="type", description="Only these.")] = None,
    batch: Annotated[UUID | None, Query(description="Only those that this batch made.")] = None,
    since: Annotated[
        Instant | None, Query(description="Only those that changed last at or after this.")
    ] = None,
    before: Annotated[
        Instant | None, Query(description="Only those that changed last before this.")
    ] = None,
    after: Annotated[UUID | None, Query(description="The last id of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=500, description="How many on a page.")] = 100,
) -> UploadList:
    """One page of uploads; `next` is the address of the page after it."""
    caller.require(*_READERS)
    if caller.is_device:
        user = caller.user(user)
    states = status or []
    async with relay.database.transaction() as connection:
        user_id = None
        if user is not None:
            found = await users.find_user(connection, user)
            if found is None:
                raise not_found("There is no such user.")
            user_id = found.id
        matching = Filter(
            states=states,
            reason=reason,
            resource_type=type_,
            user_id=user_id,
            batch_id=batch,
            since=since,
            before=before,
        )
        rows = await uploads.list_uploads(connection, matching, after=after, limit=limit)
    following = next_page(
        "/v1/uploads",
        rows[-1].id if rows else None,
        size=len(rows),
        limit=limit,
        query=[
            ("user", user),
            ("batch", batch),
            *(("status", state) for state in states),
            ("reason", reason),
            ("type", type_),
            ("since", since and since.isoformat()),
            ("before", before and before.isoformat()),
        ],
    )
    return UploadList(
        uploads=[UploadStatus.of(relay.statuses.open(row)) for row in rows], next=following
    )


def _etag(row: UploadRow) -> str:
    return f'"{row.revision}"'


def _etags(if_none_match: list[str]) -> set[str]:
    # Weak comparison, RFC 9110, 13.1.2. No tag of ours holds a comma.
    listed = ",".join(if_none_match).split(",")
    return {each.strip().removeprefix("W/") for each in listed if each.strip()}


def _retry_after(row: UploadRow) -> int:
    """Seconds after which the status may be another."""
    if row.state is State.PARKED:
        return _MAX_RETRY_AFTER  # it waits for a person
    return min(max(1, round(row.due_in or 0.0)), _MAX_RETRY_AFTER)
