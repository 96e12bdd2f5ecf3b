"""Finds what no worker is at: due retries, abandoned leases, uploads never rung, time that is up.

Runs every few seconds on its own queue. Every part is safe to run anywhere, any number of times.
"""

import math
import time
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

import structlog

from uplift.delivery.rate_limiter import Pace, PaceState
from uplift.dispatch import Bell
from uplift.ledger import cancelling, parking, sweeping
from uplift.ledger.database import Database
from uplift.metrics import sweep_duration, sweep_work
from uplift.queues import BULK, MESSAGE_IDS_MOST, UPLOADS
from uplift.settings import Settings
from uplift.users.erase import Eraser

_log = structlog.get_logger(__name__)

_ROWS_MOST = 1000  # in one transaction
# Sweeps are not punctual, and some of what is rung for is not to be sent.
_RATHER_MORE = 2
# The part of the time to give up that sending stood still for before it is written to what waits.
_WORTH_IT = 0.01


@dataclass(frozen=True, slots=True)
class Swept:
    """How many uploads a sweep moved, and how many users it finished erasing."""

    refused: int
    recovered: int
    released: int
    expired: int
    rung: int
    erased: int


class Sweeper:
    """Sweeps the ledger and rings for what it finds."""

    def __init__(
        self, database: Database, bell: Bell, eraser: Eraser, pace: Pace, settings: Settings
    ) -> None:
        self._database = database
        self._bell = bell
        self._eraser = eraser
        self._pace = pace
        self._sweep_seconds = settings.sweep_seconds
        self._give_up_seconds = settings.give_up_seconds
        self._ring_seconds = settings.ring_seconds
        self._messages_most = settings.queued_messages_most
        # A worker may have sent until its attempt's deadline; then 1upHealth gets its time.
        self._recover_delay = max(
            0.0, settings.attempt_seconds + settings.settle_seconds - settings.lease_seconds
        )

        self._probes: Counter[str] = Counter()  # by queue

        self.ended_at: float | None = None
        """When the last sweep ended well, in seconds since 1970."""

    async def sweep(self) -> Swept:
        """One sweep."""
        started = time.monotonic()
        async with self._database.transaction() as connection:
            refused = await sweeping.refuse_crashing(connection, most=_ROWS_MOST)
            recovered = await sweeping.recover_abandoned(
                connection, most=_ROWS_MOST, delay=self._recover_delay
            )
        async with self._database.transaction() as connection:
            released = await parking.release_authorized(connection, most=_ROWS_MOST)
        async with self._database.transaction() as connection:
            await cancelling.cancel_parked(connection, most=_ROWS_MOST)
        pace = await self._pace.state()
        expired: set[UUID] = set()
        rung = 0
        # While Redis is away nobody can be rung for, and nobody knows how long sending stood still.
        if pace is not None:
            await self._put_off_giving_up(pace.stood_still)
            async with self._database.transaction() as connection:
                expired = await sweeping.expire_outlived(
                    connection, most=_ROWS_MOST, stood_still=self._pace.stood_still
                )
            for queue in (UPLOADS, BULK):
                rung += await self._ring_due(queue, pace)
        erased = await self._eraser.finish()
        for upload_id in refused:
            _log.error("upload_crashes_workers", upload=str(upload_id))
        swept = Swept(
            refused=len(refused),
            recovered=len(recovered),
            released=len(released),
            expired=len(expired),
            rung=rung,
            erased=erased,
        )
        for kind, number in asdict(swept).items():
            sweep_work.labels(kind).inc(number)
        sweep_duration.observe(time.monotonic() - started)
        self.ended_at = time.time()
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

    async def _put_off_giving_up(self, stood_still: float) -> None:
        """Give what waits the time back during which sending stood still, once it is worth it."""
        if stood_still < _WORTH_IT * self._give_up_seconds:
            return
        before: tuple[datetime, UUID] | None = None
        while True:
            async with self._database.transaction() as connection:
                before = await sweeping.put_off_giving_up(
                    connection, seconds=stood_still, before=before, most=_ROWS_MOST
                )
            if before is None:
                break
        # Were this lost, they would get it once more.
        await self._pace.made_good(stood_still)

    async def _ring_due(self, queue: str, pace: PaceState) -> int:
        """Ring for what may be sent until the next sweep: while sending is shut, for a probe."""
        if pace.phase in ("shut", "closed") and pace.wait:
            return 0
        messages_most = min(
            self._messages_most,
            math.ceil(pace.limit * self._ring_seconds / MESSAGE_IDS_MOST),
        )
        waiting = await self._bell.waiting(queue)
        if waiting is None or waiting >= messages_most:
            # Redis is away, or the workers have enough before them: ringing more only piles up.
            return 0
        most = (messages_most - waiting) * MESSAGE_IDS_MOST
        most = min(most, math.ceil(pace.limit * self._sweep_seconds * _RATHER_MORE))
        probes = pace.phase == "shut"
        if probes:
            most = 1
            self._probes[queue] += 1
        async with self._database.transaction() as connection:
            due = await sweeping.ring_due(
                connection,
                queue=queue,
                most=most,
                ring_seconds=self._ring_seconds,
                # What fails for one user only must not hold it shut for as long as they have more.
                anywhere=probes and self._probes[queue] % 2 == 0,
            )
        self._bell.ring(queue, due)
        return len(due)
