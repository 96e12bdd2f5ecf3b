"""Measures what all processes share: the backlog, the queues, the quota.

Only `uplift beat` does, so that one process exposes the numbers and not each.
"""

import time
from collections import defaultdict

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.dispatch import Dispatcher
from uplift.key_life import destroy_at, due_at
from uplift.ledger import backlog, master_keys
from uplift.ledger.database import Database
from uplift.maintenance.sweep import Sweeper
from uplift.metrics import ledger_gauges
from uplift.queues import BULK, UPLOADS
from uplift.sealing import KeyRing
from uplift.settings import Settings
from uplift.tokens.quota import Quota

_log = structlog.get_logger(__name__)

_Samples = dict[str, dict[tuple[str, ...], float]]

_MIN_PAUSE_SECONDS = 15.0
_MAX_PAUSE_SECONDS = 60.0
# A long backlog takes long to count. With this, counting stays a small part of the ledger's time.
_PAUSE_FACTOR = 20


class Measurer:
    """Measures, and shows the numbers in this process's metrics."""

    def __init__(
        self,
        database: Database,
        dispatcher: Dispatcher,
        quota: Quota,
        sweeper: Sweeper,
        key_ring: KeyRing,
        settings: Settings,
    ) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._quota = quota
        self._sweeper = sweeper
        self._key_ring = key_ring
        self._rotation_days = settings.master_key_rotation_days
        self._kept_days = settings.backups_kept_days

    async def measure(self) -> float:
        """Measure once. Returns the seconds until the next time.

        What cannot be measured is absent from the metrics.
        """
        started = time.monotonic()
        ledger = await self._of_ledger()
        took = time.monotonic() - started
        swept = self._sweeper.ended_at
        ledger_gauges.show(
            {
                **ledger,
                **await self._of_redis(),
                "uplift_sweep_ended_timestamp_seconds": {} if swept is None else {(): swept},
            }
        )
        return min(_MAX_PAUSE_SECONDS, max(_MIN_PAUSE_SECONDS, took * _PAUSE_FACTOR))

    async def _of_ledger(self) -> _Samples:
        try:
            async with self._database.transaction() as connection:
                found = await backlog.backlog(connection)
            async with self._database.transaction() as connection:
                keys = await self._of_keys(connection)
        except SQLAlchemyError as error:
            _log.warning("ledger_not_measured", error=type(error).__name__)
            return {}
        return {**_of_backlog(found), **keys}

    async def _of_keys(self, connection: AsyncConnection) -> _Samples:
        """Notes what is needed now, so that a key's end is known."""
        key_ring = self._key_ring
        await master_keys.note_keys(connection, key_ring.ids, key_ring.current)
        now, _ = await master_keys.in_use_since(connection, key_ring.current)
        lives = await master_keys.key_lives(connection)
        due = due_at(lives[key_ring.current], self._rotation_days)
        ends = (
            destroy_at(life, self._kept_days)
            for life in lives.values()
            if life.id != key_ring.current
            and life.retired_at is None
            and life.in_use_since is not None
        )
        return {
            "uplift_master_key_due_timestamp_seconds": (
                {} if due is None else {(): due.timestamp()}
            ),
            "uplift_master_keys_to_destroy": {
                (): float(sum(end is not None and end <= now for end in ends))
            },
        }

    async def _of_redis(self) -> _Samples:
        messages = {queue: await self._dispatcher.waiting(queue) for queue in (UPLOADS, BULK)}
        up = None not in messages.values() and await self._dispatcher.can_enqueue()
        left = await self._quota.left() if up else None
        return {
            "uplift_redis_up": {(): float(up)},
            "uplift_queue_messages": {
                (queue,): count for queue, count in messages.items() if count is not None
            },
            "uplift_quota_calls_left": (
                {} if left is None else {("all",): left[0], ("known",): left[1]}
            ),
        }


def _of_backlog(found: backlog.Backlog) -> _Samples:
    due: dict[tuple[str, ...], float] = {(UPLOADS,): 0, (BULK,): 0}
    oldest: dict[tuple[str, ...], float] = defaultdict(float, {(UPLOADS,): 0, (BULK,): 0})
    for each in found.waiting:
        due[each.queue,] = due.get((each.queue,), 0) + each.due
        oldest[each.queue,] = max(oldest[each.queue,], each.due_seconds)
    return {
        "uplift_uploads_unfinished": {
            (each.queue, each.state, each.reason or "none"): each.uploads for each in found.waiting
        },
        "uplift_uploads_due": due,
        "uplift_due_oldest_seconds": oldest,
        "uplift_users_parked": {(): found.users_parked},
        "uplift_ledger_measured_timestamp_seconds": {(): time.time()},
        "uplift_pauses": {("all",): float(found.all_paused), ("user",): found.users_paused},
    }
