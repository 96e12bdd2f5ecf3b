"""Logs: events with an allow-list of fields, JSON for collectors or text for a terminal.

Only codes, counts and Uplift's own ids may be logged. A field that is not on the list is dropped,
so that a careless line cannot print health data; a test looks for canaries in all output.
"""

import logging
import logging.config
from typing import Any

import structlog

from relay.settings import Settings

_FIELDS = frozenset(
    {
        "event", "level", "timestamp", "logger",
        "upload", "uploads", "batch", "queue", "state", "outcome", "attempt", "recorded",
        "error", "why", "recovered", "released", "expired", "rung", "count", "seconds", "setting",
    }
)  # fmt: skip

# They print addresses, headers or bodies at INFO or DEBUG.
_TALKATIVE = ("httpx", "httpcore", "aiohttp", "asyncio", "sqlalchemy", "psycopg", "kombu", "amqp")
# A line for every message received and every task done says nothing of any upload.
_ROUTINE = ("celery.worker.strategy", "celery.app.trace", "celery.beat", "alembic")


def _allow_listed(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {name: value for name, value in event.items() if name in _FIELDS}


def configure_logs(settings: Settings) -> None:
    """Send structlog's events and the standard library's records to standard error."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
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
