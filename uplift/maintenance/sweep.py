"""Finds what no worker has: due retries, expired leases, lost dispatches, uploads past deadline.

`uplift beat` sweeps every few seconds. Each part is safe to run anywhere, any number of times.
"""

import math
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from uplift.clocks import DISTRUST_SECONDS, Clocks, Reading, Steadiness
from uplift.delivery.rate_limiter import RateLimiter, RateLimiterState
from uplift.dispatch import Dispatcher
from uplift.ledger import (
    abandoned,
    cancelling,
    fair_queue,
    outages,
    parking,
    set_aside,
    sweeping,
)
from uplift.ledger.abandoned import Signs, Taken
from uplift.ledger.database import Database
from uplift.ledger.server import write_nothing
from uplift.ledger.set_aside import FhirType
from uplift.maintenance.retry_collisions import CollisionRetrier
from uplift.metrics import clocks_apart, sweep_duration, sweep_work
from uplift.queues import BULK, MAX_MESSAGE_IDS, UPLOADS
from uplift.settings import Settings
from uplift.users.erase import Eraser
from uplift.users.move import Mover

_log = structlog.get_logger(__name__)

_MAX_ROWS = 1000  # in one transaction
# A sweep may come late, and some of the dispatched uploads are not sent.
_DISPATCH_FACTOR = 2
# First one of each user gets its tag, then so many times as many, while there are some.
_MORE_EACH = 10
# Stalled time is credited to the rows once it is this part of the time to give up.
_CREDIT_PART = 0.01

# A wait that is longer than this one and than every setting is from a clock that jumped.
_MAX_WAIT_SECONDS = 3600.0

# Without a success for so long, the destination was away for whatever failed meanwhile.
_OUTAGE_SECONDS = 20.0
# When this process has just started, an outage may have begun so long before.
_MAX_OUTAGE_SECONDS = 3600.0
_MAX_SPREAD_SECONDS = 300.0

# A longer break in the writing of the ledger, as a part of the silence that counts, may be why a
# process is silent.
_BREAK_PART = 1 / 3

MAX_SILENCE_SWEEPS = 30
"""After so many pauses without the end of a sweep, and at least a minute, sweeps are missing."""


@dataclass(frozen=True, slots=True)
class Swept:
    """How many uploads a sweep moved, and of how many users it ended the erasure.

    `refused` crashed too many workers; those of `lease_expired` vanished; `released` have a
    grant again; `moved` go where their users moved; `retried` collided with a record that is their
    own; `expired` are past their deadline.
    """

    refused: int
    lease_expired: int
    released: int
    moved: int
    retried: int
    expired: int
    dispatched: int
    erased: int


class Sweeper:
    """Sweeps the ledger, and dispatches what it finds due."""

    def __init__(
        self,
        database: Database,
        dispatcher: Dispatcher,
        eraser: Eraser,
        mover: Mover,
        retrier: CollisionRetrier,
        rate_limiter: RateLimiter,
        settings: Settings,
    ) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._eraser = eraser
        self._mover = mover
        self._retrier = retrier
        self._rate_limiter = rate_limiter
        self._sweep_seconds = settings.sweep_seconds
        self._give_up_seconds = settings.give_up_seconds
        self._max_messages = settings.max_queued_messages
        self._attempt_seconds = settings.attempt_seconds
        self._settle_seconds = settings.settle_seconds
        self._search_seconds = max(settings.settle_seconds, settings.index_lag_seconds)
        self._silence_seconds = settings.max_silence_seconds
        self._succeeded_at: datetime | None = None
        self._clocks = Clocks()
        # A break, the pause between two heartbeats and a slow beginning after the break together
        # are less than the silence that counts.
        self._max_break = _BREAK_PART * self._silence_seconds
        self._steadiness = Steadiness(self._max_break + self._sweep_seconds)
        self._waits_capped = False
        self._longest = sweeping.LongestWaits(
            lease=settings.lease_seconds,
            settling=2 * self._search_seconds + settings.attempt_seconds,
            backoff_first=settings.backoff_first_seconds,
            max_backoff=settings.max_backoff_seconds,
            other=max(
                _MAX_WAIT_SECONDS,
                settings.max_backoff_seconds,
                2 * settings.hold_seconds,
                settings.oneup_quota_seconds,
            ),
        )

        self.ended_at: float | None = None
        """When the last sweep ended well, in seconds since 1970."""

    async def sweep(self) -> Swept:
        """One sweep. Raises the errors of the ledger; of Redis, none."""
        started = time.monotonic()
        await self._dispatcher.clear_foreign()
        clocks_right_for, signs = await self._compare_clocks()
        taken = await self._take_abandoned(signs)
        async with self._database.transaction() as connection:
            released = await parking.release_authorized(connection, limit=_MAX_ROWS)
        async with self._database.transaction() as connection:
            await cancelling.cancel_parked(connection, limit=_MAX_ROWS)
        moved = await self._mover.finish()
        retried = await self._retrier.retry()
        rate_limiter = await self._rate_limiter.state()
        expired: set[UUID] = set()
        dispatched = 0
        # While Redis is away, nothing can be dispatched, and nobody knows how long sending stalled.
        if rate_limiter is not None:
            await self._credit_stalled_time(rate_limiter.stalled_seconds)
            if clocks_right_for > DISTRUST_SECONDS:
                async with self._database.transaction() as connection:
                    expired = await sweeping.expire_past_deadline(
                        connection,
                        limit=_MAX_ROWS,
                        stalled_seconds=self._rate_limiter.stalled_seconds,
                    )
            probing = await self._rate_limiter.types.probing()
            await self._release_answering()
            await self._recover(rate_limiter, probing)
            for queue in (UPLOADS, BULK):
                dispatched += await self._dispatch_due(queue, rate_limiter, probing)
        erased = await self._eraser.finish()
        for upload_id in taken.refused:
            _log.error("upload_crashed_workers", upload=str(upload_id))
        swept = Swept(
            refused=len(taken.refused),
            lease_expired=len(taken.queued),
            released=len(released),
            moved=moved,
            retried=retried,
            expired=len(expired),
            dispatched=dispatched,
            erased=erased,
        )
        for kind, number in asdict(swept).items():
            sweep_work.labels(kind).inc(number)
        sweep_duration.observe(time.monotonic() - started)
        self.ended_at = time.time()
        await self._dispatcher.note_sweep(max(60.0, MAX_SILENCE_SWEEPS * self._sweep_seconds))
        if taken.refused or taken.queued or released or moved or retried or expired or erased:
            _log.info(
                "sweep_ended",
                refused=swept.refused,
                lease_expired=swept.lease_expired,
                released=swept.released,
                moved=swept.moved,
                retried=swept.retried,
                expired=swept.expired,
                dispatched=swept.dispatched,
                erased=swept.erased,
            )
        return swept

    async def _take_abandoned(self, signs: Signs) -> Taken:
        async with self._database.transaction() as connection:
            return await abandoned.take_abandoned(
                connection, signs, limit=_MAX_ROWS, settle_seconds=self._settle_seconds
            )

    async def _compare_clocks(self) -> tuple[float, Signs]:
        """For how many seconds the clocks are right, and what shows that a worker vanished.

        Shortens waits that a wrong clock made.
        """
        async with self._database.transaction() as connection:
            ledger = await sweeping.ledger_clock(connection)
            # A sweep that finds nothing to do must not end well if nothing can be written.
            await write_nothing(connection)
        elapsed = time.monotonic()
        reading = Reading(elapsed, ledger, time.time(), self._rate_limiter.redis_time(elapsed))
        right_for = self._clocks.note(reading)
        steady_for = self._steadiness.note(elapsed, ledger)
        clocks_apart.set(reading.apart)
        if right_for == 0:
            _log.error("clocks_are_wrong")
        # At the start too: a clock may have been corrected before.
        if right_for <= DISTRUST_SECONDS or not self._waits_capped:
            async with self._database.transaction() as connection:
                capped = await sweeping.cap_waits(connection, self._longest, limit=_MAX_ROWS)
            self._waits_capped = capped < _MAX_ROWS
            if capped:
                _log.warning("waits_shortened", uploads=capped)
        silence_counts = min(steady_for, right_for) > self._silence_seconds
        return right_for, Signs(
            # Just after a jump, every lease looks as if it had run out.
            leases_count=right_for > self._longest.lease,
            silence_seconds=self._silence_seconds,
            silence_counts_until=ledger + self._max_break if silence_counts else None,
        )

    async def _release_answering(self) -> None:
        """When a FHIR type answers again, what is held of it is due."""
        for fhir_type, since in (await self._rate_limiter.types.answering()).items():
            released, portion = 0, _MAX_ROWS
            while portion == _MAX_ROWS:
                async with self._database.transaction() as connection:
                    portion = await set_aside.release(
                        connection,
                        fhir_type,
                        since=since,
                        settle_seconds=self._search_seconds,
                        limit=_MAX_ROWS,
                    )
                released += portion
            if released:
                _log.info("type_answers_again", type="/".join(fhir_type), uploads=released)

    async def _recover(self, rate_limiter: RateLimiterState, probing: Collection[FhirType]) -> None:
        """When the first call succeeds after a time without success, what failed meanwhile is due.

        An upload that fails while others succeed keeps its backoff: it fails for its own reason.
        """
        async with self._database.transaction() as connection:
            now, succeeded = await outages.succeeded_lately(
                connection,
                seconds=2 * self._sweep_seconds,
                attempt_seconds=self._attempt_seconds,
            )
        if not succeeded:
            return
        before, self._succeeded_at = self._succeeded_at, now
        if before is None:
            before = now - timedelta(seconds=_MAX_OUTAGE_SECONDS)
        elif (now - before).total_seconds() < max(_OUTAGE_SECONDS, 4 * self._sweep_seconds):
            return
        async with self._database.transaction() as connection:
            waiting = await outages.count_waiting(connection, before, probing=probing)
        # By turns: those who come now are not behind all of them.
        spread = min(_MAX_SPREAD_SECONDS, max(1.0, waiting / rate_limiter.limit))
        portion = _MAX_ROWS if waiting else 0
        while portion == _MAX_ROWS:
            async with self._database.transaction() as connection:
                portion = await outages.make_due(
                    connection,
                    before,
                    probing=probing,
                    spread=spread,
                    settle_seconds=self._search_seconds,
                    limit=_MAX_ROWS,
                )
        if waiting:
            _log.info("destination_answers_again", uploads=waiting)

    async def _credit_stalled_time(self, stalled_seconds: float) -> None:
        """Move the deadlines of waiting uploads by the time for which nothing could be sent.

        It writes to many rows, so it waits until the time is worth it.
        """
        if stalled_seconds < _CREDIT_PART * self._give_up_seconds:
            return
        before: tuple[datetime, UUID] | None = None
        while True:
            async with self._database.transaction() as connection:
                before = await sweeping.credit_stalled_time(
                    connection, seconds=stalled_seconds, before=before, limit=_MAX_ROWS
                )
            if before is None:
                break
        # If this is lost, they get the time once more.
        await self._rate_limiter.credit(stalled_seconds)

    async def _tag_due(self, queue: str, limit: int) -> None:
        """Give a place in the fair queue to what became due, by turns between the users."""
        each = 1
        while limit > 0:
            async with self._database.transaction() as connection:
                tagged = await fair_queue.tag_due(connection, queue, each=each, limit=limit)
            limit -= len(tagged)
            if len(tagged) < each:
                break  # nobody has more
            each *= _MORE_EACH

    async def _dispatch_due(
        self, queue: str, rate_limiter: RateLimiterState, probing: Mapping[FhirType, float]
    ) -> int:
        """Dispatch what may be sent until the next sweep; while 1upHealth is away, one probe."""
        if rate_limiter.phase in ("probing", "suspended") and rate_limiter.wait:
            return 0
        limit = math.ceil(rate_limiter.limit * self._sweep_seconds * _DISPATCH_FACTOR)
        await self._tag_due(queue, limit)
        if await self._dispatcher.waiting(queue) != 0:
            # Redis is away, or every worker is awake. Each goes on until nothing is due.
            return 0
        limit = min(limit, self._max_messages * MAX_MESSAGE_IDS, _MAX_ROWS)
        if rate_limiter.phase == "probing":
            limit = 1
        async with self._database.reading() as connection:
            ready = await fair_queue.first_ready(connection, queue, limit=limit)
            for fhir_type, wait in probing.items():
                probe = None
                if not wait and not ready:
                    probe = await set_aside.first_set_aside(connection, queue, fhir_type)
                ready += [probe] if probe is not None else []
        self._dispatcher.dispatch(queue, ready)
        return len(ready)
