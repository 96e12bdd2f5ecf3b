"""Claims uploads, as many as may be sent now, has each attempted, and records the outcomes."""

import asyncio
import time
from collections.abc import Mapping
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError
from structlog.contextvars import bind_contextvars, reset_contextvars

from uplift import traces
from uplift.address_check import AddressCheck
from uplift.coalesce import Coalescer
from uplift.delivery.attempt import Attempter
from uplift.delivery.claiming import MAX_CLAIM, Claimer
from uplift.delivery.heartbeats import Heartbeats
from uplift.delivery.in_flight import InFlightLimit
from uplift.delivery.meeting import Meeting
from uplift.delivery.rate_limiter import RateLimiter
from uplift.destinations.destination import Destination
from uplift.destinations.responses import WRONG_RESOURCES
from uplift.ledger import leases, receipts
from uplift.ledger.database import Database, is_away
from uplift.ledger.leases import Claim, Outcome
from uplift.lifecycle import Reason, State
from uplift.memory import body_bytes_for, memory_limit
from uplift.metrics import (
    attempts_unrecorded,
    count_attempt,
    uploads_parked,
    waiting_duration,
    wrong_resources,
)
from uplift.settings import Settings

_log = structlog.get_logger(__name__)

_RECORD_TRIES = 3  # while the database answers; while it is away, until the lease ends
_PAUSE_FIRST = 0.25  # seconds
_MAX_PAUSE = 2.0
# After so long, a message ends and another one goes on: Redis gives it to another worker later.
_LONGEST = 300.0


class Deliverer:
    """Delivers uploads for any number of callers at once, within one in-flight limit."""

    def __init__(
        self,
        database: Database,
        attempter: Attempter,
        addresses: AddressCheck,
        rate_limiters: Mapping[str, RateLimiter],
        destinations: Mapping[str, Destination],
        heartbeats: Heartbeats,
        settings: Settings,
    ) -> None:
        self._database = database
        self._settle_seconds = settings.settle_seconds
        self._attempter = attempter
        self._addresses = addresses
        self._rate_limiters = rate_limiters
        self._in_flight = InFlightLimit(
            slots=settings.max_in_flight,
            body_bytes=settings.max_in_flight_bytes or body_bytes_for(memory_limit()),
            destinations=len(rate_limiters),
            work_seconds=settings.attempt_seconds,
        )
        self._record = Coalescer(self._record_all, concerns_all=is_away)
        self._claiming = {name: asyncio.Lock() for name in rate_limiters}
        self._suspects: set[UUID] = set()  # they wait until nothing else is in flight
        self._stopping = asyncio.Event()
        self._claimers = {
            name: Claimer(
                database,
                destinations[name],
                rate_limiter,
                self._in_flight,
                heartbeats,
                settings,
                self._stopping,
            )
            for name, rate_limiter in rate_limiters.items()
        }

    def stop(self) -> None:
        """Claim nothing more, and hand back the uploads that are claimed and not sent yet."""
        self._stopping.set()
        self._attempter.stop()

    async def deliver(self, queue: str, *, expected: int = 0) -> bool:
        """Attempt what is due in that queue, by its fair queue, until nothing is.

        So many are `expected` to be due, as a message says.

        Each destination is claimed for by itself: one that is away keeps none of another waiting.
        Nothing is claimed for one whose address has changed.

        Returns when every attempt has ended and is recorded: whether more may be due, because of a
        stop or because it took long. Only as many uploads are claimed as may be sent now: so one
        slow send delays no other, and a frozen process has few claims. It ends as well when it gets
        no permit soon: the sweep dispatches again.
        """
        until = time.monotonic() + _LONGEST
        usable = await self._addresses.usable()
        if len(usable) > 1:
            expected = 0  # nobody knows where
        async with asyncio.TaskGroup() as sends:
            # Attempts in flight end before an error is raised: cut off, they would leave an unknown
            # outcome.
            ends = await asyncio.gather(
                *(self._deliver_all(queue, name, sends, until, expected) for name in usable),
                return_exceptions=True,
            )
        for failure in ends:
            if failure is not None:
                raise failure
        return self._is_over(until)

    def _is_over(self, until: float) -> bool:
        return self._stopping.is_set() or time.monotonic() >= until

    async def _deliver_all(
        self,
        queue: str,
        destination: str,
        sends: asyncio.TaskGroup,
        until: float,
        expected: int,
    ) -> None:
        """Claim and send until nothing is due there, there is no permit, or it is time to end."""
        claimer, rate_limiter = self._claimers[destination], self._rate_limiters[destination]
        # To count first would delay what comes alone. While others are in flight, one claim of all
        # that is ready costs less than one for each message.
        ready = 0 if self._in_flight.in_flight else claimer.noted(expected)
        more = True
        while not self._is_over(until):
            for probe in await claimer.claim_probes(queue):
                sends.create_task(self._deliver_in_flight(probe))
            if (not ready and more) or rate_limiter.is_scarce:
                ready = await claimer.count_ready(queue)
                more = ready == MAX_CLAIM
            if not ready:
                return  # what comes now has messages of its own
            # One at a time: together they would ask for more permits than there are uploads.
            async with self._claiming[destination]:
                claimed = await claimer.claim(queue, ready, elsewhere=self._suspects)
            if claimed is None:
                return
            waited = waiting_duration.labels(queue)
            for group in claimed.groups:
                meeting = self._attempter.meeting(group)
                for claim in group:
                    waited.observe(claim.due_seconds)
                    sends.create_task(self._deliver_in_flight(claim, meeting))
            for upload_id in claimed.suspects:
                if not await self._deliver_alone(upload_id, claimer):
                    return
            ready = max(0, ready - claimed.found)

    async def _deliver_alone(self, upload_id: UUID, claimer: Claimer) -> bool:
        """Attempt this one while nothing else is in flight; False if there is no permit."""
        self._suspects.add(upload_id)
        try:
            async with self._in_flight.alone():
                claims = await claimer.claim_alone(upload_id)
                if claims is None:
                    return False
                for claim in claims:
                    await self._deliver_one(claim)
        finally:
            self._suspects.discard(upload_id)
        return True

    async def _deliver_in_flight(self, claim: Claim, meeting: Meeting | None = None) -> None:
        try:
            await self._deliver_one(claim, meeting)
        finally:
            await self._in_flight.release(1, claim.body_bytes, destination=claim.destination)

    async def _deliver_one(self, claim: Claim, meeting: Meeting | None = None) -> None:
        upload = str(claim.upload_id)
        # Not `bound_contextvars`, which reads the whole context before and after.
        before = bind_contextvars(upload=upload)
        try:
            with traces.part(
                "attempt", parent=claim.trace_parent, upload=upload, attempt=claim.attempts
            ) as span:
                outcome = await self._attempter.attempt(claim, meeting)
                span.note(state=outcome.change.target.value, outcome=outcome.code)
            await self._record(outcome)
        except Exception as error:  # noqa: BLE001  one upload must not take the others with it
            # The lease runs out, and the next attempt looks it up: nothing is lost or duplicated.
            # Only the type: an error's text may quote the record.
            attempts_unrecorded.labels("failed").inc()
            _log.error("attempt_not_recorded", upload=upload, error=type(error).__name__)
        finally:
            reset_contextvars(**before)

    async def _record_all(self, outcomes: list[Outcome]) -> list[bool]:
        """Record these outcomes. Returns for each whether its lease still held.

        While the database is away it tries again until the last lease ends: a response that is not
        recorded would be unknown. Meanwhile the attempts keep their slots, so that no more are
        claimed. Raises SQLAlchemyError if it could not record them.
        """
        until = max(outcome.claim.lease_ends for outcome in outcomes)
        pause, refused = _PAUSE_FIRST, 0
        while True:
            try:
                async with self._database.transaction() as connection:
                    true = await receipts.without_taken(connection, outcomes)
                    recorded = await leases.record(
                        connection, true, settle_seconds=self._settle_seconds
                    )
                break
            except SQLAlchemyError as error:
                refused += not is_away(error)
                if refused == _RECORD_TRIES or time.monotonic() + pause >= until:
                    raise
                _log.warning("recording_again", uploads=len(outcomes), error=type(error).__name__)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MAX_PAUSE)
        for outcome in true:
            _count(outcome, recorded=outcome.claim.upload_id in recorded)
            _log.info(
                "attempt_ended",
                upload=str(outcome.claim.upload_id),
                state=outcome.change.target.value,
                outcome=outcome.code,
                attempt=outcome.claim.attempts,
                recorded=outcome.claim.upload_id in recorded,
            )
        return [outcome.claim.upload_id in recorded for outcome in outcomes]


def _count(outcome: Outcome, *, recorded: bool) -> None:
    if not recorded:
        attempts_unrecorded.labels("lease_lost").inc()
        return
    state, reason = outcome.change.target, outcome.change.reason
    if state is State.PARKED:
        uploads_parked.inc()
    if outcome.change.last_response in WRONG_RESOURCES:
        wrong_resources.labels(outcome.change.last_response).inc()
    count_attempt(
        outcome.claim.upload_id,
        state=state,
        reason=reason,
        status_code=outcome.status_code,
        asked=reason in (Reason.RETRY, Reason.SETTLING),
        seconds=outcome.duration,
    )
