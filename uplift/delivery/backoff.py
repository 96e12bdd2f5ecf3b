"""When to try again. Pure: a number of attempts in, a delay out. All times in seconds.

The clock itself is `next_attempt_at` in PostgreSQL; no process sleeps for a retry.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Full jitter: a random delay below a ceiling that doubles with each attempt.

    Full jitter best spreads many uploads that failed together, see the AWS Architecture Blog,
    "Exponential Backoff And Jitter".
    """

    first: float = 5.0
    limit: float = 3600.0

    def ceiling(self, attempts: int) -> float:
        """The longest delay after `attempts` attempts (1 or more)."""
        # 2**63 already exceeds any sensible ceiling; without the cap a float would overflow.
        return min(self.limit, self.first * 2.0 ** min(max(attempts, 1) - 1, 63))

    def delay(self, attempts: int, jitter: float, *, floor: float = 0.0) -> float:
        """A delay after `attempts` attempts, never below `floor` (a Retry-After).

        `jitter` is random, from 0 to 1: the part of the ceiling to wait.
        """
        return max(floor, jitter * self.ceiling(attempts))
