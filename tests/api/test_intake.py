"""Room for what comes in: taken in turns, never more than there is, and told when there is none."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from uplift.api.intake import Intake, Room
from uplift.api.problems import Problem
from uplift.settings import Settings


@asynccontextmanager
async def holding(room: Room, size: int) -> AsyncIterator[asyncio.Event]:
    """Somebody who asks for room, and holds it until the event is set or the block ends."""
    taken, over = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with room.take(size):
            taken.set()
            await over.wait()

    task = asyncio.create_task(hold())
    await asyncio.sleep(0.01)
    try:
        yield taken
    finally:
        over.set()
        await task


async def test_as_many_find_room_as_it_is_large() -> None:
    room = Room(10, 5)
    async with holding(room, 4) as first, holding(room, 6) as second:
        assert first.is_set()
        assert second.is_set()
        waiting = asyncio.create_task(room.take(1).__aenter__())
        await asyncio.sleep(0.02)
        assert not waiting.done()
    await waiting


async def test_who_finds_no_room_for_too_long_is_told_when_to_come_back() -> None:
    room = Room(10, 0.02)
    async with room.take(8):
        with pytest.raises(Problem) as refused:
            async with room.take(3):
                pytest.fail("There was no room.")
        assert refused.value.status == 503
        assert int(refused.value.headers["Retry-After"]) > 0
    async with room.take(10):  # who gave up holds nothing
        pass


async def test_small_ones_do_not_pass_a_large_one_that_waits() -> None:
    room = Room(10, 5)
    async with holding(room, 6):
        large = asyncio.create_task(room.take(9).__aenter__())
        await asyncio.sleep(0.01)
        small = asyncio.create_task(room.take(1).__aenter__())
        await asyncio.sleep(0.01)
        assert not small.done()
    await asyncio.gather(large, small)


async def test_more_than_all_the_room_is_taken_alone() -> None:
    room = Room(10, 0.02)
    async with room.take(1000):
        with pytest.raises(Problem):
            await room.take(1).__aenter__()
    async with room.take(10):
        pass


async def test_room_is_given_back_by_who_fails_or_is_cancelled() -> None:
    room = Room(1, 1)
    with pytest.raises(ZeroDivisionError):
        async with room.take(1):
            raise ZeroDivisionError
    async with room.take(1):
        waiting = [asyncio.create_task(room.take(1).__aenter__()) for _ in range(3)]
        await asyncio.sleep(0.01)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    async with room.take(1):
        pass


async def test_large_bodies_that_dawdle_do_not_hold_up_small_ones() -> None:
    intake = Intake(Settings(max_intake_bytes=1024 * 1024, admission_wait_seconds=0.02))
    async with intake.body(10**9):
        with pytest.raises(Problem):
            await intake.body(10**6).__aenter__()
        for _ in range(100):
            async with intake.body(1000):
                pass
