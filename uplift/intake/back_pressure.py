"""Refuses uploads while too many wait to be sent."""

import asyncio
import time
from collections.abc import Callable

import structlog
from sqlalchemy.exc import SQLAlchemyError

from uplift.errors import BacklogFull, UserBacklogFull
from uplift.intake.backlog_limits import BacklogLimits
from uplift.ledger.backlog import Amount, load
from uplift.ledger.database import Database
from uplift.problem_types import ProblemType
from uplift.settings import Settings

_log = structlog.get_logger(__name__)

_COUNT_SECONDS = 2.0
_RETRY_SECONDS = 30.0
# To count a million waiting uploads by user takes half a second. Counting takes no more than a
# fiftieth of the time.
_PART_OF_TIME = 50


class BackPressure:
    """Counts what is unfinished now and then, in a task of its own, so no request waits for it."""

    def __init__(
        self, database: Database, settings: Settings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._limits = BacklogLimits(
            whole=Amount(settings.max_backlog, settings.max_backlog_bytes),
            user=Amount(settings.max_user_backlog, settings.max_user_backlog_bytes),
        )
        self._full = False
        self._full_users: frozenset[str] = frozenset()
        self._clock = clock
        self._next = clock()  # when to count again
        self._counting: asyncio.Task[None] | None = None

    def check(self, app_user_id: str) -> None:
        """Raise UserBacklogFull if that user had too much waiting a moment ago, and BacklogFull if
        all together had."""
        if self._counting is None and self._clock() >= self._next:
            self._counting = asyncio.create_task(self._count(), name="backlog")
        if self._full:
            raise BacklogFull(
                ProblemType.BACKLOG_FULL,
                "Too much waits to be sent already (UPLIFT_MAX_BACKLOG, UPLIFT_MAX_BACKLOG_BYTES).",
                retry_after=_RETRY_SECONDS,
            )
        if app_user_id in self._full_users:
            raise UserBacklogFull(
                ProblemType.USER_BACKLOG_FULL,
                "Too much of this user waits already (UPLIFT_MAX_USER_BACKLOG,"
                " UPLIFT_MAX_USER_BACKLOG_BYTES): to be sent, or for the person's consent.",
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
                found = await load(connection, much=self._limits.user)
            if self._full != self._limits.is_full(found.queued):
                self._full = not self._full
                _log.warning("backlog_full" if self._full else "backlog_below_limit")
            self._full_users = self._limits.full_users(found)
        except (SQLAlchemyError, OSError) as error:
            # Each request that needs the ledger gets the error itself.
            _log.warning("backlog_not_counted", error=type(error).__name__)
        finally:
            now = self._clock()
            self._next = now + max(_COUNT_SECONDS, _PART_OF_TIME * (now - began))
            self._counting = None
