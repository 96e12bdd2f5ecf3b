"""Limits how many records, or bytes, each caller may submit, with a token bucket for each. Pure.

A bucket may go into debt, which libraries for rate limits do not offer: what a batch brings is
known only at its end, and the batch is not cut off in the middle. The next request waits until the
debt is gone.
"""

from collections import OrderedDict
from dataclasses import dataclass
from uuid import UUID

# How many callers are remembered: those that came last.
_MAX_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Policy:
    """A caller may submit `amount` at once, of records or bytes, and as much again in each
    `seconds`."""

    amount: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Standing:
    """How much a caller may submit now, and in how many seconds there is more.

    With nothing left, `seconds` is the time until the next one; else until the bucket is full.
    """

    left: int
    seconds: float


class TokenBuckets:
    """The buckets of all callers of one process."""

    def __init__(self) -> None:
        # How much was left, and when, by the clock that each call is given.
        self._buckets: OrderedDict[UUID, tuple[float, float]] = OrderedDict()

    def acquire(self, caller: UUID, policy: Policy, amount: int, *, now: float) -> bool:
        """Take so much from a caller's bucket; False, and nothing is taken, if nothing is left."""
        level = self._level(caller, policy, now)
        if level < 1:
            return False
        self._note(caller, level - amount, now)
        return True

    def charge(self, caller: UUID, policy: Policy, amount: int, *, now: float) -> None:
        """Take what has come in already from a caller's bucket, into debt if necessary.

        A debt is never larger than the full bucket.
        """
        level = self._level(caller, policy, now) - amount
        self._note(caller, max(level, -float(policy.amount)), now)

    def standing(self, caller: UUID, policy: Policy, *, now: float) -> Standing:
        """How much a caller has left."""
        level = self._level(caller, policy, now)
        wanted = policy.amount if level >= 1 else 1
        return Standing(
            left=max(int(level), 0),
            seconds=max(wanted - level, 0.0) * policy.seconds / policy.amount,
        )

    def _level(self, caller: UUID, policy: Policy, now: float) -> float:
        level, at = self._buckets.get(caller, (float(policy.amount), now))
        return min(level + (now - at) * policy.amount / policy.seconds, policy.amount)

    def _note(self, caller: UUID, level: float, now: float) -> None:
        self._buckets[caller] = (level, now)
        self._buckets.move_to_end(caller)
        if len(self._buckets) > _MAX_REMEMBERED:
            self._buckets.popitem(last=False)
