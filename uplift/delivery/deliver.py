"""Claims uploads, as many as may be sent now, has each attempted, and records the outcomes."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError
from structlog.contextvars import bound_contextvars

from uplift.coalesce import Coalescer
from uplift.delivery.attempt import Attempter
from uplift.delivery.heartbeats import Heartbeats
from uplift.delivery.in_flight import InFlightLimit
from uplift.delivery.rate_limiter import RateLimiter
from uplift.destinations.responses import WRONG_RESOURCES
from uplift.ledger import due, fair_queue, leases, receipts
from uplift.ledger.database import Database, is_away
from uplift.ledger.due import Due
from uplift.ledger.leases import Claim, LeaseTerms, Outcome
from uplift.lifecycle import ALONE_AFTER_CRASHES, Reason, State
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

_MAX_CLAIM = 100
_RECORD_TRIES = 3  # while the database answers; while it is away, until the lease ends
_PAUSE_FIRST = 0.25  # seconds
_MAX_PAUSE = 2.0
# How long a message waits for a permit, in seconds: meanwhile it occupies a worker's thread.
_PATIENCE = 1.0
# After so long, a message ends and another one goes on: Redis gives it to another worker later.
_LONGEST = 300.0
_SHORTEST_WAIT = 0.005


@dataclass(frozen=True, slots=True)
class _Claimed:
    """What is claimed, what must be attempted alone, and of how many it was found out."""

    claims: list[Claim]
    suspects: list[UUID]
    found: int


class Deliverer:
    """Delivers uploads for any number of callers at once, within one in-flight limit."""

    def __init__(
        self,
        database: Database,
        attempter: Attempter,
        rate_limiter: RateLimiter,
        heartbeats: Heartbeats,
        settings: Settings,
    ) -> None:
        self._database = database
        self._attempter = attempter
        self._heartbeats = heartbeats
        self._rate_limiter = rate_limiter
        self._settings = settings
        self._in_flight = InFlightLimit(
            slots=settings.max_in_flight,
            body_bytes=settings.max_in_flight_bytes or body_bytes_for(memory_limit()),
        )
        self._record = Coalescer(self._record_all, concerns_all=is_away)
        self._claiming = asyncio.Lock()
        self._suspects: set[UUID] = set()  # they wait until nothing else is in flight
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Claim nothing more, and hand back the uploads that are claimed and not sent yet."""
        self._stopping.set()
        self._attempter.stop()

    async def deliver(self, queue: str) -> bool:
        """Attempt what is due in that queue, by its fair queue, until nothing is.

        Returns when every attempt has ended and is recorded: whether more may be due, because of a
        stop or because it took long. Only as many uploads are claimed as may be sent now: so one
        slow send delays no other, and a frozen process has few claims. It ends as well when it gets
        no permit soon: the sweep dispatches again.
        """
        until = time.monotonic() + _LONGEST
        failure: Exception | None = None
        async with asyncio.TaskGroup() as sends:
            try:
                await self._deliver_all(queue, sends, until)
            except Exception as error:  # noqa: BLE001  raised below
                # Attempts in flight end first: cut off, they would leave an unknown outcome.
                failure = error
        if failure is not None:
            raise failure
        return self._is_over(until)

    def _is_over(self, until: float) -> bool:
        return self._stopping.is_set() or time.monotonic() >= until

    async def _deliver_all(self, queue: str, sends: asyncio.TaskGroup, until: float) -> None:
        """Claim and send until nothing is due, there is no permit, or it is time to end."""
        ready, more = 0, True
        while not self._is_over(until):
            if (not ready and more) or self._rate_limiter.is_scarce:
                ready = await self._count_ready(queue)
                more = ready == _MAX_CLAIM
            if not ready:
                return  # what comes now has messages of its own
            # One at a time: together they would ask for more permits than there are uploads.
            async with self._claiming:
                claimed = await self._claim(queue, ready)
            if claimed is None:
                return
            for claim in claimed.claims:
                waiting_duration.labels(queue).observe(claim.due_seconds)
                sends.create_task(self._deliver_in_flight(claim))
            for upload_id in claimed.suspects:
                if not await self._deliver_alone(upload_id):
                    return
            ready = max(0, ready - claimed.found)

    async def _count_ready(self, queue: str) -> int:
        """How many may be claimed, up to a limit: only so many slots and permits are acquired."""
        if not self._rate_limiter.is_scarce:
            async with self._database.reading() as connection:
                return await fair_queue.count_ready(connection, queue, limit=_MAX_CLAIM)
        # What turns out not to be due would use up permits, and there are few.
        while True:
            async with self._database.transaction() as connection:
                front = await due.front(connection, queue, limit=_MAX_CLAIM)
            if front.due or not front.found:
                return len(front.due)

    async def _deliver_alone(self, upload_id: UUID) -> bool:
        """Attempt this one while nothing else is in flight; False if there is no permit."""
        self._suspects.add(upload_id)
        try:
            async with self._in_flight.alone():
                if self._stopping.is_set() or not await self._permits(1):
                    return False
                for claim in await self._claim_alone(upload_id):
                    await self._deliver_one(claim)
        finally:
            self._suspects.discard(upload_id)
        return True

    def _terms(self) -> LeaseTerms:
        return LeaseTerms(
            attempt_seconds=self._settings.attempt_seconds,
            lease_seconds=self._settings.lease_seconds,
            give_up_seconds=self._settings.give_up_seconds,
            process_id=self._heartbeats.process_id,
            allow_shared_ids=self._settings.allow_shared_ids,
        )

    async def _permits(self, limit: int) -> int:
        """Up to so many permits: waits a moment for at least one, else 0."""
        until = time.monotonic() + _PATIENCE
        while limit and not self._stopping.is_set():
            permits = await self._rate_limiter.acquire(limit)
            if permits:
                return permits
            wait = max(self._rate_limiter.wait, _SHORTEST_WAIT)
            if self._rate_limiter.is_stalled or time.monotonic() + wait > until:
                break
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait)
        return 0

    async def _claim(self, queue: str, limit: int) -> "_Claimed | None":
        """Claim up to so many, once there are free slots; None without a permit or an upload."""
        slots = await self._in_flight.acquire(limit)
        permits = 0
        fitting: dict[UUID, Due] = {}
        claims: list[Claim] = []
        try:
            permits = await self._permits(slots)
            if not permits:
                return None
            await self._heartbeats.ready()
            since = time.monotonic()
            async with self._database.transaction() as connection:
                front = await due.front(
                    connection,
                    queue,
                    limit=permits,
                    stalled_seconds=self._rate_limiter.stalled_seconds,
                )
                suspects = [
                    id_ for id_, each in front.due.items() if each.crashes >= ALONE_AFTER_CRASHES
                ]
                others = {id_: each for id_, each in front.due.items() if id_ not in suspects}
                # What does not fit stays at the front.
                count = self._in_flight.fit([each.body_bytes for each in others.values()])
                fitting = dict(islice(others.items(), count))
                leased = await leases.lease(connection, fitting, since=since, **self._terms())
            claims = leased
        finally:
            used = sum(claim.body_bytes for claim in claims)
            unused = sum(each.body_bytes for each in fitting.values()) - used
            await self._in_flight.release(slots - len(claims), unused)
            self._rate_limiter.release(permits - len(claims))
        # One that another caller waits to send alone is its own.
        alone = [id_ for id_ in suspects if id_ not in self._suspects]
        passed = front.found - len(front.due)
        if not (others or alone or passed):
            return None
        return _Claimed(claims, alone, len(claims) + len(alone) + passed)

    async def _claim_alone(self, upload_id: UUID) -> list[Claim]:
        """Claim this one, for which there is a permit, if it is due."""
        claims: list[Claim] = []
        try:
            await self._heartbeats.ready()
            since = time.monotonic()
            async with self._database.transaction() as connection:
                claims = await leases.claim(
                    connection,
                    [upload_id],
                    since=since,
                    stalled_seconds=self._rate_limiter.stalled_seconds,
                    **self._terms(),
                )
        finally:
            self._rate_limiter.release(1 - len(claims))
        return claims

    async def _deliver_in_flight(self, claim: Claim) -> None:
        try:
            await self._deliver_one(claim)
        finally:
            await self._in_flight.release(1, claim.body_bytes)

    async def _deliver_one(self, claim: Claim) -> None:
        try:
            with bound_contextvars(upload=str(claim.upload_id)):
                outcome = await self._attempter.attempt(claim)
            await self._record(outcome)
        except Exception as error:  # noqa: BLE001  one upload must not take the others with it
            # The lease runs out, and the next attempt looks it up: nothing is lost or duplicated.
            # Only the type: an error's text may quote the record.
            attempts_unrecorded.labels("failed").inc()
            _log.error(
                "attempt_not_recorded", upload=str(claim.upload_id), error=type(error).__name__
            )

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
                    recorded = await leases.record(connection, true)
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
