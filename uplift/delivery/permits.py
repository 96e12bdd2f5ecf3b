"""Waits for permits of the rate limiter, which come in tenths of a second."""

import asyncio
import time
from contextlib import suppress

from uplift.delivery.rate_limiter import RateLimiter

_SHORTEST_WAIT = 0.005


async def wait_for_permits(
    rate_limiter: RateLimiter,
    limit: int,
    *,
    until: float,
    stopping: asyncio.Event | None = None,
) -> int:
    """Up to so many permits: waits for at least one. 0 if none would come `until` then, on
    `time.monotonic`, if the sending is stalled, or once `stopping` is set."""
    stopping = stopping or asyncio.Event()
    while limit and not stopping.is_set():
        permits = await rate_limiter.acquire(limit)
        if permits:
            return permits
        wait = max(rate_limiter.wait, _SHORTEST_WAIT)
        if rate_limiter.is_stalled or time.monotonic() + wait > until:
            break
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), wait)
    return 0
