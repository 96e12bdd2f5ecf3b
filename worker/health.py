"""Is this process at work, or does it only exist?

Its parts can hang one by one: the event loop of the relay, and what drives it (Celery's consumer in
a worker, the loop of sweeps in beat). While Redis is away, a restart repairs nothing.
"""

import asyncio
import time
from collections.abc import Callable

from uplift.admin_port import Check, loop_responds
from uplift.queues import UPLOADS
from uplift.wiring import Maintenance

_REDIS_SECONDS = 5.0


class Heartbeat:
    """When a part of the process last showed that it lives; to begin with, now.

    `clock` counts seconds, as time.monotonic does.
    """

    def __init__(
        self, max_silence_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_silence_seconds = max_silence_seconds
        self._clock = clock
        self._last = clock()

    def beat(self, **_: object) -> None:
        """The part lives."""
        self._last = self._clock()

    @property
    def missing(self) -> bool:
        """Whether the part has been silent for too long."""
        return self._clock() - self._last > self._max_silence_seconds


def failure(
    heartbeat: Heartbeat,
    what: str,
    *,
    loop_responds: Callable[[], bool],
    redis_responds: Callable[[], bool],
) -> str | None:
    """Why the process does not work, in a few words; None if it does.

    `what` says what it means that the heartbeat is missing. The two functions may take some seconds
    to answer.
    """
    if not loop_responds():
        return "the event loop does not respond"
    if heartbeat.missing and redis_responds():
        return f"{what}, although Redis responds"
    return None


def health_check(
    parts: Maintenance, loop: asyncio.AbstractEventLoop, heartbeat: Heartbeat, what: str
) -> Check:
    """`failure` of a process whose relay is open on that loop, for the thread of the admin port."""
    return lambda: failure(
        heartbeat,
        what,
        loop_responds=lambda: loop_responds(loop),
        redis_responds=lambda: redis_responds(parts, loop),
    )


def redis_responds(parts: Maintenance, loop: asyncio.AbstractEventLoop) -> bool:
    """Whether Redis answers the relay within some seconds. For threads other than the loop's."""
    asked = asyncio.run_coroutine_threadsafe(parts.dispatcher.waiting(UPLOADS), loop)
    try:
        return asked.result(_REDIS_SECONDS) is not None
    except TimeoutError:
        asked.cancel()
        return False
