"""Is this process at work, or does it only exist?

Its parts can hang one by one: the event loop of the relay, and what drives it (Celery's consumer in
a worker, the loop of sweeps in beat). While PostgreSQL or Redis are away, both go on to try, and
that counts as work: a restart repairs neither. A process that stands still ends itself, so that its
supervisor starts it again.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from uplift.admin_port import Check, loop_responds
from uplift.stopping import stop_this_process

_log = structlog.get_logger(__name__)

PAUSE_SECONDS = 10.0
"""Between two checks of a process by itself."""

MAX_FAILURES = 3
"""After so many failed checks in a row, it ends."""


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


def failure(heartbeat: Heartbeat, what: str, *, loop_responds: Callable[[], bool]) -> str | None:
    """Why the process does not work, in a few words; None if it does.

    `what` says what it means that the heartbeat is missing. `loop_responds` may take some seconds
    to answer.
    """
    if not loop_responds():
        return "the event loop does not respond"
    return what if heartbeat.missing else None


def health_check(loop: asyncio.AbstractEventLoop, heartbeat: Heartbeat, what: str) -> Check:
    """`failure` of a process with that loop, for other threads."""
    return lambda: failure(heartbeat, what, loop_responds=lambda: loop_responds(loop))


@contextmanager
def ended_when_failing(
    check: Check,
    *,
    pause_seconds: float = PAUSE_SECONDS,
    end: Callable[[], None] = stop_this_process,
) -> Iterator[None]:
    """Within, a thread checks the process, and ends it after MAX_FAILURES failures in a row."""
    over = threading.Event()

    def watch() -> None:
        failures = 0
        while not over.wait(pause_seconds):
            why = check()
            failures = 0 if why is None else failures + 1
            if failures == MAX_FAILURES:
                _log.critical("process_stands_still", why=why)
                end()
                return

    thread = threading.Thread(target=watch, name="health", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
