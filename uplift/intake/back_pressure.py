"""Refuses uploads while too many wait to be sent."""

import asyncio
import time
from collections.abc import Callable

import structlog
from sqlalchemy.exc import SQLAlchemyError

from uplift.errors import BacklogFull
from uplift.ledger.backlog import count_unfinished
from uplift.ledger.database import Database
from uplift.problem_types import ProblemType
from uplift.settings import Settings

_log = structlog.get_logger(__name__)

_COUNT_SECONDS = 2.0
_RETRY_SECONDS = 30.0
# To count a million unfinished uploads takes a tenth of a second. Counting takes no more than a
# fiftieth of the time.
_PART_OF_TIME = 50


class BackPressure:
    """Counts what is unfinished now and then, in a task of its own, so no request waits for it."""

    def __init__(
        self, database: Database, settings: Settings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._limit = settings.max_backlog
        self._full = False
        self._clock = clock
        self._next = clock()  # when to count again
        self._counting: asyncio.Task[None] | None = None

    def check(self) -> None:
        """Raise BacklogFull if there were UPLIFT_MAX_BACKLOG unfinished uploads a moment ago."""
        if self._counting is None and self._clock() >= self._next:
            self._counting = asyncio.create_task(self._count(), name="backlog")
        if self._full:
            raise BacklogFull(
                ProblemType.BACKLOG_FULL,
                f"{self._limit} uploads wait to be sent already (UPLIFT_MAX_BACKLOG).",
                retry_after=_RETRY_SECONDS,
            )

    async def counted(self) -> None:
        """Wait for the count that is under way, if there is one."""
        if self._counting is not None:
            await asyncio.gather(self._counting, return_exceptions=True)

    async def close(self) -> None:
        """Stop counting."""
        if self._counting is not None:
            self._counting.cancel()
            await self.counted()

    async def _count(self) -> None:
        began = self._clock()
        try:
            async with self._database.reading() as connection:
                found = await count_unfinished(connection, limit=self._limit)
            if self._full != (found >= self._limit):
                self._full = not self._full
                _log.warning("backlog_full" if self._full else "backlog_below_limit")
        except (SQLAlchemyError, OSError) as error:
            # Each request that needs the ledger gets the error itself.
            _log.warning("backlog_not_counted", error=type(error).__name__)
        finally:
            now = self._clock()
            self._next = now + max(_COUNT_SECONDS, _PART_OF_TIME * (now - began))
            self._counting = None
