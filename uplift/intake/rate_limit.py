"""Limits how many records each caller may submit, with a token bucket for each. Pure.

A bucket may go into debt, which libraries for rate limits do not offer: the number of records in a
batch is known only at its end, and the batch is not cut off in the middle. The next request waits
until the debt is gone.
"""

from collections import OrderedDict
from dataclasses import dataclass
from uuid import UUID

# How many callers are remembered: those that came last.
_MAX_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Policy:
    """A caller may submit `records` at once, and as many again in each `seconds`."""

    records: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Standing:
    """How many records a caller may submit now, and in how many seconds there are more.

    With none left, `seconds` is the time until the next one; else until the bucket is full.
    """

    left: int
    seconds: float


class TokenBuckets:
    """The buckets of all callers of one process."""

    def __init__(self) -> None:
        # How many records were left, and when, by the clock that each call is given.
        self._buckets: OrderedDict[UUID, tuple[float, float]] = OrderedDict()

    def acquire(self, caller: UUID, policy: Policy, records: int, *, now: float) -> bool:
        """Take records from a caller's bucket; False, and nothing is taken, if none is left."""
        level = self._level(caller, policy, now)
        if level < 1:
            return False
        self._note(caller, level - records, now)
        return True

    def charge(self, caller: UUID, policy: Policy, records: int, *, now: float) -> None:
        """Take records that have come in already from a caller's bucket, into debt if necessary.

        A debt is never larger than the full bucket.
        """
        level = self._level(caller, policy, now) - records
        self._note(caller, max(level, -float(policy.records)), now)

    def standing(self, caller: UUID, policy: Policy, *, now: float) -> Standing:
        """How many records a caller has left."""
        level = self._level(caller, policy, now)
        wanted = policy.records if level >= 1 else 1
        return Standing(
            left=max(int(level), 0),
            seconds=max(wanted - level, 0.0) * policy.seconds / policy.records,
        )

    def _level(self, caller: UUID, policy: Policy, now: float) -> float:
        level, at = self._buckets.get(caller, (float(policy.records), now))
        return min(level + (now - at) * policy.records / policy.seconds, policy.records)

    def _note(self, caller: UUID, level: float, now: float) -> None:
        self._buckets[caller] = (level, now)
        self._buckets.move_to_end(caller)
        if len(self._buckets) > _MAX_REMEMBERED:
            self._buckets.popitem(last=False)
