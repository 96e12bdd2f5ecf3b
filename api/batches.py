"""Batches over HTTP: many records of one person in one request."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Annotated
from uuid import UUID

import orjson
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from structlog.contextvars import bind_contextvars
from uuid_utils.compat import uuid7

from uplift.api.admission import AdmissionDep
from uplift.api.batch_bodies import (
    NDJSON_TYPES,
    bundle_entries,
    read_bundle_unblocked,
    read_lines,
)
from uplift.api.batch_openapi import BATCH_ACCEPTED, BATCH_READ, SUBMIT_BATCH
from uplift.api.batch_schemas import (
    BatchLines,
    BatchList,
    BatchResult,
    BatchStatus,
    BatchSummary,
    dump_lines,
    dump_queued,
    line_of,
)
from uplift.api.bodies import (
    JSON_TYPES,
    check_type,
    media_type_version,
    read_chunks,
    read_json_body,
)
from uplift.api.callers import Caller, CallerDep, RelayDep
from uplift.api.fair_share import Receiving
from uplift.api.named_user import id_of_user
from uplift.api.pages import After, PageSize, Sorted, next_page
from uplift.api.problems import Problem, documented, problem_of
from uplift.api.rate_limits import RateLimits
from uplift.api.schemas import AppUserId
from uplift.api.work import Work, resume_as_large, resume_for, work_of
from uplift.errors import NotFound
from uplift.intake.accept_batch import Entry, OpenBatch
from uplift.intake.labels import Labels
from uplift.intake.line_results import LineResults
from uplift.intake.submission import version_of
from uplift.ledger import batches
from uplift.ledger.batches import BatchRow
from uplift.ledger.credentials import Scope
from uplift.ledger.pages import Order
from uplift.problem_types import ProblemType
from uplift.wiring import Relay

router = APIRouter(tags=["batches"], prefix="/v1/batches")

_READERS = (Scope.SUBMIT, Scope.OPERATOR, Scope.DEVICE)
_LINES_PER_READ = 1000
_MAX_RETRY_AFTER = 30
_UPLOADS_PER_SECOND = 100  # a guess, used only to say when to ask again

_BatchId = Annotated[UUID, Path(description="The id of the batch.")]


@router.post(
    "",
    status_code=202,
    response_model=BatchResult,
    summary="Submit many resources",
    openapi_extra=SUBMIT_BATCH,
    responses=BATCH_ACCEPTED | documented(400, 401, 403, 404, 408, 409, 413, 415, 429, 503),
)
async def submit_batch(
    request: Request,
    relay: RelayDep,
    caller: CallerDep,
    admission: AdmissionDep,
    user: Annotated[
        AppUserId | None, Query(description="The backend's name for the person (`appUserId`).")
    ] = None,
    batch: Annotated[
        UUID | None,
        Query(
            description="Your own id for the batch. With it you find the batch if the answer is"
            " lost."
        ),
    ] = None,
    fhir_version: Annotated[
        str | None,
        Query(
            alias="fhirVersion",
            description="The FHIR version of lines that name none: DSTU2, STU3 or R4.",
        ),
    ] = None,
    source: Annotated[str | None, Query(description="The source of lines that name none.")] = None,
    force: Annotated[
        bool, Query(description="An older version takes the place of a newer one.")
    ] = False,
) -> Response:
    """Accepts many resources of one user, as lines of NDJSON or as entries of a Bundle.

    Lines are committed while they arrive. The answer has one result for each line: a wrong line
    does not affect the others. If the connection breaks, complete lines stay accepted. The batch
    says which ones.
    """
    caller.require(Scope.SUBMIT, Scope.DEVICE)
    rate_limits: RateLimits = request.app.state.rate_limits
    rate_limits.acquire(caller)
    limit = relay.settings.max_body_bytes
    labels = Labels(
        fhir_version=fhir_version,
        source=source,
        force=force,
        media_type_version=media_type_version(request),
    )
    version_of(labels)
    batch_id = batch or uuid7()
    bind_contextvars(batch=str(batch_id))
    content_type = check_type(request, (*NDJSON_TYPES, *JSON_TYPES))
    name = caller.user(user)
    receiving, results = Receiving(), LineResults()
    # The wait for a batch's place is no work.
    work_of(request).pause()
    async with (
        admission.batch(caller.credential, receiving),
        admission.body(caller.credential, receiving) as part,
    ):
        if content_type in NDJSON_TYPES:

            def charge_blank(lines: int) -> None:
                rate_limits.charge_blank(caller, lines)

            chunks = rate_limits.charge_chunks(
                caller, read_chunks(request, receiving, relay.settings.max_batch_bytes)
            )
            lines = read_lines(chunks, relay.settings, part, charge_blank)
            async with aclosing(chunks), aclosing(lines):
                first = await anext(lines, None)
                if first is None:
                    raise Problem(
                        ProblemType.EMPTY_BATCH,
                        "The batch has no line. Send NDJSON, one record in each line.",
                    )
                opened = await relay.batch_acceptor.open(name, batch_id, labels, by=caller.actor)
                entries = rate_limits.charge(caller, _with_first(first, lines))
                row = await _accept(relay, opened, entries, results)
        else:
            body = await read_json_body(request, limit, part)
            rate_limits.charge_bytes(caller, len(body))
            bundled = await read_bundle_unblocked(body, relay.settings.max_json_values)
            opened = await relay.batch_acceptor.open(name, batch_id, labels, by=caller.actor)
            entries = rate_limits.charge(caller, bundle_entries(bundled))
            row = await _accept(relay, opened, entries, results)
    headers = {"Location": f"/v1/batches/{batch_id}", **rate_limits.headers(caller)}
    result = _result(relay, row, results, work_of(request))
    return StreamingResponse(result, 202, headers, media_type="application/json")


async def _with_first(
    first: Sequence[Entry], others: AsyncIterator[Sequence[Entry]]
) -> AsyncGenerator[Sequence[Entry], None]:
    yield first
    async for part in others:
        yield part


async def _accept(
    relay: Relay,
    opened: OpenBatch,
    entries: AsyncGenerator[Sequence[Entry], None],
    results: LineResults,
) -> BatchRow:
    try:
        async with aclosing(entries):
            return await relay.batch_acceptor.add_entries(opened, entries, results)
    except (ClientDisconnect, NotFound):
        raise
    except Exception as error:
        problem = problem_of(error, "POST")
        # Other errors say that nothing was accepted. That is not so for the lines before.
        why = f"{problem.detail} " if isinstance(error, Problem) else ""
        raise Problem(
            problem.kind,
            f"{why}The batch was not accepted completely. /v1/batches/{opened.id}/lines lists the"
            " accepted lines. Send the whole batch again with another id: accepted lines become"
            " duplicates and are not sent again.",
            headers=problem.headers,
        ) from error


async def _result(
    relay: Relay, row: BatchRow, results: LineResults, work: Work
) -> AsyncGenerator[bytes, None]:
    """A BatchResult in pieces: the result of 50,000 lines is never in memory as a whole.

    Each piece is work again. Who reads the result slowly keeps nobody from theirs.
    """
    summary = BatchSummary.of(row).model_dump(mode="json", by_alias=True)
    yield orjson.dumps(summary)[:-1] + b',"lines":['
    after, comma = 0, b""
    for group in results.queued():
        await work.resume()
        lines = dump_queued(group)
        work.pause()
        yield comma + lines
        comma = b","
    while not results.complete:
        await work.resume()
        async with relay.database.transaction() as connection:
            rows = await batches.list_lines(connection, row.id, after=after, limit=_LINES_PER_READ)
        if not rows:
            break
        lines = dump_lines(rows)
        work.pause()
        yield comma + lines
        after, comma = rows[-1].line, b","
    yield b"]}"


@router.get(
    "",
    response_model=BatchList,
    summary="List batches",
    responses=documented(400, 401, 403, 404, 503),
)
async def list_batches(
    request: Request,
    relay: RelayDep,
    caller: CallerDep,
    user: Annotated[AppUserId | None, Query(description="Only batches of this user.")] = None,
    order: Sorted = Order.NEWEST_FIRST,
    after: After = None,
    limit: PageSize = 100,
) -> BatchList:
    """One page of batches, the newest first. `next` is the address of the next page."""
    caller.require(*_READERS)
    if caller.is_device:
        user = caller.user(user)
    await resume_for(request, limit)
    async with relay.database.transaction() as connection:
        user_id = await id_of_user(connection, user)
        rows = await batches.list_batches(
            connection, user_id=user_id, order=order, after=after, limit=limit
        )
    ids = [row.id for row in rows]
    following = next_page("/v1/batches", ids, limit=limit, order=order, query=[("user", user)])
    return BatchList(batches=[BatchSummary.of(row) for row in rows], next=following)


@router.get(
    "/{batch_id}",
    response_model=BatchStatus,
    summary="Read a batch's status",
    responses=BATCH_READ | documented(400, 401, 403, 404, 503),
)
async def get_batch(
    batch_id: _BatchId, request: Request, response: Response, relay: RelayDep, caller: CallerDep
) -> BatchStatus:
    """The numbers of the batch: its lines, their uploads in each status, and the progress."""
    caller.require(*_READERS)
    await resume_as_large(request)
    async with relay.database.transaction() as connection:
        row = _check_sees(caller, await batches.get_batch(connection, batch_id))
        by_status = await batches.count_by_state(connection, batch_id)
    shown = BatchStatus.counted(row, by_status)
    if not shown.settled:
        working = sum(count for state, count in by_status.items() if state.in_progress)
        seconds = min(max(1, working // _UPLOADS_PER_SECOND), _MAX_RETRY_AFTER)
        response.headers["Retry-After"] = str(seconds)
    return shown


@router.get(
    "/{batch_id}/lines",
    response_model=BatchLines,
    response_model_exclude_unset=True,
    summary="List the lines of a batch",
    responses=documented(400, 401, 403, 404, 503),
)
async def list_batch_lines(
    batch_id: _BatchId,
    request: Request,
    relay: RelayDep,
    caller: CallerDep,
    after: Annotated[
        int,
        Query(
            ge=0, le=2**31 - 1, description="Start after this line: the last of the previous page."
        ),
    ] = 0,
    limit: Annotated[
        int, Query(ge=1, le=_LINES_PER_READ, description="Maximum number of lines on the page.")
    ] = 500,
) -> BatchLines:
    """One page of lines in their order: the upload or the problem of each line.

    Each status is the current one. `next` is the address of the next page.
    """
    caller.require(*_READERS)
    await resume_for(request, limit)
    async with relay.database.transaction() as connection:
        _check_sees(caller, await batches.get_batch(connection, batch_id))
        rows = await batches.list_lines(connection, batch_id, after=after, limit=limit)
    numbers = [row.line for row in rows]
    following = next_page(f"/v1/batches/{batch_id}/lines", numbers, limit=limit)
    return BatchLines(lines=[line_of(row) for row in rows], next=following)


def _check_sees(caller: Caller, row: BatchRow | None) -> BatchRow:
    """The row. Raises a Problem (404) if there is none or the caller may not see it."""
    if row is None or (caller.is_device and row.user_id != caller.credential.user_id):
        raise Problem(ProblemType.NO_SUCH_BATCH, "There is no such batch.")
    return row
