"""What to send, when to wait and what comes out: the rules of the client, without sending.

Each function is a generator. It yields a `Request` and is sent a `Reply` or a `NoReply`, or it
yields a `Sleep`. What it returns is the result. `blocking` and `asynchronous` run them.
"""

import random
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from . import calls
from .errors import (
    CallError,
    NoAnswer,
    NotAllowed,
    NotAuthenticated,
    NotFinal,
    NotFound,
    NotUplift,
    ProblemAnswer,
)
from .messages import Call, NoReply, Reply, Request, error_of
from .models import BatchLine, LineProblem, Upload
from .records import Record, RecordResult
from .retries import Policy

_LONG_POLL_SECONDS = 30.0
# About the caller, not about the records.
_ABOUT_THE_CALLER = (NotAuthenticated, NotAllowed, NotFound)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait for so many seconds."""

    seconds: float


Step = Request | Sleep
Steps = Generator[Step, Reply | NoReply | None, Result]


def perform(call: Call[Result], policy: Policy) -> Steps[Result]:
    """Make a call, and repeat it while the API asks to come later or does not answer."""
    begun = time.monotonic()
    tries = 0
    while True:
        tries += 1
        reply = yield call.request
        assert reply is not None  # noqa: S101 -- a request comes to something
        if isinstance(reply, Reply) and (reply.status < 300 or reply.status == 304):
            return call.read(reply)
        pause = policy.pause(
            reply,
            tries=tries,
            elapsed=time.monotonic() - begun,
            repeatable=call.repeatable,
            spread=random.random(),  # noqa: S311 -- spreads calls, guards nothing
        )
        if pause is None:
            raise _error(reply)
        yield Sleep(pause)


def _error(reply: Reply | NoReply) -> CallError:
    return NoAnswer(reply.reason) if isinstance(reply, NoReply) else error_of(reply)


def wait_until_final(upload_id: str, seconds: float, policy: Policy) -> Steps[Upload]:
    """Long polls until the upload is final. Raises NotFinal when the time is up."""
    ends = time.monotonic() + seconds
    etag: str | None = None
    latest: Upload | None = None
    while True:
        asked = time.monotonic()
        wait = max(0.0, min(_LONG_POLL_SECONDS, ends - asked))
        reply, news = yield from perform(calls.poll_upload(upload_id, wait, etag), policy)
        latest = news or latest
        etag = reply.headers.get("etag", etag)
        if latest is None:
            raise NotUplift("The answer is 304, but nobody asked for a change.")
        if latest.final:
            return latest
        now = time.monotonic()
        if now >= ends:
            raise NotFinal(latest)
        # The API may end a long poll early, because others need its place, or allow none at all.
        if news is None and now - asked < wait / 2:
            yield Sleep(min(reply.retry_after() or 1.0, ends - now))


def submit_records(
    records: Sequence[Record],
    policy: Policy,
    *,
    user: str | None = None,
    fhir_version: str | None = None,
    source: str | None = None,
) -> Steps[list[RecordResult]]:
    """Submit records in one batch. Returns the result of each, in their order.

    If the API refuses the request for what is in it, the records go in smaller ones: one of them
    may be at fault, or their total size.
    """
    lines = b"".join(record.to_line() for record in records)
    call = calls.batch_request(lines, user=user, fhir_version=fhir_version, source=source)
    try:
        found = yield from perform(call, policy)
    except ProblemAnswer as error:
        if not _is_about_records(error):
            raise
        if len(records) == 1:
            problem = LineProblem(error.status, error.title, error.detail, error.code)
            return [RecordResult(records[0], problem=problem)]
        results: list[RecordResult] = []
        middle = len(records) // 2
        for part in (records[:middle], records[middle:]):
            results += yield from submit_records(
                part, policy, user=user, fhir_version=fhir_version, source=source
            )
        return results
    if [line.line for line in found] != list(range(1, len(records) + 1)):
        raise NotUplift("The answer to a batch does not have one result for each line.")
    return [_result(record, line) for record, line in zip(records, found, strict=True)]


def _is_about_records(error: ProblemAnswer) -> bool:
    if isinstance(error, _ABOUT_THE_CALLER):
        return False
    # An API that goes on failing with 500 may fail at one record. The other 5xx are about the API.
    return error.status == 500 or (error.status < 500 and error.status not in (408, 429))


def _result(record: Record, line: BatchLine) -> RecordResult:
    problem = line.problem
    if line.id is None and problem is None:
        problem = LineProblem(0, detail="The API gives no id.")
    return RecordResult(record, line.id, line.status, line.duplicate, problem)
