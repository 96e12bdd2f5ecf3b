"""Finds what no worker is at: due retries, abandoned leases, uploads never rung, time that is up.

Runs every few seconds on its own queue. Every part is safe to run anywhere, any number of times.
"""

from dataclasses import dataclass

import structlog

from relay.bell import Bell
from relay.erase import Eraser
from relay.ledger import parking, sweeping
from relay.ledger.database import Database
from relay.queues import BULK, MESSAGE_IDS_MOST, UPLOADS
from relay.settings import Settings

_log = structlog.get_logger(__name__)

_ROWS_MOST = 1000  # in one transaction


@dataclass(frozen=True, slots=True)
class Swept:
    """How many uploads a sweep moved, and how many users it finished erasing."""

    recovered: int
    released: int
    expired: int
    rung: int
    erased: int


class Sweeper:
    """Sweeps the ledger and rings for what it finds."""

    def __init__(self, database: Database, bell: Bell, eraser: Eraser, settings: Settings) -> None:
        self._database = database
        self._bell = bell
        self._eraser = eraser
        self._ring_seconds = settings.ring_seconds
        self._messages_most = settings.queued_messages_most
        # A worker may have sent until its attempt's deadline; then 1upHealth gets its time.
        self._recover_delay = max(
            0.0, settings.attempt_seconds + settings.settle_seconds - settings.lease_seconds
        )

    async def sweep(self) -> Swept:
        """One sweep."""
        async with self._database.transaction() as connection:
            recovered = await sweeping.recover_abandoned(
                connection, most=_ROWS_MOST, delay=self._recover_delay
            )
        async with self._database.transaction() as connection:
            released = await parking.release_authorized(connection, most=_ROWS_MOST)
        async with self._database.transaction() as connection:
            expired = await sweeping.expire_outlived(connection, most=_ROWS_MOST)
        rung = 0
        for queue in (UPLOADS, BULK):
            rung += await self._ring_due(queue)
        erased = await self._eraser.finish()
        swept = Swept(len(recovered), len(released), len(expired), rung, erased)
        if recovered or released or expired or erased:
            _log.info(
                "swept",
                recovered=swept.recovered,
                released=swept.released,
                expired=swept.expired,
                rung=swept.rung,
                erased=swept.erased,
            )
        return swept

    async def _ring_due(self, queue: str) -> int:
        waiting = await self._bell.waiting(queue)
        if waiting is None or waiting >= self._messages_most:
            # Redis is away, or the workers have enough before them: ringing more only piles up.
            return 0
        async with self._database.transaction() as connection:
            due = await sweeping.ring_due(
                connection,
                queue=queue,
                most=(self._messages_most - waiting) * MESSAGE_IDS_MOST,
                ring_seconds=self._ring_seconds,
            )
        self._bell.ring(queue, due)
        return len(due)
