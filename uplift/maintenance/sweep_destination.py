"""The part of a sweep that is about one destination: what is due there is dispatched.

Each destination is swept by itself, so that one which is away keeps nothing of another waiting.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from uplift.delivery.rate_limiter import RateLimiter, RateLimiterState
from uplift.dispatch import Dispatcher
from uplift.ledger import fair_queue, outages, set_aside, sweeping
from uplift.ledger.database import Database
from uplift.ledger.set_aside import FhirType
from uplift.queues import BULK, MAX_MESSAGE_IDS, UPLOADS
from uplift.settings import Settings

_log = structlog.get_logger(__name__)

MAX_ROWS = 1000
"""So many rows are changed in one transaction at most."""

# A sweep may come late, and some of the dispatched uploads are not sent.
_DISPATCH_FACTOR = 2
# First one of each user gets its tag, then so many times as many, while there are some.
_MORE_EACH = 10
# Stalled time is credited to the rows once it is this part of the time to give up.
_CREDIT_PART = 0.01

# Without a success for so long, the destination was away for whatever failed meanwhile.
_OUTAGE_SECONDS = 20.0
# When this process has just started, an outage may have begun so long before.
_MAX_OUTAGE_SECONDS = 3600.0
_MAX_SPREAD_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class SweptDestination:
    """How many uploads for a destination ended past their deadline, and were dispatched."""

    expired: int = 0
    dispatched: int = 0


class DestinationSweeper:
    """Sweeps what is for one destination."""

    def __init__(
        self,
        database: Database,
        dispatcher: Dispatcher,
        destination: str,
        rate_limiter: RateLimiter,
        settings: Settings,
    ) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._destination = destination
        self._rate_limiter = rate_limiter
        self._sweep_seconds = settings.sweep_seconds
        self._give_up_seconds = settings.give_up_seconds
        self._max_messages = settings.max_queued_messages
        self._attempt_seconds = settings.attempt_seconds
        self._search_seconds = max(settings.settle_seconds, settings.index_lag_seconds)
        self._succeeded_at: datetime | None = None

    def redis_time(self, at: float) -> float | None:
        """Redis' clock at that time on time.monotonic, as `RateLimiter.redis_time`."""
        return self._rate_limiter.redis_time(at)

    async def sweep(self, *, clocks_right: bool, may_send: bool) -> SweptDestination:
        """Expire and dispatch. While the clocks are wrong nothing expires, and where nothing may be
        sent nothing is dispatched."""
        rate_limiter = await self._rate_limiter.state()
        # While Redis is away, nothing can be dispatched, and nobody knows how long sending stalled.
        if rate_limiter is None:
            return SweptDestination()
        expired: set[UUID] = set()
        dispatched = 0
        await self._credit_stalled_time(rate_limiter.stalled_seconds)
        if clocks_right and may_send:
            async with self._database.transaction() as connection:
                expired = await sweeping.expire_past_deadline(
                    connection,
                    self._destination,
                    limit=MAX_ROWS,
                    stalled_seconds=self._rate_limiter.stalled_seconds,
                )
        probing = await self._rate_limiter.types.probing()
        await self._release_answering()
        await self._recover(rate_limiter, probing)
        for queue in (UPLOADS, BULK) if may_send else ():
            dispatched += await self._dispatch_due(queue, rate_limiter, probing)
        return SweptDestination(len(expired), dispatched)

    async def _release_answering(self) -> None:
        """When a FHIR type answers again, what is held of it is due."""
        for fhir_type, since in (await self._rate_limiter.types.answering()).items():
            released, portion = 0, MAX_ROWS
            while portion == MAX_ROWS:
                async with self._database.transaction() as connection:
                    portion = await set_aside.release(
                        connection,
                        self._destination,
                        fhir_type,
                        since=since,
                        settle_seconds=self._search_seconds,
                        limit=MAX_ROWS,
                    )
                released += portion
            if released:
                _log.info(
                    "type_answers_again",
                    destination=self._destination,
                    type="/".join(fhir_type),
                    uploads=released,
                )

    async def _recover(self, rate_limiter: RateLimiterState, probing: Collection[FhirType]) -> None:
        """When the first call succeeds after a time without success, what failed meanwhile is due.

        An upload that fails while others succeed keeps its backoff: it fails for its own reason.
        """
        async with self._database.transaction() as connection:
            now, succeeded = await outages.succeeded_lately(
                connection,
                self._destination,
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
            waiting = await outages.count_waiting(
                connection, self._destination, before, probing=probing
            )
        # By turns: those who come now are not behind all of them.
        spread = min(_MAX_SPREAD_SECONDS, max(1.0, waiting / rate_limiter.limit))
        portion = MAX_ROWS if waiting else 0
        while portion == MAX_ROWS:
            async with self._database.transaction() as connection:
                portion = await outages.make_due(
                    connection,
                    self._destination,
                    before,
                    probing=probing,
                    spread=spread,
                    settle_seconds=self._search_seconds,
                    limit=MAX_ROWS,
                )
        if waiting:
            _log.info("destination_answers_again", destination=self._destination, uploads=waiting)

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
                    connection,
                    self._destination,
                    seconds=stalled_seconds,
                    before=before,
                    limit=MAX_ROWS,
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
                tagged = await fair_queue.tag_due(
                    connection, queue, self._destination, each=each, limit=limit
                )
            limit -= len(tagged)
            if len(tagged) < each:
                break  # nobody has more
            each *= _MORE_EACH

    async def _dispatch_due(
        self, queue: str, rate_limiter: RateLimiterState, probing: Mapping[FhirType, float]
    ) -> int:
        """Dispatch what may be sent until the next sweep; while it is away, one probe."""
        if rate_limiter.phase in ("probing", "suspended") and rate_limiter.wait:
            return 0
        limit = math.ceil(rate_limiter.limit * self._sweep_seconds * _DISPATCH_FACTOR)
        await self._tag_due(queue, limit)
        if await self._dispatcher.waiting(queue) != 0:
            # Redis is away, or every worker is awake. Each goes on until nothing is due.
            return 0
        limit = min(limit, self._max_messages * MAX_MESSAGE_IDS, MAX_ROWS)
        if rate_limiter.phase == "probing":
            limit = 1
        async with self._database.reading() as connection:
            ready = await fair_queue.first_ready(connection, queue, self._destination, limit=limit)
            for fhir_type, wait in probing.items():
                probe = None
                if not wait and not ready:
                    probe = await set_aside.first_set_aside(
                        connection, queue, self._destination, fhir_type
                    )
                ready += [probe] if probe is not None else []
        self._dispatcher.dispatch(queue, ready)
        return len(ready)
