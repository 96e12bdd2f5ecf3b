"""Attempts that meet at the request: who goes together, who alone, and who waits for whom."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast
from uuid import UUID

import pytest
from msgspec import structs

from tests.uplift.delivery.test_outcome import CLAIM, OPENED
from uplift.delivery import meeting as meetings
from uplift.delivery.calls import Calls
from uplift.delivery.meeting import Meeting
from uplift.delivery.results import Opened
from uplift.destinations.requests import Entry, Put, Upsert, Write
from uplift.destinations.responses import Response, ResponseKind
from uplift.errors import WriteFailed

STORED = Response(ResponseKind.STORED, "http_201", 201)
IDS = [UUID(int=n) for n in range(1, 5)]


class FakeCalls:
    """Notes what is sent: single ids, and lists of those of a Bundle."""

    def __init__(self, error: Exception | None = None) -> None:
        self.sent: list[str | list[str]] = []
        self._error = error

    async def write(self, _: Opened, write: Write, __: bytes) -> Response:
        self.sent.append(_id(write))
        return STORED

    async def write_bundle(self, members: Sequence[tuple[Opened, Entry]]) -> list[Response]:
        self.sent.append([_id(entry.write) for _, entry in members])
        if self._error is not None:
            raise self._error
        return [replace(STORED, code=_id(entry.write)) for _, entry in members]


def _id(write: Write) -> str:
    assert isinstance(write, Put | Upsert)
    return write.resource_id if isinstance(write, Put) else write.value


def meeting(calls: FakeCalls, count: int, **more: Any) -> Meeting:
    return Meeting(cast("Calls", calls), IDS[:count], **{"max_bytes": 1000, **more})


async def write(met: Meeting, number: int, *refers_to: str) -> tuple[str, int]:
    opened = replace(OPENED, claim=structs.replace(CLAIM, upload_id=IDS[number]))
    entry = Entry("Observation", Put(f"u{number}"), b"{}")
    response, together = await met.write(opened, entry, frozenset(refers_to))
    return response.code, together


async def test_those_who_are_ready_go_together_once_nobody_is_awaited() -> None:
    calls = FakeCalls()
    met = meeting(calls, 3)
    first, second = (asyncio.create_task(write(met, number)) for number in (0, 1))
    await asyncio.sleep(0.01)
    assert calls.sent == [], "one is awaited"
    met.leave(IDS[2])
    assert list(await asyncio.gather(first, second)) == [("u0", 2), ("u1", 2)]
    assert calls.sent == [["u0", "u1"]]


async def test_the_last_one_of_a_group_goes_alone() -> None:
    calls = FakeCalls()
    met = meeting(calls, 2)
    met.leave(IDS[0])
    assert await write(met, 1) == ("http_201", 1)
    assert calls.sent == ["u1"]


async def test_who_is_late_goes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meetings, "_PATIENCE", 0.05)
    calls = FakeCalls()
    met = meeting(calls, 3)
    assert list(await asyncio.gather(write(met, 0), write(met, 1))) == [("u0", 2), ("u1", 2)]
    assert await write(met, 2) == ("http_201", 1)
    assert calls.sent == [["u0", "u1"], "u2"]


async def test_who_refers_to_another_is_in_another_bundle() -> None:
    calls = FakeCalls()
    met = meeting(calls, 3)
    await asyncio.gather(write(met, 0), write(met, 1), write(met, 2, "Observation/u0"))
    assert sorted(calls.sent, key=str) == [["u0", "u1"], "u2"]


async def test_an_error_is_that_of_each() -> None:
    calls = FakeCalls(WriteFailed(ValueError()))
    met = meeting(calls, 2)
    found = await asyncio.gather(write(met, 0), write(met, 1), return_exceptions=True)
    assert [type(each) for each in found] == [WriteFailed, WriteFailed]
