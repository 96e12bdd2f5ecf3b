"""The in-flight limit of a process: so many attempts, and so many bytes of bodies, at once."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from uplift.metrics import slots_free

# A claim of fewer than this part of all slots is not worth its cost while many are in flight.
_PART = 16


@dataclass(slots=True)
class _Use:
    """What one destination uses now, and until when it counts as one that has work."""

    slots: int = 0
    body_bytes: int = 0
    works_until: float = 0.0  # on time.monotonic
    # A body did not fit: until some bytes are released, none is tried again.
    turned_away: bool = False


class InFlightLimit:
    """Slots are acquired before a claim, bytes within it; both are released after the outcome.

    While several destinations have work, each gets no more than its equal share: one that responds
    to nothing leaves the others theirs. One that had work in the last `work_seconds` has some.
    Where there are several `destinations`, a few slots stay free of the only one that has work, so
    that another can begin at once.
    """

    def __init__(
        self,
        *,
        slots: int,
        body_bytes: int,
        destinations: int = 1,
        work_seconds: float = 60.0,
    ) -> None:
        self._slots = slots
        self._few = max(1, slots // _PART)
        self._bytes = body_bytes
        self._several = destinations > 1
        self._work_seconds = work_seconds
        self._uses: dict[str, _Use] = defaultdict(_Use)
        self._freed = asyncio.Condition()
        self._wanted: list[int] = []
        self._one_alone = asyncio.Lock()

    @property
    def in_flight(self) -> int:
        """Slots used now."""
        return sum(use.slots for use in self._uses.values())

    @property
    def _used_bytes(self) -> int:
        return sum(use.body_bytes for use in self._uses.values())

    def note_work(self, destination: str) -> None:
        """Note that something is due there."""
        self._uses[destination].works_until = time.monotonic() + self._work_seconds

    def _sharing(self, destination: str) -> int:
        """How many destinations share the limit with this one, which counts in any case."""
        now = time.monotonic()
        return 1 + sum(
            use.works_until > now for name, use in self._uses.items() if name != destination
        )

    async def acquire(self, limit: int, destination: str = "", *, together: int = 1) -> int:
        """Wait for free slots, and use at least one and at most `limit` of them.

        While only a few are free, it waits for some more: a claim of a few uploads costs almost as
        much as a claim of dozens. Where `together` go with one request it waits for as many, but
        never for more than half of the destination's share: some of it may hang for long.
        """
        few = min(limit, self._few)

        def has_enough() -> bool:
            many = min(limit, together, self._share(destination) // 2)
            return self._has_free(max(few, many), destination)

        async with self._freed:
            self._wanted.append(few)
            try:
                await self._freed.wait_for(has_enough)
            finally:
                self._wanted.remove(few)
            acquired = min(limit, self._free_slots(destination))
            self._uses[destination].slots += acquired
            slots_free.set(self._slots - self.in_flight)
        return acquired

    def _share(self, destination: str) -> int:
        sharing = self._sharing(destination)
        if sharing == 1:
            return max(1, self._slots - self._few) if self._several else self._slots
        return max(1, self._slots // sharing)

    def _free_slots(self, destination: str) -> int:
        used = self._uses[destination].slots
        return min(self._slots - self.in_flight, self._share(destination) - used)

    def _has_free(self, slots: int, destination: str) -> bool:
        return (
            self._free_slots(destination) >= min(slots, self._share(destination))
            and self._used_bytes < self._bytes
            and not self._uses[destination].turned_away
            and not self._one_alone.locked()
        )

    def fit(self, sizes: Sequence[int], destination: str = "") -> int:
        """Use the bytes of as many of these bodies as fit now, in their order. Returns how many.

        Their slots are acquired already. One body that is larger than the whole limit fits while
        no other is in flight, and one that is larger than its destination's share while none of
        that destination is.
        """
        use = self._uses[destination]
        share = self._bytes // self._sharing(destination)
        fitting = 0
        for size in sizes:
            used = self._used_bytes
            too_much = used + size > self._bytes
            if (used and too_much) or (use.body_bytes and use.body_bytes + size > share):
                use.turned_away = True
                break
            use.body_bytes += size
            fitting += 1
        return fitting

    async def release(self, slots: int, body_bytes: int = 0, *, destination: str = "") -> None:
        """Release so many slots, and the bytes of the bodies that were in them."""
        async with self._freed:
            self._uses[destination].slots -= slots
            self._uses[destination].body_bytes -= body_bytes
            free = self._slots - self.in_flight
            slots_free.set(free)
            # Without bytes these are the slots of the bodies that did not fit: nothing changed for
            # them.
            if body_bytes or not self._used_bytes:
                for use in self._uses.values():
                    use.turned_away = False
            if free == self._slots or (self._wanted and free >= min(self._wanted)):
                self._freed.notify_all()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Within it nothing else is in flight: it waits for all others, and they for it."""
        try:
            async with self._one_alone:
                async with self._freed:
                    await self._freed.wait_for(lambda: not self.in_flight)
                yield
        finally:
            async with self._freed:
                self._freed.notify_all()
