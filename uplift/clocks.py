"""Do the clocks agree, and did one of them jump? Pure.

The ledger's times are by PostgreSQL's clock, the rate limiter's by Redis', a Retry-After date by
the machine's. A clock that jumps makes waits end early or never. So times are compared with the
time that has passed (`elapsed`, as time.monotonic counts), and while they do not fit, nothing ends
because of a time.
"""

import math
from dataclasses import dataclass

MAX_APART_SECONDS = 30.0
"""Clocks that differ by more do not agree, and one that moves by more has jumped."""

_STEP_SECONDS = 5.0

DISTRUST_SECONDS = 3600.0
"""So long after a jump nothing expires."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The clocks at one moment, in seconds; None for one that cannot be read."""

    elapsed: float
    ledger: float
    machine: float
    redis: float | None = None

    @property
    def apart(self) -> float:
        """By how much two of the clocks differ at most."""
        shown = [self.ledger, self.machine] + ([] if self.redis is None else [self.redis])
        return max(shown) - min(shown)


def jumped(before: Reading, now: Reading) -> bool:
    """Whether a clock moved by another time than has passed."""
    passed = now.elapsed - before.elapsed
    pairs = [(before.ledger, now.ledger), (before.machine, now.machine)]
    if before.redis is not None and now.redis is not None:
        pairs.append((before.redis, now.redis))
    return any(abs((after - at) - passed) > MAX_APART_SECONDS for at, after in pairs)


class Clocks:
    """Remembers when the clocks last did not agree, or jumped."""

    def __init__(self) -> None:
        self._last: Reading | None = None
        self._wrong_at = -math.inf

    def note(self, now: Reading) -> float:
        """Compare this reading with the one before. For how many seconds the clocks are right."""
        if now.apart > MAX_APART_SECONDS or (self._last is not None and jumped(self._last, now)):
            self._wrong_at = now.elapsed
        self._last = now
        return now.elapsed - self._wrong_at


class Steadiness:
    """For how long the ledger was written without a break, while its clock ran like ours.

    After a break, nobody's silence means anything: the ledger may not have heard them. A break is
    longer than `max_break_seconds`, or a step of the clock by as much.
    """

    def __init__(self, max_break_seconds: float) -> None:
        self._max_break_seconds = max_break_seconds
        self._last: tuple[float, float] | None = None
        self._since = math.inf

    def note(self, elapsed: float, ledger: float) -> float:
        """The ledger was written just now, and shows this time. For how many seconds it is steady.

        `elapsed` as in `Reading`.
        """
        if self._last is None or self._broke(elapsed, ledger, *self._last):
            self._since = elapsed
        self._last = (elapsed, ledger)
        return elapsed - self._since

    def _broke(
        self, elapsed: float, ledger: float, elapsed_before: float, ledger_before: float
    ) -> bool:
        passed = elapsed - elapsed_before
        step = abs(ledger - ledger_before - passed)
        return max(passed, step) > self._max_break_seconds


class LedgerClock:
    """Since when the ledger's clock runs like ours, as a process sees it with each claim.

    Just after a step, a wait may have ended that has not passed.
    """

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None
        self._stepped_at = -math.inf

    def note(self, elapsed: float, ledger: float, machine: float) -> float:
        """The ledger and this machine show these times. For how many seconds the ledger's is right.

        To begin with, it is if both agree. `elapsed` as in `Reading`.
        """
        if self._last is None:
            stepped = abs(ledger - machine) > MAX_APART_SECONDS
        else:
            passed, passed_there = elapsed - self._last[0], ledger - self._last[1]
            stepped = abs(passed_there - passed) > _STEP_SECONDS
        if stepped:
            self._stepped_at = elapsed
        self._last = (elapsed, ledger)
        return elapsed - self._stepped_at
