"""How much this process takes in at once. What finds no room waits its turn, then gets 503.

A request that waits costs little: nothing of it is read, so its sender is held back by TCP.
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


class Room:
    """So much may be taken at once. Requests take their turns, so that a large one gets its own."""

    def __init__(self, limit: int, wait_seconds: float) -> None:
        self._limit = limit
        self._wait_seconds = wait_seconds
        self._taken = 0
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def take(self, size: int) -> AsyncIterator[None]:
        """Hold so much of the room within the block. More than all there is is taken alone.

        Raises a Problem (503) if there is no room for too long.
        """
        size = min(size, self._limit)
        if not self._turn.locked() and self._taken + size <= self._limit:
            self._taken += size
        else:
            await self._wait_for(size)
        try:
            yield
        finally:
            self._taken -= size
            self._freed.set()

    async def _wait_for(self, size: int) -> None:
        try:
            async with asyncio.timeout(self._wait_seconds), self._turn:
                while self._taken + size > self._limit:
                    self._freed.clear()
                    await self._freed.wait()
                self._taken += size
        except TimeoutError:
            raise Problem(
                503,
                "Not available now",
                "Too much is coming in at once. Send again later.",
                headers={"Retry-After": str(_RETRY_SECONDS)},
            ) from None


class Intake:
    """The room of one process: for batches by their number, for bodies by their bytes.

    Small bodies have a quarter of the bytes to themselves: large ones that come in slowly must
    not hold them up.
    """

    def __init__(self, settings: Settings) -> None:
        wait = settings.admission_wait_seconds
        small = settings.max_intake_bytes // 4
        self._batches = Room(settings.max_concurrent_batches, wait)
        self._small = Room(small, wait)
        self._large = Room(settings.max_intake_bytes - small, wait)

    def batch(self) -> AbstractAsyncContextManager[None]:
        """Room for one batch: its group of lines, and a line that is no longer than a group."""
        return self._batches.take(1)

    def body(self, size: int) -> AbstractAsyncContextManager[None]:
        """Room for a body, or a long line, of up to so many bytes."""
        return (self._small if size <= _SMALL_BYTES else self._large).take(size)


async def get_intake(request: Request) -> Intake:
    """The intake that the app's lifespan opened."""
    intake: Intake = request.app.state.intake
    return intake


IntakeDep = Annotated[Intake, Depends(get_intake)]
