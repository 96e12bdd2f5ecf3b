"""How much each caller may bring in a time: a token bucket for each. Pure.

A bucket may go into debt, which libraries for rate limits do not know: a batch says how many
records it holds only at its end, and is not broken off in the middle. What comes after it waits
until the debt is worked off.
"""

from collections import OrderedDict
from dataclasses import dataclass
from uuid import UUID

# Callers that are remembered: the others have not come for the longest time.
_MAX_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Policy:
    """So many records at once, and as many again in each such time, in seconds."""

    records: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Standing:
    """How many records are left to a caller, and in how many seconds there is more.

    With none left, `seconds` is when the next may come; else when the whole is there again.
    """

    left: int
    seconds: float


class TokenBuckets:
    """The buckets of all callers of one process."""

    def __init__(self) -> None:
        # What was left, and when, by the clock that each call is given.
        self._buckets: OrderedDict[UUID, tuple[float, float]] = OrderedDict()

    def acquire(self, caller: UUID, policy: Policy, records: int, *, now: float) -> bool:
        """Take so many records off what a caller has left; False if there is less than one."""
        level = self._level(caller, policy, now)
        if level < 1:
            return False
        self._note(caller, level - records, now)
        return True

    def charge(self, caller: UUID, policy: Policy, records: int, *, now: float) -> None:
        """Take records that have come in already off what a caller has left, into debt if need be.

        A debt is never more than the whole.
        """
        level = self._level(caller, policy, now) - records
        self._note(caller, max(level, -float(policy.records)), now)

    def standing(self, caller: UUID, policy: Policy, *, now: float) -> Standing:
        """What a caller has left."""
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
