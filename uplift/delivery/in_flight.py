"""How much a process has in flight: so many sends, and so many bytes of bodies."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

# While many are in flight, so small a part of all slots is not worth a claim of its own.
_PART = 16


class InFlightLimit:
    """A sliding window: slots are taken before a claim, bytes within it, and both given back after
    the outcome."""

    def __init__(self, *, slots: int, body_bytes: int) -> None:
        self._slots = slots
        self._few = max(1, slots // _PART)
        self._bytes = body_bytes
        self._taken_slots = 0
        self._taken_bytes = 0
        # A body found no room: until some is given back, asking again would find none either.
        self._turned_away = False
        self._freed = asyncio.Condition()
        self._wanted: list[int] = []
        self._one_alone = asyncio.Lock()

    @property
    def in_flight(self) -> int:
        """Slots taken now."""
        return self._taken_slots

    async def acquire(self, limit: int) -> int:
        """Wait for room, and take slots for at least one and at most so many uploads.

        While there are only a few free, it waits for some more: a claim of a handful costs hardly
        less than one of dozens.
        """
        enough = min(limit, self._few)
        async with self._freed:
            self._wanted.append(enough)
            try:
                await self._freed.wait_for(lambda: self._has_room(enough))
            finally:
                self._wanted.remove(enough)
            taken = min(limit, self._slots - self._taken_slots)
            self._taken_slots += taken
        return taken

    def _has_room(self, slots: int) -> bool:
        return (
            self._slots - self._taken_slots >= slots
            and self._taken_bytes < self._bytes
            and not self._turned_away
            and not self._one_alone.locked()
        )

    def fit(self, sizes: Sequence[int]) -> int:
        """Take the bytes of as many of these bodies, in their order, as there is room for now.

        Their slots are taken already. One body larger than all the room there is still goes, if
        no other is in flight.
        """
        fitting = 0
        for size in sizes:
            if self._taken_bytes and self._taken_bytes + size > self._bytes:
                self._turned_away = True
                break
            self._taken_bytes += size
            fitting += 1
        return fitting

    async def release(self, slots: int, body_bytes: int = 0) -> None:
        """Free so many slots, and the bytes of the bodies that were in them."""
        async with self._freed:
            self._taken_slots -= slots
            self._taken_bytes -= body_bytes
            # Where no body goes, its slots are given back for the same body that was turned away.
            self._turned_away = self._turned_away and not body_bytes and self._taken_bytes > 0
            free = self._slots - self._taken_slots
            if not self._taken_slots or (self._wanted and free >= min(self._wanted)):
                self._freed.notify_all()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Within, nothing is in flight: what is ends first, and nobody finds room until the end."""
        try:
            async with self._one_alone:
                async with self._freed:
                    await self._freed.wait_for(lambda: not self._taken_slots)
                yield
        finally:
            async with self._freed:
                self._freed.notify_all()
