"""Admission: requests share a capacity in their order, and hear when there is none for them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from uplift.api.admission import Admission, Capacity
from uplift.api.problems import Problem
from uplift.settings import Settings


@asynccontextmanager
async def using(capacity: Capacity, size: int) -> AsyncIterator[asyncio.Event]:
    """A request that asks for capacity and uses it until the block ends; the event says that it
    got it."""
    acquired, over = asyncio.Event(), asyncio.Event()

    async def use() -> None:
        async with capacity.acquire(size):
            acquired.set()
            await over.wait()

    task = asyncio.create_task(use())
    await asyncio.sleep(0)
    try:
        yield acquired
    finally:
        over.set()
        await task


async def until_it_waits(task: asyncio.Task[None]) -> None:
    """Let a task run until it can only wait. A few passes of the loop are enough for that."""
    for _ in range(10):
        await asyncio.sleep(0)
    assert not task.done()


async def test_requests_share_the_capacity_until_it_is_used_up() -> None:
    capacity = Capacity(10, 5)
    async with using(capacity, 4) as first, using(capacity, 6) as second:
        assert first.is_set()
        assert second.is_set()
        waiting = asyncio.create_task(capacity.acquire(1).__aenter__())
        await until_it_waits(waiting)
    await waiting


async def test_a_request_that_waits_too_long_hears_when_to_come_back() -> None:
    capacity = Capacity(10, 0.02)
    async with capacity.acquire(8):
        with pytest.raises(Problem) as refused:
            async with capacity.acquire(3):
                pytest.fail("There was no free capacity.")
        assert refused.value.status == 503
        assert int(refused.value.headers["Retry-After"]) > 0
    async with capacity.acquire(10):  # the refused request uses nothing
        pass


async def test_small_requests_do_not_overtake_a_large_one_that_waits() -> None:
    capacity = Capacity(10, 5)
    async with using(capacity, 6):
        large = asyncio.create_task(capacity.acquire(9).__aenter__())
        await until_it_waits(large)
        small = asyncio.create_task(capacity.acquire(1).__aenter__())
        await until_it_waits(small)
    await asyncio.gather(large, small)


async def test_a_request_for_more_than_the_capacity_gets_all_of_it_alone() -> None:
    capacity = Capacity(10, 0.02)
    async with capacity.acquire(1000):
        with pytest.raises(Problem):
            await capacity.acquire(1).__aenter__()
    async with capacity.acquire(10):
        pass


async def test_failed_and_cancelled_requests_give_their_capacity_back() -> None:
    capacity = Capacity(1, 1)
    with pytest.raises(ZeroDivisionError):
        async with capacity.acquire(1):
            raise ZeroDivisionError
    async with capacity.acquire(1):
        waiting = [asyncio.create_task(capacity.acquire(1).__aenter__()) for _ in range(3)]
        for task in waiting:
            await until_it_waits(task)
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    async with capacity.acquire(1):
        pass


async def test_slow_large_bodies_do_not_delay_small_ones() -> None:
    admission = Admission(Settings(max_intake_bytes=1024 * 1024, admission_wait_seconds=0.02))
    async with admission.body(10**9):
        with pytest.raises(Problem):
            await admission.body(10**6).__aenter__()
        for _ in range(100):
            async with admission.body(1000):
                pass
