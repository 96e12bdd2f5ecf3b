"""Batches over HTTP: many records of one person in one request."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from structlog.contextvars import bind_contextvars
from uuid_utils.compat import uuid7

from uplift.api.batch_bodies import (
    BUNDLE_TYPES,
    NDJSON_TYPES,
    bundle_entries,
    read_bundle,
    read_lines,
)
from uplift.api.batch_schemas import (
    BatchLines,
    BatchList,
    BatchReceipt,
    BatchStatus,
    BatchSummary,
    line_of,
)
from uplift.api.bodies import JSON_TYPES, check_type, max_bytes, read_chunks, read_json_body
from uplift.api.callers import Caller, CallerDep, RelayDep
from uplift.api.intake import IntakeDep
from uplift.api.limits import LIMIT_HEADERS, Limits
from uplift.api.pages import next_page
from uplift.api.problems import Problem, documented, not_found, problem_of
from uplift.api.schemas import AppUserId
from uplift.errors import NotFound
from uplift.intake.accept_batch import Entry, OpenBatch
from uplift.intake.submission import Labels
from uplift.ledger import batches, users
from uplift.ledger.batches import BatchRow
from uplift.ledger.credentials import Scope
from uplift.wiring import Relay

router = APIRouter(tags=["batches"], prefix="/v1/batches")

_READERS = (Scope.BACKEND, Scope.OPERATOR, Scope.DEVICE)
_LINES_AT_ONCE = 1000
_MAX_RETRY_AFTER = 30
_UPLOADS_A_SECOND = 100  # a guess that only spreads questions

_RESOURCE = {"resourceType": "Condition", "id": "A1-77", "code": {"text": "Asthma"}}
_LINE = {
    "fhirVersion": "R4",
    "source": "org.example.hospital",
    "recordId": "A1-77",
    "resource": _RESOURCE,
}
_BUNDLE_SCHEMA: dict[str, Any] = {
    "title": "Bundle",
    "description": "A FHIR Bundle whose entries stand for themselves.",
    "type": "object",
    "required": ["resourceType", "type"],
    "properties": {
        "resourceType": {"const": "Bundle"},
        "type": {"enum": list(BUNDLE_TYPES)},
        "entry": {
            "type": "array",
            "items": {"type": "object", "properties": {"resource": {"type": "object"}}},
        },
    },
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "NDJSON: an envelope or a bare resource on each line. Or a FHIR Bundle.",
        "content": {
            NDJSON_TYPES[0]: {
                "schema": {"type": "string"},
                "examples": {
                    "envelopes": {
                        "summary": "One envelope a line",
                        "value": orjson.dumps(_LINE).decode() + "\n",
                    }
                },
            },
            "application/fhir+json": {
                "schema": _BUNDLE_SCHEMA,
                "examples": {
                    "bundle": {
                        "summary": "A Bundle",
                        "value": {
                            "resourceType": "Bundle",
                            "type": "collection",
                            "entry": [{"resource": _RESOURCE}],
                        },
                    }
                },
            },
        },
    }
}

_BatchId = Annotated[UUID, Path(description="As in `Location`.")]


@router.post(
    "",
    status_code=202,
    response_model=BatchReceipt,
    summary="Submit many resources",
    openapi_extra=_BODY,
    responses={
        202: {
            "headers": {
                "Location": {"schema": {"type": "string"}, "description": "The batch's address."},
                **LIMIT_HEADERS,
            }
        },
        **documented(400, 401, 403, 404, 408, 409, 413, 415, 429, 503),
    },
)
async def submit(
    request: Request,
    relay: RelayDep,
    caller: CallerDep,
    intake: IntakeDep,
    user: Annotated[
        AppUserId | None, Query(description="The backend's name of the person.")
    ] = None,
    batch: Annotated[
        UUID | None,
        Query(description="An id of your own for the batch, to find it by if the answer is lost."),
    ] = None,
    fhir_version: Annotated[
        str | None,
        Query(alias="fhirVersion", description="For lines that name none: DSTU2, STU3 or R4."),
    ] = None,
    source: Annotated[str | None, Query(description="For lines that name none.")] = None,
) -> Response:
    """Take many resources of one user in, each a line of NDJSON or an entry of a Bundle.

    Lines are committed as they come, and each has its own outcome in the answer: one that is wrong
    costs no other. If the connection breaks, whole lines are accepted all the same; the batch says
    which.
    """
    caller.require(Scope.BACKEND, Scope.DEVICE)
    limits: Limits = request.app.state.limits
    limits.acquire(caller)
    limit = relay.settings.max_body_bytes
    labels = Labels(fhir_version=fhir_version, source=source)
    batch_id = batch or uuid7()
    bind_contextvars(batch=str(batch_id))
    content_type = check_type(request, (*NDJSON_TYPES, *JSON_TYPES))
    name = caller.user(user)
    async with intake.batch():
        if content_type in NDJSON_TYPES:
            opened = await relay.batch_acceptor.open(name, batch_id, labels, by=caller.actor)
            chunks = read_chunks(request)
            async with aclosing(chunks), aclosing(read_lines(chunks, limit, intake)) as lines:
                row = await _take(relay, opened, limits.count(caller, lines))
        else:
            async with intake.body(max_bytes(request, limit)):
                bundled = read_bundle(await read_json_body(request, limit))
                opened = await relay.batch_acceptor.open(name, batch_id, labels, by=caller.actor)
                row = await _take(relay, opened, limits.count(caller, bundle_entries(bundled)))
    headers = {"Location": f"/v1/batches/{batch_id}", **limits.headers(caller)}
    return StreamingResponse(_receipt(relay, row), 202, headers, media_type="application/json")


async def _take(relay: Relay, opened: OpenBatch, entries: AsyncGenerator[Entry, None]) -> BatchRow:
    try:
        async with aclosing(entries):
            return await relay.batch_acceptor.add_entries(opened, entries)
    except (ClientDisconnect, NotFound):
        raise
    except Exception as error:
        problem = problem_of(error)
        own = f"{problem.detail} " if isinstance(error, Problem) else ""
        raise Problem(
            problem.status,
            problem.title,
            f"{own}The batch was not taken in to its end. /v1/batches/{opened.id}/lines says which"
            " lines were accepted; send the whole batch again under another id, and nothing is"
            " sent on twice.",
            headers=problem.headers,
        ) from error


async def _receipt(relay: Relay, row: BatchRow) -> AsyncGenerator[bytes, None]:
    """A BatchReceipt in pieces: that of 50,000 lines is never held as a whole."""
    summary = BatchSummary.of(row).model_dump(mode="json", by_alias=True)
    yield orjson.dumps(summary)[:-1] + b',"lines":['
    after, comma = 0, b""
    while True:
        async with relay.database.transaction() as connection:
            rows = await batches.list_lines(connection, row.id, after=after, limit=_LINES_AT_ONCE)
        if not rows:
            break
        lines = [line_of(each).model_dump(mode="json", by_alias=True) for each in rows]
        yield comma + orjson.dumps(lines)[1:-1]
        after, comma = rows[-1].line, b","
    yield b"]}"


@router.get(
    "",
    response_model=BatchList,
    summary="Batches, the newest first",
    responses=documented(400, 401, 403, 404, 503),
)
async def list_(
    relay: RelayDep,
    caller: CallerDep,
    user: Annotated[AppUserId | None, Query(description="Only this user's.")] = None,
    after: Annotated[UUID | None, Query(description="The last id of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=500, description="How many on a page.")] = 100,
) -> BatchList:
    """One page of batches; `next` is the address of the page after it."""
    caller.require(*_READERS)
    if caller.is_device:
        user = caller.user(user)
    async with relay.database.transaction() as connection:
        user_id = None
        if user is not None:
            found = await users.find_user(connection, user)
            if found is None:
                raise not_found("There is no such user.")
            user_id = found.id
        rows = await batches.list_batches(connection, user_id=user_id, after=after, limit=limit)
    last = rows[-1].id if rows else None
    following = next_page("/v1/batches", last, size=len(rows), limit=limit, query=[("user", user)])
    return BatchList(batches=[BatchSummary.of(row) for row in rows], next=following)


@router.get(
    "/{batch_id}",
    response_model=BatchStatus,
    summary="A batch's status",
    responses={
        200: {
            "headers": {
                "Retry-After": {
                    "schema": {"type": "integer"},
                    "description": "Seconds until asking again makes sense; while not settled.",
                }
            }
        },
        **documented(400, 401, 403, 404, 503),
    },
)
async def status(
    batch_id: _BatchId, response: Response, relay: RelayDep, caller: CallerDep
) -> BatchStatus:
    """How many of its lines there are in each status, and how far they are in all."""
    caller.require(*_READERS)
    async with relay.database.transaction() as connection:
        row = _check_sees(caller, await batches.get_batch(connection, batch_id))
        by_status = await batches.count_by_state(connection, batch_id)
    shown = BatchStatus.counted(row, by_status)
    if not shown.settled:
        working = sum(count for state, count in by_status.items() if state.in_progress)
        seconds = min(max(1, working // _UPLOADS_A_SECOND), _MAX_RETRY_AFTER)
        response.headers["Retry-After"] = str(seconds)
    return shown


@router.get(
    "/{batch_id}/lines",
    response_model=BatchLines,
    summary="The lines of a batch",
    responses=documented(400, 401, 403, 404, 503),
)
async def lines(
    batch_id: _BatchId,
    relay: RelayDep,
    caller: CallerDep,
    after: Annotated[
        int, Query(ge=0, le=2**31 - 1, description="The last line of the page before.")
    ] = 0,
    limit: Annotated[int, Query(ge=1, le=_LINES_AT_ONCE, description="How many on a page.")] = 500,
) -> BatchLines:
    """What became of each line, in their order; `next` is the address of the page after it."""
    caller.require(*_READERS)
    async with relay.database.transaction() as connection:
        _check_sees(caller, await batches.get_batch(connection, batch_id))
        rows = await batches.list_lines(connection, batch_id, after=after, limit=limit)
    last = rows[-1].line if rows else None
    following = next_page(f"/v1/batches/{batch_id}/lines", last, size=len(rows), limit=limit)
    return BatchLines(lines=[line_of(row) for row in rows], next=following)


def _check_sees(caller: Caller, row: BatchRow | None) -> BatchRow:
    """The row, if there is one and it is the caller's to see."""
    if row is None or (caller.is_device and row.user_id != caller.credential.user_id):
        raise not_found("There is no such batch.")
    return row
