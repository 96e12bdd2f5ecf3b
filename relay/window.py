"""How much a process has in flight: so many sends, and so many bytes of bodies."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Window:
    """A sliding window: a place is taken before a claim and given back after its outcome."""

    def __init__(self, *, slots: int, body_bytes: int) -> None:
        self._slots = slots
        self._bytes = body_bytes
        self._taken_slots = 0
        self._taken_bytes = 0
        # A body found no room: until some is given back, asking again would find none either.
        self._turned_away = False
        self._freed = asyncio.Condition()
        self._one_alone = asyncio.Lock()

    @property
    def in_flight(self) -> int:
        """Places taken now."""
        return self._taken_slots

    async def wait_for_room(self) -> None:
        """Return when an upload may be claimed; after one found no room, when some was freed."""
        async with self._freed:
            await self._freed.wait_for(self._has_room)

    def _has_room(self) -> bool:
        return (
            self._taken_slots < self._slots
            and self._taken_bytes < self._bytes
            and not self._turned_away
            and not self._one_alone.locked()
        )

    def take(self, sizes: list[int]) -> int:
        """Take places for as many of these bodies, in their order, as there is room for now.

        One body larger than all the room there is still goes, alone.
        """
        taken = 0
        if self._one_alone.locked():
            return taken
        for size in sizes:
            fits = self._taken_bytes + size <= self._bytes or not self._taken_slots
            if self._taken_slots >= self._slots or not fits:
                self._turned_away = True
                break
            self._taken_slots += 1
            self._taken_bytes += size
            taken += 1
        return taken

    async def give_back(self, size: int) -> None:
        """Free the place of one body of that size."""
        async with self._freed:
            self._taken_slots -= 1
            self._taken_bytes -= size
            self._turned_away = False
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
