"""The spacing of what anybody may ask: a loop is slowed, and a health check is not."""

import asyncio

import pytest

from uplift.api.spacing import Spacing


async def _times(spacing: Spacing, count: int) -> list[float]:
    loop = asyncio.get_running_loop()
    started = loop.time()

    async def pass_once() -> float:
        await spacing.wait()
        return loop.time() - started

    return sorted(await asyncio.gather(*(pass_once() for _ in range(count))))


async def test_the_first_requests_pass_at_once() -> None:
    times = await _times(Spacing(seconds=10.0, free=5, longest=10.0), 5)
    assert times[-1] < 5


async def test_more_requests_pass_one_after_the_other() -> None:
    times = await _times(Spacing(seconds=0.02, free=5, longest=10.0), 25)
    assert times[-1] == pytest.approx(0.4, abs=0.2)
    assert times[14] >= 0.19


async def test_no_request_waits_longer_than_the_longest_time() -> None:
    spacing = Spacing(seconds=1.0, free=0, longest=0.1)
    assert (await _times(spacing, 50))[-1] < 1
    # Nor does what comes later wait for those.
    assert (await _times(spacing, 1))[0] < 1
