"""Answers what anybody may ask, one request after the other.

So a loop of it leaves the time to others.
"""

import asyncio


class Spacing:
    """Lets requests pass one by one, each `seconds` after the one before.

    The first `free` of them pass at once after a quiet time, and none waits longer than `longest`
    seconds.
    """

    def __init__(self, *, seconds: float, free: int, longest: float) -> None:
        self._seconds = seconds
        self._free = free
        self._longest = longest
        self._next = 0.0

    async def wait(self) -> None:
        """Return when the request may pass."""
        now = asyncio.get_running_loop().time()
        self._next = max(self._next, now - self._free * self._seconds) + self._seconds
        delay = self._next - now
        if delay > self._longest:
            self._next = now + self._longest
        if delay > 0:
            await asyncio.sleep(min(delay, self._longest))
