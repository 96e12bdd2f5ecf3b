"""Takes uploads from the ledger to 1upHealth: claim, open, validate, token, look, send, record."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from relay.attempt import Attempter
from relay.ledger import work
from relay.ledger.database import Database, is_away
from relay.ledger.group_commit import GroupCommit
from relay.ledger.work import Claim, Ended
from relay.lifecycle import State
from relay.metrics import uploads_parked
from relay.settings import Settings
from relay.window import Window

_log = structlog.get_logger(__name__)

_CLAIM_MOST = 100
_RECORD_TRIES = 3  # while the database answers; while it is away, until the lease ends
_PAUSE_FIRST = 0.25  # seconds
_PAUSE_MOST = 2.0


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How an attempt ended, and when its lease does, on time.monotonic."""

    ended: Ended
    lease_ends: float


class Deliverer:
    """Delivers uploads, for as many callers at once as there are, within one window."""

    def __init__(self, database: Database, attempter: Attempter, settings: Settings) -> None:
        self._database = database
        self._attempter = attempter
        self._attempt_seconds = settings.attempt_seconds
        self._lease_seconds = settings.lease_seconds
        self._give_up_seconds = settings.give_up_seconds
        self._window = Window(slots=settings.send_slots, body_bytes=settings.send_bytes)
        self._record = GroupCommit(self._record_all, concerns_all=is_away)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Claim nothing more, and hand back what is claimed but not sent yet."""
        self._stopping.set()
        self._attempter.stop()

    async def deliver(self, ids: Sequence[UUID]) -> list[UUID]:
        """Attempt each of these uploads that is due; those left over because of a stop.

        Returns when every attempt has ended and is recorded. Only as many are claimed as may be
        sent now, so one slow send holds up no other, and a frozen process holds little.
        """
        waiting = deque(dict.fromkeys(ids))
        failure: Exception | None = None
        async with asyncio.TaskGroup() as sends:
            while waiting and not self._stopping.is_set():
                await self._window.wait_for_room()
                if self._stopping.is_set():
                    break
                # The deadline counts from before the claim, so it ends before the lease does.
                deadline = time.monotonic() + self._attempt_seconds
                try:
                    claims = await self._claim_next(waiting)
                except Exception as error:  # noqa: BLE001  raised below
                    # What is in flight ends first: cutting it off would leave it unknown.
                    failure = error
                    break
                for claim in claims:
                    sends.create_task(self._deliver_one(claim, deadline))
        if failure is not None:
            raise failure
        return list(waiting)

    async def _claim_next(self, waiting: deque[UUID]) -> list[Claim]:
        """Claim what there is room for; takes it, and what is not due, out of `waiting`."""
        asked = [waiting.popleft() for _ in range(min(len(waiting), _CLAIM_MOST))]
        async with self._database.transaction() as connection:
            sizes = await work.sizes_of_due(connection, asked)
        room = self._window.take(list(sizes.values()))
        chosen = list(sizes)[:room]
        # Back to the front: what is due but found no room is next.
        waiting.extendleft(reversed(list(sizes)[room:]))
        claims: list[Claim] = []
        try:
            if chosen:
                async with self._database.transaction() as connection:
                    claims = await work.claim(
                        connection,
                        chosen,
                        lease_seconds=self._lease_seconds,
                        give_up_seconds=self._give_up_seconds,
                    )
        finally:
            claimed = {claim.upload_id for claim in claims}
            for id_ in chosen:
                if id_ not in claimed:
                    await self._window.give_back(sizes[id_])
        return claims

    async def _deliver_one(self, claim: Claim, deadline: float) -> None:
        try:
            ended = await self._attempter.attempt(claim, deadline)
            lease_ends = deadline - self._attempt_seconds + self._lease_seconds
            await self._record(_Outcome(ended, lease_ends))
        except Exception as error:  # noqa: BLE001  one upload must not take the others with it
            # The lease runs out, and the sweep has it looked up: nothing is lost or doubled.
            # Only the type: an error's text may quote what it was given.
            _log.error(
                "attempt_not_recorded", upload=str(claim.upload_id), error=type(error).__name__
            )
        finally:
            await self._window.give_back(claim.body_bytes)

    async def _record_all(self, outcomes: list[_Outcome]) -> list[bool]:
        """Record how these attempts ended; which of them still held their lease.

        While the database is away it tries again until the last lease ends: an answer that is not
        recorded would be unknown. What waits keeps its slots, so nothing more is claimed meanwhile.
        Raises SQLAlchemyError if it could not.
        """
        group = [outcome.ended for outcome in outcomes]
        until = max(outcome.lease_ends for outcome in outcomes)
        pause, refused = _PAUSE_FIRST, 0
        while True:
            try:
                async with self._database.transaction() as connection:
                    recorded = await work.record(connection, group)
                break
            except SQLAlchemyError as error:
                refused += not is_away(error)
                if refused == _RECORD_TRIES or time.monotonic() + pause >= until:
                    raise
                _log.warning("recording_again", uploads=len(group), error=type(error).__name__)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _PAUSE_MOST)
        for ended in group:
            if ended.change.target is State.PARKED and ended.claim.upload_id in recorded:
                uploads_parked.inc()
            _log.info(
                "attempt_ended",
                upload=str(ended.claim.upload_id),
                state=ended.change.target.value,
                outcome=ended.outcome,
                attempt=ended.claim.attempts,
                recorded=ended.claim.upload_id in recorded,
            )
        return [ended.claim.upload_id in recorded for ended in group]
