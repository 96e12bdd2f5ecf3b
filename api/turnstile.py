"""Lets few requests of one credential begin in one pass of the event loop, and slows large bodies.

Without it, the steps of a thousand requests that came at once stand between two steps of any other
request. A credential that is alone passes freely: its requests that come together share statements.
"""

import asyncio
from collections import deque

_BEGIN_IN_A_PASS = 2
_ALONE_SECONDS = 1.0
"""A credential is alone when no other began a request for so long."""
_BYTES_PER_SECOND = 32 * 1024 * 1024
"""Beside others, the large bodies of one credential are received at this rate: a tenth of what the
process could receive. A batch is stored at less than that."""


class Turnstile:
    """The requests of a process that wait to begin, by what they present as their credential."""

    def __init__(self) -> None:
        self._last = b""
        self._shared_until = 0.0
        self._begun: dict[bytes, int] = {}
        self._waiting: dict[bytes, deque[asyncio.Future[None]]] = {}
        self._receives_at: dict[bytes, float] = {}

    @property
    def is_shared(self) -> bool:
        """Whether several credentials made requests within the last second."""
        return asyncio.get_running_loop().time() < self._shared_until

    async def enter(self, key: bytes) -> None:
        """Return when a request with this key may begin."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        # Health checks have no credential. They neither share with a credential nor pass freely.
        if key and key != self._last:
            self._last, self._shared_until = key, now + _ALONE_SECONDS
        if key and now >= self._shared_until and not self._waiting:
            return
        if not self._begun and not self._waiting:
            loop.call_soon(self._next_pass, loop)
        begun = self._begun.get(key, 0)
        if begun < _BEGIN_IN_A_PASS:
            self._begun[key] = begun + 1
            return
        waiter = loop.create_future()
        self._waiting.setdefault(key, deque()).append(waiter)
        await waiter

    async def receive(self, key: bytes, size: int) -> None:
        """Return when this key may go on, after it sent so many bytes of a large body."""
        if not self.is_shared:
            return
        now = asyncio.get_running_loop().time()
        if key not in self._receives_at:
            self._receives_at = {who: at for who, at in self._receives_at.items() if at > now}
        at = max(self._receives_at.get(key, now), now) + size / _BYTES_PER_SECOND
        self._receives_at[key] = at
        await asyncio.sleep(at - now)

    def _next_pass(self, loop: asyncio.AbstractEventLoop) -> None:
        self._begun.clear()
        for key, waiting in list(self._waiting.items()):
            while waiting and self._begun.get(key, 0) < _BEGIN_IN_A_PASS:
                waiter = waiting.popleft()
                if not waiter.done():  # its request was cancelled
                    waiter.set_result(None)
                    self._begun[key] = self._begun.get(key, 0) + 1
            if not waiting:
                del self._waiting[key]
        if self._begun or self._waiting:
            loop.call_soon(self._next_pass, loop)
