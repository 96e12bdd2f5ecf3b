"""Claims uploads, as many as may be sent now, has each attempted, and records the outcomes."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError
from structlog.contextvars import bound_contextvars

from uplift.coalesce import Coalescer
from uplift.delivery.attempt import Attempter
from uplift.delivery.in_flight import InFlightLimit
from uplift.delivery.rate_limiter import RateLimiter
from uplift.destinations.responses import WRONG_RESOURCES
from uplift.ledger import leases, receipts
from uplift.ledger.database import Database, is_away
from uplift.ledger.leases import Claim, Due, LeaseTerms, Outcome
from uplift.lifecycle import ALONE_AFTER_CRASHES, Reason, State
from uplift.memory import body_bytes_for, memory_limit
from uplift.metrics import (
    attempts_unrecorded,
    count_attempt,
    uploads_parked,
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
_SHORTEST_WAIT = 0.005


class Deliverer:
    """Delivers uploads for any number of callers at once, within one in-flight limit."""

    def __init__(
        self,
        database: Database,
        attempter: Attempter,
        rate_limiter: RateLimiter,
        settings: Settings,
    ) -> None:
        self._database = database
        self._attempter = attempter
        self._rate_limiter = rate_limiter
        self._terms = LeaseTerms(
            attempt_seconds=settings.attempt_seconds,
            lease_seconds=settings.lease_seconds,
            give_up_seconds=settings.give_up_seconds,
            allow_shared_ids=settings.allow_shared_ids,
        )
        self._in_flight = InFlightLimit(
            slots=settings.max_in_flight,
            body_bytes=settings.max_in_flight_bytes or body_bytes_for(memory_limit()),
        )
        self._record = Coalescer(self._record_all, concerns_all=is_away)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Claim nothing more, and hand back the uploads that are claimed and not sent yet."""
        self._stopping.set()
        self._attempter.stop()

    async def deliver(self, ids: Sequence[UUID]) -> list[UUID]:
        """Attempt each of these uploads that is due. Returns those left over because of a stop.

        Returns when every attempt has ended and is recorded. Only as many uploads are claimed as
        may be sent now: so one slow send delays no other, and a frozen process has few claims. An
        upload that gets no permit soon stays queued in the ledger: the sweep dispatches it.
        """
        waiting = deque(dict.fromkeys(ids))
        suspects: deque[UUID] = deque()
        failure: Exception | None = None
        async with asyncio.TaskGroup() as sends:
            try:
                await self._deliver_all(waiting, suspects, sends)
            except Exception as error:  # noqa: BLE001  raised below
                # Attempts in flight end first: cut off, they would leave an unknown outcome.
                failure = error
        if failure is not None:
            raise failure
        return [*waiting, *suspects] if self._stopping.is_set() else []

    async def _deliver_all(
        self, waiting: deque[UUID], suspects: deque[UUID], sends: asyncio.TaskGroup
    ) -> None:
        """Claim from both until they are empty, the worker stops, or there is no permit."""
        while waiting and not self._stopping.is_set():
            if self._rate_limiter.is_scarce and not await self._pass_over_what_is_not_due(waiting):
                break
            claims = await self._claim(waiting, suspects)
            if claims is None:
                return
            for claim in claims:
                sends.create_task(self._deliver_in_flight(claim))
        while suspects and not self._stopping.is_set():
            async with self._in_flight.alone():
                if not await self._permits(1):
                    return
                for claim in await self._claim_alone(suspects.popleft()):
                    await self._deliver_one(claim)

    async def _pass_over_what_is_not_due(self, waiting: deque[UUID]) -> bool:
        """Whether any is left. Uploads that are not due would use up permits, and there are few."""
        while waiting:
            asked = [waiting.popleft() for _ in range(min(len(waiting), _MAX_CLAIM))]
            async with self._database.transaction() as connection:
                due = await leases.due_among(connection, asked)
            waiting.extendleft(reversed([id_ for id_ in asked if id_ in due]))
            if due:
                return True
        return False

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

    async def _claim(self, waiting: deque[UUID], suspects: deque[UUID]) -> list[Claim] | None:
        """Claim some of those that wait, once there are free slots; None if there is no permit."""
        slots = await self._in_flight.acquire(min(len(waiting), _MAX_CLAIM))
        permits = 0
        fitting: dict[UUID, Due] = {}
        claims: list[Claim] = []
        try:
            permits = await self._permits(slots)
            if not permits:
                return None
            since = time.monotonic()
            asked = [waiting.popleft() for _ in range(permits)]
            async with self._database.transaction() as connection:
                due = await leases.due_among(
                    connection, asked, stalled_seconds=self._rate_limiter.stalled_seconds
                )
                suspects += (
                    id_ for id_, upload in due.items() if upload.crashes >= ALONE_AFTER_CRASHES
                )
                due = {id_: due[id_] for id_ in due if id_ not in suspects}
                count = self._in_flight.fit([upload.body_bytes for upload in due.values()])
                fitting = dict(islice(due.items(), count))
                # Back to the front: the uploads that do not fit are next.
                waiting.extendleft(reversed(list(due)[count:]))
                leased = await leases.lease(connection, fitting, since=since, **self._terms)
            claims = leased
        finally:
            used = sum(claim.body_bytes for claim in claims)
            unused = sum(upload.body_bytes for upload in fitting.values()) - used
            await self._in_flight.release(slots - len(claims), unused)
            self._rate_limiter.release(permits - len(claims))
        return claims

    async def _claim_alone(self, upload_id: UUID) -> list[Claim]:
        """Claim this one, for which there is a permit, if it is due."""
        since = time.monotonic()
        claims: list[Claim] = []
        try:
            async with self._database.transaction() as connection:
                claims = await leases.claim(
                    connection,
                    [upload_id],
                    since=since,
                    stalled_seconds=self._rate_limiter.stalled_seconds,
                    **self._terms,
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
