"""Moves every living user's data key under the master key in use, while everything runs.

Only the wrapping changes: nothing sealed under a data key is touched or even read. Each batch is
one transaction of a few milliseconds, so a rotation that was stopped goes on where it was.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from uuid import UUID

import structlog

from uplift.errors import SealError
from uplift.ledger import audit, user_keys
from uplift.ledger.audit import SYSTEM, Action, Actor
from uplift.ledger.database import Database
from uplift.ledger.user_keys import KeyRow, NewKey
from uplift.ledger.users import key_context
from uplift.sealing import KeyRing

_log = structlog.get_logger(__name__)

_BATCH = 100
# A user who was locked by another transaction is met again in the next pass. Passes are counted,
# because processes with an older ring may add users under an older key for as long as they run.
_PASSES = 5
_PAUSE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Rotated:
    """What a rotation did. `left` are living users by the other master key ids they still have.

    `unopened` are those of them whose data key does not open with its master key: their rows were
    left as they are.
    """

    rewrapped: int
    left: Mapping[str, int]
    unopened: frozenset[UUID]

    @property
    def complete(self) -> bool:
        """Whether the former master keys can go."""
        return not self.left


class Rotator:
    """Re-wraps data keys under the ring's first key. Any number may run at once."""

    def __init__(self, database: Database, key_ring: KeyRing) -> None:
        self._database = database
        self._key_ring = key_ring

    async def rotate(
        self,
        progress: Callable[[int, int], None] = lambda _done, _all: None,
        *,
        by: Actor = SYSTEM,
    ) -> Rotated:
        """One rotation. `progress` is called after each batch with users done and users in all."""
        rewrapped = 0
        unopened: set[UUID] = set()
        left = await self._left()
        total = sum(left.values())
        progress(0, total)
        if total:
            async with self._database.transaction() as connection:
                await audit.note(connection, by, Action.KEYS_ROTATED)
        for passed in range(_PASSES):
            if sum(left.values()) == len(unopened):
                break
            if passed:
                await asyncio.sleep(_PAUSE_SECONDS)
            unopened.clear()
            after: UUID | None = None
            while rows := await self._next(after):
                after = rows[-1].user_id
                rewrapped += await self._rewrap(rows, unopened)
                progress(rewrapped, max(total, rewrapped))
            left = await self._left()
        return Rotated(rewrapped, left, frozenset(unopened))

    async def _left(self) -> dict[str, int]:
        async with self._database.transaction() as connection:
            users = await user_keys.count_by_master_key(connection)
        users.pop(self._key_ring.current, None)
        return users

    async def _next(self, after: UUID | None) -> list[KeyRow]:
        async with self._database.transaction() as connection:
            return await user_keys.keys_not_under(
                connection, self._key_ring.current, after=after, limit=_BATCH
            )

    async def _rewrap(self, rows: list[KeyRow], unopened: set[UUID]) -> int:
        keys: list[NewKey] = []
        for row in rows:
            context = key_context(row.user_id)
            try:
                key = self._key_ring.unwrap(row.wrapped, context)
            except SealError as error:
                unopened.add(row.user_id)
                _log.error("data_key_does_not_open", why=str(error))
                continue
            keys.append(NewKey(row, self._key_ring.wrap(key, context)))
        async with self._database.transaction() as connection:
            return len(await user_keys.replace_keys(connection, keys))
