"""After a restore or an asynchronous failover: what may have been sent is marked, and looked up
before it is sent again. The ledger alone is asked and written; docs/operations.md says why each
thing is so, and what to do around it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import structlog

from uplift.errors import ConfigurationError
from uplift.ledger import audit, restoring
from uplift.ledger.audit import SYSTEM, Action, Actor
from uplift.ledger.database import Database
from uplift.settings import Settings

_log = structlog.get_logger(__name__)

_MAX_ROWS = 1000  # in one transaction
# A worker may hold rows while they are marked. It claims or records them within one attempt.
_PASSES = 3


@dataclass(frozen=True, slots=True)
class Restored:
    """What was marked: uploads that wait, uploads that ended and can be redriven.

    `locked` were in other hands each time. `grants` are tokens that Uplift can replace by itself
    if 1upHealth has ended them since, `brought` those that only the backend can replace.
    """

    unfinished: int
    ended: int
    locked: int
    look_until: datetime
    grants: int
    brought: int


class Restorer:
    """Marks a ledger that went back in time. Any number of times; each is noted in the audit."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        # The last worker to send before the ledger went back may still have been at it.
        self._settle_seconds = settings.attempt_seconds + settings.settle_seconds

    async def recover(
        self,
        since: datetime,
        *,
        look_seconds: float,
        by: Actor = SYSTEM,
        progress: Callable[[int, int], None] = lambda _done, _all: None,
    ) -> Restored:
        """Mark a ledger that knows nothing of what happened after `since`, which has a time zone.

        For `look_seconds`, uploads that come in are looked up as well: they may be sent again by
        those whose 202 was lost. `progress` is called after each group with uploads done and in
        all. Raises ConfigurationError if the time is yet to come.
        """
        async with self._database.transaction() as connection:
            if await restoring.is_in_the_future(connection, since):
                raise ConfigurationError(
                    "That time is yet to come, by PostgreSQL's clock. Times are in UTC."
                )
            # First of all, so that nothing that comes in meanwhile escapes it.
            until = await restoring.note_restore(connection, since, look_seconds=look_seconds)
            await audit.note(connection, by, Action.RESTORED)
            total = await restoring.count_unfinished(connection)
            grants, brought = await restoring.count_grants(connection)
        unfinished = ended = locked = 0
        progress(0, total)
        for _ in range(_PASSES):
            marked_before, locked = unfinished, 0
            after: UUID | None = restoring.FIRST
            unfinished = 0
            while after is not None:
                async with self._database.transaction() as connection:
                    marked = await restoring.mark_some(
                        connection,
                        after=after,
                        limit=_MAX_ROWS,
                        settle_seconds=self._settle_seconds,
                    )
                after = marked.last
                unfinished += marked.unfinished
                ended += marked.ended
                locked += marked.locked
                progress(unfinished, max(total, unfinished))
            unfinished = max(unfinished, marked_before)
            if not locked:
                break
        _log.info("recovered", recovered=unfinished)
        return Restored(unfinished, ended, locked, until, grants, brought)
