"""Counts and logs the requests that are refused, since many of them are an attack or a defect."""

import time
from collections.abc import Callable
from uuid import UUID

import structlog
from starlette.types import Scope

from uplift.logs import LogLimit
from uplift.metrics import http_refusals

_log = structlog.get_logger(__name__)

REFUSED = frozenset({401, 403, 408, 413, 415, 429})
"""The statuses of requests that may not enter, or are too many, too large or too slow."""

CREDENTIAL = "uplift.credential"
"""Where the scope of a request has the id of its credential, if that is valid."""

_MAX_LINES = 10


class Refusals:
    """The refusals of one process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._log_limit = LogLimit(_MAX_LINES, clock)

    def note(self, scope: Scope, status: int) -> None:
        """Count a refusal, and log it unless there were too many in this second.

        The next line says how many were not logged.
        """
        route = scope.get("route")
        tags = getattr(route, "tags", None) or ["none"]
        http_refusals.labels(str(status), str(tags[0])).inc()
        unlogged = self._log_limit.take()
        if unlogged is None:
            return
        credential: UUID | None = scope.get(CREDENTIAL)
        _log.warning(
            "request_refused",
            status=status,
            method=scope["method"],
            # The template: an address itself has people's names.
            route=getattr(route, "path_format", "none"),
            credential=str(credential) if credential else "none",
            unlogged=unlogged,
        )
