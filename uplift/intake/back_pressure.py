"""Whether more may come in: not while too much waits to be sent already."""

import asyncio
import time

import structlog
from sqlalchemy.exc import SQLAlchemyError

from uplift.errors import BacklogFull
from uplift.ledger.database import Database
from uplift.ledger.unfinished import count_unfinished
from uplift.settings import Settings

_log = structlog.get_logger(__name__)

_COUNT_SECONDS = 2.0
_RETRY_SECONDS = 30.0
# Of a million unfinished uploads a count takes a tenth of a second: no more than a fiftieth of
# the time goes into it.
_PART_OF_TIME = 50


class BackPressure:
    """Counts what is unfinished now and then, beside the requests, never within one."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._limit = settings.max_backlog
        self._full = False
        self._next = 0.0  # on time.monotonic
        self._counting: asyncio.Task[None] | None = None

    def check(self) -> None:
        """Raise BacklogFull if there were UPLIFT_MAX_BACKLOG unfinished uploads a moment ago."""
        if self._counting is None and time.monotonic() >= self._next:
            self._counting = asyncio.create_task(self._count(), name="backlog")
        if self._full:
            raise BacklogFull(
                f"{self._limit} uploads wait to be sent already (UPLIFT_MAX_BACKLOG).",
                retry_after=_RETRY_SECONDS,
            )

    async def counted(self) -> None:
        """Return when the count that is under way, if one is, has ended."""
        if self._counting is not None:
            await asyncio.gather(self._counting, return_exceptions=True)

    async def close(self) -> None:
        """Stop counting."""
        if self._counting is not None:
            self._counting.cancel()
            await self.counted()

    async def _count(self) -> None:
        began = time.monotonic()
        try:
            async with self._database.reading() as connection:
                found = await count_unfinished(connection, limit=self._limit)
            if self._full != (found >= self._limit):
                self._full = not self._full
                _log.warning("backlog_full" if self._full else "backlog_has_room")
        except (SQLAlchemyError, OSError) as error:
            # Whoever wants something of the ledger is told so by it.
            _log.warning("backlog_not_counted", error=type(error).__name__)
        finally:
            took = time.monotonic() - began
            self._next = time.monotonic() + max(_COUNT_SECONDS, _PART_OF_TIME * took)
            self._counting = None
