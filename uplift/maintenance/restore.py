"""After a restore or a failover that lost commits: marks the uploads that may have been sent.

A marked upload is looked up before it is sent again. Only the ledger is read and written.
docs/operations.md has the reasons and the steps around it.
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
# The next pass meets rows that a worker had locked: it claims or records within one attempt.
_PASSES = 3


@dataclass(frozen=True, slots=True)
class Restored:
    """How many uploads were marked: `unfinished`, and `ended` that can be redriven.

    `locked` stayed locked in every pass and are not marked. Until `look_until`, new uploads are
    looked up, too. 1upHealth may have ended tokens since: Uplift can replace those of `grants` by
    itself, and only the backend can replace those of `brought`.
    """

    unfinished: int
    ended: int
    locked: int
    look_until: datetime
    grants: int
    brought: int


class Restorer:
    """Marks a ledger that went back in time. It may be run again at any time."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        # The last worker may have sent until the deadline of its attempt. From then on, 1upHealth
        # has settle_seconds before it is asked what it stored.
        self._settle_seconds = settings.attempt_seconds + settings.settle_seconds

    async def mark(
        self,
        since: datetime,
        *,
        look_seconds: float,
        by: Actor = SYSTEM,
        progress: Callable[[int, int], None] = lambda _done, _all: None,
    ) -> Restored:
        """Mark the uploads of a ledger that lost all commits after `since`, which has a time zone.

        For `look_seconds`, new uploads are looked up, too: a device may send one again whose first
        upload the ledger has lost. Every person gets another sync token. After each group,
        `progress` gets the uploads done and the uploads in all. It is an event of the audit trail,
        caused by `by`. Raises ConfigurationError if `since` is in the future.
        """
        async with self._database.transaction() as connection:
            if await restoring.is_in_the_future(connection, since):
                raise ConfigurationError(
                    "That time is in the future, by PostgreSQL's clock. Times are in UTC."
                )
            # Before all else, so that it covers uploads that come in meanwhile.
            until = await restoring.note_restore(
                connection,
                since,
                look_seconds=look_seconds,
                settle_seconds=self._settle_seconds,
            )
            await restoring.mark_leased(connection)
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
        _log.info("ledger_restored", unfinished=unfinished, ended=ended, locked=locked)
        return Restored(unfinished, ended, locked, until, grants, brought)
