"""Finds what no worker has: due retries, expired leases, lost dispatches, uploads past deadline.

`uplift beat` sweeps every few seconds. Each part is safe to run anywhere, any number of times.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import structlog

from uplift.address_check import AddressCheck
from uplift.clocks import DISTRUST_SECONDS, Clocks, Reading, Steadiness
from uplift.delivery.rate_limiter import RateLimiter
from uplift.dispatch import Dispatcher
from uplift.ledger import abandoned, cancelling, parking, sweeping
from uplift.ledger.abandoned import Signs, Taken
from uplift.ledger.database import Database
from uplift.ledger.server import write_nothing
from uplift.maintenance.retry_collisions import CollisionRetrier
from uplift.maintenance.sweep_destination import MAX_ROWS, DestinationSweeper
from uplift.metrics import clocks_apart, sweep_duration, sweep_work
from uplift.settings import Settings
from uplift.users.erase import Eraser
from uplift.users.move import Mover

_log = structlog.get_logger(__name__)

# A wait that is longer than this one and than every setting is from a clock that jumped.
_MAX_WAIT_SECONDS = 3600.0

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
        addresses: AddressCheck,
        rate_limiters: Mapping[str, RateLimiter],
        settings: Settings,
    ) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._eraser = eraser
        self._mover = mover
        self._retrier = retrier
        self._addresses = addresses
        self._destinations = {
            name: DestinationSweeper(database, dispatcher, name, rate_limiter, settings)
            for name, rate_limiter in rate_limiters.items()
        }
        self._sweep_seconds = settings.sweep_seconds
        self._settle_seconds = settings.settle_seconds
        self._silence_seconds = settings.max_silence_seconds
        self._clocks = Clocks()
        # A break, the pause between two heartbeats and a slow beginning after the break together
        # are less than the silence that counts.
        self._max_break = _BREAK_PART * self._silence_seconds
        self._steadiness = Steadiness(self._max_break + self._sweep_seconds)
        self._waits_capped = False
        self._longest = sweeping.LongestWaits(
            lease=settings.lease_seconds,
            settling=settings.longest_settling_seconds,
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
            released = await parking.release_authorized(connection, limit=MAX_ROWS)
        async with self._database.transaction() as connection:
            await cancelling.cancel_parked(connection, limit=MAX_ROWS)
        moved = await self._mover.finish()
        retried = await self._retrier.retry()
        usable = await self._addresses.usable()
        of_each = [
            await each.sweep(
                clocks_right=clocks_right_for > DISTRUST_SECONDS, may_send=name in usable
            )
            for name, each in self._destinations.items()
        ]
        erased = await self._eraser.finish()
        for upload_id in taken.refused:
            _log.error("upload_crashed_workers", upload=str(upload_id))
        swept = Swept(
            refused=len(taken.refused),
            lease_expired=len(taken.queued),
            released=len(released),
            moved=moved,
            retried=retried,
            expired=sum(each.expired for each in of_each),
            dispatched=sum(each.dispatched for each in of_each),
            erased=erased,
        )
        for kind, number in asdict(swept).items():
            sweep_work.labels(kind).inc(number)
        sweep_duration.observe(time.monotonic() - started)
        self.ended_at = time.time()
        await self._dispatcher.note_sweep(max(60.0, MAX_SILENCE_SWEEPS * self._sweep_seconds))
        if taken.refused or taken.queued or released or moved or retried or swept.expired or erased:
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
                connection, signs, limit=MAX_ROWS, settle_seconds=self._settle_seconds
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
        of_redis = [each.redis_time(elapsed) for each in self._destinations.values()]
        redis_clock = next((at for at in of_redis if at is not None), None)
        reading = Reading(elapsed, ledger, time.time(), redis_clock)
        right_for = self._clocks.note(reading)
        steady_for = self._steadiness.note(elapsed, ledger)
        clocks_apart.set(reading.apart)
        if right_for == 0:
            _log.error("clocks_are_wrong")
        # At the start too: a clock may have been corrected before.
        if right_for <= DISTRUST_SECONDS or not self._waits_capped:
            async with self._database.transaction() as connection:
                capped = await sweeping.cap_waits(connection, self._longest, limit=MAX_ROWS)
            self._waits_capped = capped < MAX_ROWS
            if capped:
                _log.warning("waits_shortened", uploads=capped)
        silence_counts = min(steady_for, right_for) > self._silence_seconds
        return right_for, Signs(
            # Just after a jump, every lease looks as if it had run out.
            leases_count=right_for > self._longest.lease,
            silence_seconds=self._silence_seconds,
            silence_counts_until=ledger + self._max_break if silence_counts else None,
        )
