"""How much this process receives at once. A request without free capacity waits, then gets 503.

A request that waits costs little: nothing of its body is read, so TCP slows its sender down.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated

from fastapi import Depends, Request

from uplift.api.problems import Problem
from uplift.settings import Settings

_SMALL_BYTES = 64 * 1024
_RETRY_SECONDS = 5


class Capacity:
    """A fixed capacity that requests share.

    Requests get their part in the order in which they came. So small requests cannot starve a large
    one.
    """

    def __init__(self, limit: int, wait_seconds: float) -> None:
        self._limit = limit
        self._wait_seconds = wait_seconds
        self._used = 0
        self._queue = asyncio.Lock()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def acquire(self, size: int) -> AsyncIterator[None]:
        """Use this much of the capacity within the block.

        A request for more than the whole capacity gets all of it, alone. Raises a Problem (503) if
        not enough is free within the waiting time.
        """
        size = min(size, self._limit)
        if not self._queue.locked() and self._used + size <= self._limit:
            self._used += size
        else:
            await self._wait_for(size)
        try:
            yield
        finally:
            self._used -= size
            self._freed.set()

    async def _wait_for(self, size: int) -> None:
        try:
            async with asyncio.timeout(self._wait_seconds), self._queue:
                while self._used + size > self._limit:
                    self._freed.clear()
                    await self._freed.wait()
                self._used += size
        except TimeoutError:
            raise Problem(
                503,
                "The API receives too much data at the moment. Nothing was accepted. Send the"
                " request again later.",
                headers={"Retry-After": str(_RETRY_SECONDS)},
            ) from None


class Admission:
    """Decides which requests of this process may enter now: batches by number, bodies by bytes.

    A quarter of the bytes is for small bodies only. So large bodies that arrive slowly cannot delay
    small ones.
    """

    def __init__(self, settings: Settings) -> None:
        wait = settings.admission_wait_seconds
        small = settings.max_intake_bytes // 4
        self._batches = Capacity(settings.max_concurrent_batches, wait)
        self._small = Capacity(small, wait)
        self._large = Capacity(settings.max_intake_bytes - small, wait)

    def batch(self) -> AbstractAsyncContextManager[None]:
        """Admit one batch: one group of lines, and one line that is no longer than a group."""
        return self._batches.acquire(1)

    def body(self, size: int) -> AbstractAsyncContextManager[None]:
        """Admit a body, or one long line, of up to `size` bytes."""
        return (self._small if size <= _SMALL_BYTES else self._large).acquire(size)


async def get_admission(request: Request) -> Admission:
    """The admission that the app's lifespan created."""
    admission: Admission = request.app.state.admission
    return admission


AdmissionDep = Annotated[Admission, Depends(get_admission)]
