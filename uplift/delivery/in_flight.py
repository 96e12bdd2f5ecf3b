"""The in-flight limit of a process: so many attempts, and so many bytes of bodies, at once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from uplift.metrics import slots_free

# A claim of fewer than this part of all slots is not worth its cost while many are in flight.
_PART = 16


class InFlightLimit:
    """Slots are acquired before a claim, bytes within it; both are released after the outcome."""

    def __init__(self, *, slots: int, body_bytes: int) -> None:
        self._slots = slots
        self._few = max(1, slots // _PART)
        self._bytes = body_bytes
        self._used_slots = 0
        self._used_bytes = 0
        # A body did not fit: until some bytes are released, none is tried again.
        self._turned_away = False
        self._freed = asyncio.Condition()
        self._wanted: list[int] = []
        self._one_alone = asyncio.Lock()

    @property
    def in_flight(self) -> int:
        """Slots used now."""
        return self._used_slots

    async def acquire(self, limit: int) -> int:
        """Wait for free slots, and use at least one and at most `limit` of them.

        While only a few are free, it waits for some more: a claim of a few uploads costs almost as
        much as a claim of dozens.
        """
        enough = min(limit, self._few)
        async with self._freed:
            self._wanted.append(enough)
            try:
                await self._freed.wait_for(lambda: self._has_free(enough))
            finally:
                self._wanted.remove(enough)
            acquired = min(limit, self._slots - self._used_slots)
            self._used_slots += acquired
            slots_free.set(self._slots - self._used_slots)
        return acquired

    def _has_free(self, slots: int) -> bool:
        return (
            self._slots - self._used_slots >= slots
            and self._used_bytes < self._bytes
            and not self._turned_away
            and not self._one_alone.locked()
        )

    def fit(self, sizes: Sequence[int]) -> int:
        """Use the bytes of as many of these bodies as fit now, in their order. Returns how many.

        Their slots are acquired already. One body that is larger than the whole limit fits while
        no other is in flight.
        """
        fitting = 0
        for size in sizes:
            if self._used_bytes and self._used_bytes + size > self._bytes:
                self._turned_away = True
                break
            self._used_bytes += size
            fitting += 1
        return fitting

    async def release(self, slots: int, body_bytes: int = 0) -> None:
        """Release so many slots, and the bytes of the bodies that were in them."""
        async with self._freed:
            self._used_slots -= slots
            self._used_bytes -= body_bytes
            slots_free.set(self._slots - self._used_slots)
            # Without bytes these are the slots of the bodies that did not fit: nothing changed for
            # them.
            self._turned_away = self._turned_away and not body_bytes and self._used_bytes > 0
            free = self._slots - self._used_slots
            if not self._used_slots or (self._wanted and free >= min(self._wanted)):
                self._freed.notify_all()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Within it nothing else is in flight: it waits for all others, and they for it."""
        try:
            async with self._one_alone:
                async with self._freed:
                    await self._freed.wait_for(lambda: not self._used_slots)
                yield
        finally:
            async with self._freed:
                self._freed.notify_all()
