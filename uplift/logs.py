"""Logs: events with an allow-list of fields, as JSON for collectors or as text for a terminal.

An event is named by a noun and what happened to it. What is bound with `structlog.contextvars`
(request, batch, upload) is in every line of the task that bound it, those of libraries too.

A field may hold a code, a count, an id of Uplift's own, such as the ledger's random id of a user,
or the network address of a peer that was refused. It never holds a name at the backend or anything
of a record. A field not on the list is dropped, so that a careless line cannot print health
data. One test compares the list with every line that logs, another looks for planted values in all
output.
"""

import json
import logging
import logging.config
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, TextIO

import orjson
import structlog

from uplift.settings import Settings

OF_EVERY_LINE = frozenset({"event", "level", "timestamp", "logger"})

FIELDS = OF_EVERY_LINE | {
    "request", "upload", "uploads", "batch", "user", "duplicate", "duplicates", "problems",
    "credential", "queue", "state", "outcome", "attempt", "recorded", "error", "why",
    "refused", "lease_expired", "released", "retried", "expired", "dispatched", "erased",
    "thinned", "shredded", "removed", "batches", "tokens", "keys", "moved",
    "unfinished", "ended", "locked", "left",
    "status", "method", "route", "unlogged", "peer",
    "destination", "type", "code", "task", "seal", "events", "begins",
}  # fmt: skip
"""What a line may hold. Everything else is dropped."""

# They print addresses, headers or bodies at INFO or DEBUG.
_TALKATIVE = ("httpx", "httpcore", "aiohttp", "asyncio", "sqlalchemy", "psycopg", "kombu", "amqp")
# They print a line for each message and each task, which says nothing of any upload.
_ROUTINE = ("celery.worker.strategy", "celery.app.trace", "alembic")


class LogLimit:
    """So many log lines a second about what anybody can cause. `clock` is in seconds."""

    def __init__(self, lines: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_lines = lines
        self._clock = clock
        self._second = 0
        self._lines = 0
        self._left_out = 0

    def take(self) -> int | None:
        """How many lines were left out since the last one; None if the second has no room."""
        second = int(self._clock())
        if second != self._second:
            self._second, self._lines = second, 0
        if self._lines >= self._max_lines:
            self._left_out += 1
            return None
        self._lines += 1
        left_out, self._left_out = self._left_out, 0
        return left_out


def _allow_listed(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {name: value for name, value in event.items() if name in FIELDS}


def _log_warning(
    message: Warning | str,  # noqa: ARG001
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    """A Python warning as an event, without its text: it may quote a value."""
    where = f"{Path(filename).name}:{lineno}"
    structlog.get_logger("py.warnings").warning("python_warned", error=category.__name__, why=where)


def _warnings_only(
    _: Any, level: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    if level in ("debug", "info"):
        raise structlog.DropEvent
    return event


def configure_logs_of_commands() -> None:
    """Send structlog's warnings and errors to standard error: a command's output is its own."""
    structlog.configure(
        processors=[
            _warnings_only,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _allow_listed,
            structlog.dev.ConsoleRenderer(colors=False),
        ],
        # Asked for at each event: a test replaces standard error.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


class _Lines:
    """Writes lines to standard error, for the logger of a name.

    The records of the standard library would cost several times as much: a line for each delivery
    is a tenth of a worker's time.
    """

    handler: ClassVar[logging.StreamHandler[TextIO]] = logging.StreamHandler()
    """The present one, for loggers too that are cached from before."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def write(self, line: str) -> None:
        """Write the line. Raises nothing: nobody fails because of a full disk or a closed pipe."""
        handler = _Lines.handler
        handler.acquire()
        try:
            with suppress(OSError, ValueError):
                handler.stream.write(line + "\n")
        finally:
            handler.release()

    debug = info = warning = error = critical = write


def _json(_: Any, __: str, event: structlog.typing.EventDict) -> str:
    try:
        return orjson.dumps(event, default=repr).decode()
    except orjson.JSONEncodeError:  # half a surrogate pair
        return json.dumps(event, default=repr)


def configure_logs(settings: Settings) -> None:
    """Send structlog's events, the standard library's records and warnings to standard error."""
    warnings.showwarning = _log_warning
    format_ = settings.log_format or ("text" if sys.stderr.isatty() else "json")
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        _json if format_ == "json" else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[*shared, _allow_listed, renderer],
        logger_factory=_Lines,
        wrapper_class=structlog.make_filtering_bound_logger(settings.log_level),
        cache_logger_on_first_use=True,
    )
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "events": {
                    "()": structlog.stdlib.ProcessorFormatter,
                    "foreign_pre_chain": shared,
                    "processors": [
                        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                        _allow_listed,
                        renderer,
                    ],
                }
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "events"}},
            "root": {"handlers": ["stderr"], "level": settings.log_level.upper()},
            "loggers": {name: {"level": "WARNING"} for name in _TALKATIVE + _ROUTINE},
        }
    )
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler, logging.StreamHandler)  # noqa: S101  the one above
    _Lines.handler = handler
