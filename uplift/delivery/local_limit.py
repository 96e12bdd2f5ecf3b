"""How many attempts one process may begin while Redis, and the rate limiter with it, is away."""

import time


class LocalLimit:
    """A fixed limit for one process, while Redis is away. It is never raised."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._next = 0.0  # when the next attempt may begin, on time.monotonic
        self._max_saved = 1.0  # seconds

    def slow(self, seconds: float) -> None:
        """Give no permit for so long."""
        self._next = max(self._next, time.monotonic() + seconds)

    def acquire(self, limit: int) -> int:
        """Permits for attempts that begin now: 0 to `limit` of them."""
        now = time.monotonic()
        if now < self._next:
            return 0
        # The unused permits of the last second may be used at once.
        start = max(self._next, now - self._max_saved)
        granted = max(1, min(limit, int((now - start) * self._limit)))
        self._next = start + granted / self._limit
        return granted

    @property
    def wait(self) -> float:
        """Seconds until there is a permit."""
        return max(0.0, self._next - time.monotonic())
