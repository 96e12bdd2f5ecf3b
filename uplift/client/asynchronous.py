"""`AsyncUplift`: the client for asyncio. `blocking` is the same for plain code."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from . import calls, user_operations
from .connection import (
    TIMEOUT,
    base_url,
    describe,
    headers,
    http_request,
    limits,
    no_reply_of,
    reply_of,
    uses_proxy,
)
from .exchange import Sleep, Steps, perform, submit_records, wait_until_final
from .messages import Call, NoReply, Page, Reply, Request
from .models import Upload
from .records import Cutter, Record, RecordResult
from .retries import Policy

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")
_Item = TypeVar("_Item")


def _method(
    make: Callable[_Given, Call[_Result]],
) -> Callable[Concatenate["AsyncUplift", _Given], Coroutine[Any, Any, _Result]]:
    """A method that makes the call."""

    async def method(
        self: "AsyncUplift", /, *args: _Given.args, **kwargs: _Given.kwargs
    ) -> _Result:
        return await self.call(make(*args, **kwargs))

    describe(method, make)
    return method


def _list(
    make: Callable[_Given, Call[Page[_Item]]],
) -> Callable[Concatenate["AsyncUplift", _Given], AsyncIterator[_Item]]:
    """A method that reads the pages of a list, one after the other, and gives their items."""

    async def method(
        self: "AsyncUplift", /, *args: _Given.args, **kwargs: _Given.kwargs
    ) -> AsyncIterator[_Item]:
        following: Call[Page[_Item]] | None = make(*args, **kwargs)
        while following is not None:
            page = await self.call(following)
            for item in page.items:
                yield item
            following = page.next

    describe(method, make, AsyncIterator)
    return method


class AsyncUplift:
    """Calls one Uplift API with one key, and repeats a call to a busy or restarting API.

    Every method raises CallError; `errors` has the kinds of it. Tasks can share a client.

    Args:
        url: where the API listens, such as https://uplift.example.com.
        key: an API key or a device token.
        connections: how many requests may be under way at once.
        patience: for how many seconds one call is repeated.
        first_pause: the longest pause before the first repetition, in seconds; it doubles.
        transport: sends requests in another way: for tests, or for certificates of your own.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        connections: int = 10,
        patience: float = 120.0,
        first_pause: float = 0.5,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        base = base_url(url)
        self._policy = Policy(patience, first_pause)
        self._http = httpx.AsyncClient(
            base_url=base,
            headers=headers(key),
            timeout=TIMEOUT,
            limits=limits(connections),
            trust_env=uses_proxy(base),
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    submit = _method(calls.submit)
    upload = _method(calls.upload)
    uploads = _list(calls.uploads)
    attempts = _method(calls.attempts)
    cancel = _method(calls.cancel)
    redrive = _method(calls.redrive)
    redrive_many = _method(calls.redrive_many)
    try_now = _method(calls.try_now)
    try_many_now = _method(calls.try_many_now)
    batch = _method(calls.batch)
    batches = _list(calls.batches)
    batch_lines = _list(calls.batch_lines)
    add_user = _method(user_operations.add_user)
    user = _method(user_operations.user)
    users = _list(user_operations.users)
    user_summary = _method(user_operations.user_summary)
    store_grant = _method(user_operations.store_grant)
    move_user = _method(user_operations.move_user)
    name_patient = _method(user_operations.name_patient)
    resend_user = _method(user_operations.resend_user)
    erase_user = _method(user_operations.erase_user)
    device_tokens = _method(user_operations.device_tokens)
    add_device_token = _method(user_operations.add_device_token)
    revoke_device_token = _method(user_operations.revoke_device_token)
    revoke_device_tokens = _method(user_operations.revoke_device_tokens)
    pauses = _method(user_operations.pauses)
    pause = _method(user_operations.pause)
    resume = _method(user_operations.resume)
    read_back = _method(user_operations.read_back)
    search = _list(user_operations.search)

    async def wait_until_final(self, upload_id: str, seconds: float = 300.0) -> Upload:
        """Wait for the final status of an upload. Raises NotFinal when the time is up.

        A parked upload is not final: it waits for its person.
        """
        return await self._run(wait_until_final(upload_id, seconds, self._policy))

    async def submit_batches(
        self,
        records: AsyncIterable[Record] | Iterable[Record],
        *,
        user: str | None = None,
        fhir_version: str | None = None,
        source: str | None = None,
    ) -> AsyncIterator[RecordResult]:
        """Submit any number of records of one person, in requests of up to half a mebibyte.

        Gives the result of each record, in their order, as soon as its request has an answer. Only
        the records of one request are in memory. A wrong record does not affect the others.
        """
        cutter: Cutter[Record] = Cutter()
        async for record in _each(records):
            piece = cutter.add(record, record.size)
            if piece:
                for result in await self.submit_batch(
                    piece, user=user, fhir_version=fhir_version, source=source
                ):
                    yield result
        if piece := cutter.rest():
            for result in await self.submit_batch(
                piece, user=user, fhir_version=fhir_version, source=source
            ):
                yield result

    async def submit_batch(
        self,
        records: Sequence[Record],
        *,
        user: str | None = None,
        fhir_version: str | None = None,
        source: str | None = None,
    ) -> list[RecordResult]:
        """Submit records of one person in one request. `submit_batches` makes several."""
        return await self._run(
            submit_records(
                records, self._policy, user=user, fhir_version=fhir_version, source=source
            )
        )

    async def call(self, call: Call[_Result], *, patience: float | None = None) -> _Result:
        """Make a call of `calls` or `user_operations`, with another patience if one is given."""
        policy = self._policy
        if patience is not None:
            policy = Policy(patience, policy.first_pause)
        return await self._run(perform(call, policy))

    async def _run(self, steps: Steps[_Result]) -> _Result:
        outcome: Reply | NoReply | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                result: _Result = end.value
                return result
            outcome = None
            if isinstance(step, Sleep):
                await asyncio.sleep(step.seconds)
            else:
                outcome = await self._send(step)

    async def _send(self, request: Request) -> Reply | NoReply:
        try:
            return reply_of(await self._http.send(http_request(self._http, request)))
        except httpx.TransportError as error:
            return no_reply_of(error)


async def _each(records: AsyncIterable[Record] | Iterable[Record]) -> AsyncIterator[Record]:
    if isinstance(records, AsyncIterable):
        async for record in records:
            yield record
    else:
        for record in records:
            yield record
