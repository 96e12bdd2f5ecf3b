"""What is found in Redis and was written by none of our processes: counted, and logged."""

from enum import StrEnum

import structlog

from uplift.logs import LogLimit
from uplift.metrics import redis_foreign

_log = structlog.get_logger(__name__)


class Foreign(StrEnum):
    """What was found."""

    MESSAGE = "message"
    UNACKNOWLEDGED = "unacknowledged"
    COMMAND = "command"
    KEY = "key"
    BINDING = "binding"


_log_limit = LogLimit(lines=5)


def note_foreign(what: Foreign, number: int = 1) -> None:
    """Count it. Logs at most five lines a second: who reaches Redis can cause any number."""
    redis_foreign.labels(what).inc(number)
    left_out = _log_limit.take()
    if left_out is not None:
        _log.warning("redis_value_dropped", why=what, unlogged=left_out)
