"""How a process stops: by itself after SIGTERM, and by force if that takes too long.

PostgreSQL and Redis may not answer at all while it stops. What an attempt leaves behind then is its
lease, which runs out: another worker looks the upload up.
"""

import os
import signal
import threading
from collections.abc import Callable

import structlog

_log = structlog.get_logger(__name__)

MAX_STOP_SECONDS = 28.0
"""From SIGTERM to the end of the process. docker-compose.yml gives it 30 s."""


def _end_at_once() -> None:
    os._exit(os.EX_SOFTWARE)


def limit_stop(
    seconds: float = MAX_STOP_SECONDS, *, end: Callable[[], None] = _end_at_once
) -> threading.Timer:
    """End this process by force when so many seconds have passed. It stops already."""

    def end_by_force() -> None:
        _log.critical("stop_took_too_long")
        end()

    timer = threading.Timer(seconds, end_by_force)
    timer.name = "stop"
    timer.daemon = True
    timer.start()
    return timer


def stop_this_process() -> None:
    """Stop this process as its supervisor does. Its supervisor starts it again."""
    limit_stop()
    os.kill(os.getpid(), signal.SIGTERM)
