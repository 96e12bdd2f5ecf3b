"""Shares a capacity among credentials by fair queueing.

One credential alone gets the whole capacity. When another one asks, whoever uses least is next. If
nothing becomes free within `PATIENCE_SECONDS`, requests that only wait for their sender end early,
those of the credential that uses most. So every credential has its fair share within a second.
"""

import asyncio
from bisect import insort
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from uuid import UUID

from uplift.api.problems import Problem, try_later
from uplift.metrics import admission_interrupted, admission_refused
from uplift.problem_types import ProblemType

PATIENCE_SECONDS = 0.4
_AGAIN_SECONDS = 0.1


def in_line(heads: Mapping[UUID, int], used: Mapping[UUID, int]) -> list[UUID]:
    """Credentials in the order in which they get capacity: first those that use least.

    `heads` holds the number of each one's first waiting request, `used` what each one uses. Among
    equals, the one that came first is first. Pure.
    """
    return sorted(heads, key=lambda who: (used.get(who, 0), heads[who]))


def who_yields(asks: UUID, size: int, used: Mapping[UUID, int], limit: int) -> UUID | None:
    """The credential that uses most, if it must yield to the one that asks. Pure.

    It must yield what is above its fair share, to a credential that stays within its own.
    """
    if not used:
        return None
    fair = limit / len(used.keys() | {asks})
    wanted = used.get(asks, 0) + size
    most = max(used, key=lambda who: used[who])
    if most == asks or used[most] <= max(fair, wanted):
        return None
    return most if asks not in used or wanted <= fair else None


class Receiving:
    """A request that waits for its sender, or for a change. It can be ended for another one."""

    def __init__(self) -> None:
        self._timeout: asyncio.Timeout | None = None
        self.since = 0.0
        self.interrupted = False

    @asynccontextmanager
    async def within(self, seconds: float | None) -> AsyncIterator[None]:
        """Wait within the block. Raises TimeoutError after that time, or when it is interrupted."""
        try:
            async with asyncio.timeout(seconds) as self._timeout:
                self.since = asyncio.get_running_loop().time()
                yield
        finally:
            self._timeout = None

    @property
    def can_be_interrupted(self) -> bool:
        """Whether it waits, and was not interrupted before."""
        # A wait whose time is over ends by itself: its time cannot be changed any more.
        waits = self._timeout is not None and not self._timeout.expired()
        return waits and not self.interrupted

    def interrupt(self) -> None:
        """End the wait now."""
        assert self._timeout is not None  # noqa: S101  the caller has asked
        self.interrupted = True
        self._timeout.reschedule(asyncio.get_running_loop().time())


class Part:
    """The part of a capacity that one request uses. As a context manager it begins with `size`."""

    __slots__ = ("_begin", "_share", "most", "number", "receiving", "size", "who")

    def __init__(
        self,
        share: "FairShare",
        number: int,
        who: UUID,
        most: int | None,
        begin: int,
        receiving: Receiving,
    ) -> None:
        self._share = share
        self._begin = begin
        self.number = number
        self.most = most
        self.who = who
        self.size = 0
        self.receiving = receiving

    async def grow(self, size: int) -> None:
        """Use so much more. Raises a Problem (503) if there is nothing in time."""
        if not self._share.take(self, size):
            await self._share.wait_for(self, size)

    def release(self) -> None:
        """Give all of it back."""
        if self.size:
            self._share.give_back(self, self.size)

    async def __aenter__(self) -> Self:
        if self._begin:
            await self.grow(self._begin)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


@dataclass(slots=True, eq=False)
class _Waiter:
    number: int
    part: Part
    size: int
    granted: asyncio.Future[None]


class FairShare:
    """A capacity of one process.

    A request for more than the capacity gets all of it. A quarter is only for parts up to `small`.
    With `reserve`, one part at a time may use more than there is, so that requests which grow never
    all wait for each other.
    """

    def __init__(
        self,
        what: str,
        limit: int,
        *,
        wait_seconds: float,
        refusal: str,
        small: int = 0,
        reserve: bool = False,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._what = what
        self._limit = limit
        self._wait_seconds = wait_seconds
        self._refusal = refusal
        self._small = small
        self._reserve = reserve
        self._patience = patience
        self._total = 0
        self._used: dict[UUID, int] = {}
        # The parts of each credential, the oldest first.
        self._parts: dict[UUID, dict[Part, None]] = {}
        self._waiting: dict[UUID, list[_Waiter]] = {}
        self._number = 0
        self._in_reserve: Part | None = None

    def part(
        self,
        who: UUID,
        size: int,
        *,
        most: int | None = None,
        receiving: Receiving | None = None,
    ) -> Part:
        """A part for a request of this credential, which may use `most` in all its requests."""
        self._number += 1
        return Part(self, self._number, who, most, min(size, self._limit), receiving or Receiving())

    def take(self, part: Part, size: int) -> bool:
        """Take it now if it is free and nobody waits; whether that is so."""
        if (self._waiting and part is not self._in_reserve) or not self._fits(part, size):
            return False
        self._take(part, size)
        return True

    async def wait_for(self, part: Part, size: int) -> None:
        """Take it when it is the request's turn. Raises a Problem (503) after the waiting time."""
        loop = asyncio.get_running_loop()
        self._number += 1
        waiter = _Waiter(self._number, part, size, loop.create_future())
        # Of one credential's requests the oldest is first, so that it ends.
        waiting = self._waiting.setdefault(part.who, [])
        insort(waiting, waiter, key=lambda each: each.part.number)
        ends = loop.time() + self._wait_seconds
        pause = self._patience
        try:
            self._admit()
            while not waiter.granted.done():
                left = ends - loop.time()
                if left <= 0:
                    raise self._refused()  # noqa: TRY301  the waiter leaves below
                await asyncio.wait([waiter.granted], timeout=min(pause, left))
                if not waiter.granted.done():
                    self._interrupt_for(waiter)
                    pause = _AGAIN_SECONDS
        except BaseException:
            if waiter.granted.done():
                self.give_back(part, size)
            else:
                self._leave(waiter)
            raise

    def give_back(self, part: Part, size: int) -> None:
        """Give back so much, and let others in."""
        self._total -= size
        part.size -= size
        left = self._used[part.who] - size
        if left:
            self._used[part.who] = left
        else:
            del self._used[part.who]
        if not part.size:
            parts = self._parts[part.who]
            del parts[part]
            if not parts:
                del self._parts[part.who]
            if self._in_reserve is part:
                self._in_reserve = None
        if self._waiting:
            self._admit()

    def _refused(self) -> Problem:
        admission_refused.labels(self._what).inc()
        return try_later(ProblemType.BUSY, self._refusal)

    def _fits(self, part: Part, size: int) -> bool:
        if self._in_reserve is part:
            return True
        if self._is_capped(part, size):
            return False
        is_large = part.size + size > self._small
        limit = self._limit - self._limit // 4 if self._small and is_large else self._limit
        if self._total + size <= limit:
            return True
        if not self._reserve or not is_large or self._in_reserve is not None:
            return False
        self._in_reserve = part
        return True

    def _is_capped(self, part: Part, size: int) -> bool:
        """Whether the credential would use more than it may.

        Its oldest request may always grow: otherwise all of them could wait for each other.
        """
        if part.most is None or self._used.get(part.who, 0) + size <= part.most:
            return False
        parts = self._parts.get(part.who)
        return parts is not None and next(iter(parts)) is not part

    def _take(self, part: Part, size: int) -> None:
        if not part.size:
            self._parts.setdefault(part.who, {})[part] = None
        self._total += size
        part.size += size
        self._used[part.who] = self._used.get(part.who, 0) + size

    def _admit(self) -> None:
        while self._waiting and self._admit_one():
            pass

    def _admit_one(self) -> bool:
        heads = {who: waiting[0].number for who, waiting in self._waiting.items()}
        only_small = False
        for who in in_line(heads, self._used):
            waiter = self._waiting[who][0]
            is_small = waiter.part.size + waiter.size <= self._small
            if only_small and not is_small:
                continue
            if self._fits(waiter.part, waiter.size):
                self._leave(waiter)
                self._take(waiter.part, waiter.size)
                waiter.granted.set_result(None)
                return True
            # Otherwise others would overtake a large request for ever.
            if not self._is_capped(waiter.part, waiter.size):
                if not self._small:
                    return False
                only_small = True
        return False

    def _leave(self, waiter: _Waiter) -> None:
        waiting = self._waiting[waiter.part.who]
        waiting.remove(waiter)
        if not waiting:
            del self._waiting[waiter.part.who]

    def _interrupt_for(self, waiter: _Waiter) -> None:
        asks = waiter.part.who
        if self._is_capped(waiter.part, waiter.size):
            return
        yields = who_yields(asks, waiter.size, self._used, self._limit)
        if yields is None:
            return
        parts = self._parts[yields]
        wait = [each for each in parts if each.receiving.can_be_interrupted]
        # What was interrupted before gives back what it uses as soon as it has answered.
        freed = sum(each.size for each in parts if each.receiving.interrupted)
        for part in sorted(wait, key=lambda each: each.receiving.since):
            if freed >= waiter.size:
                return
            part.receiving.interrupt()
            admission_interrupted.labels(self._what).inc()
            freed += part.size
