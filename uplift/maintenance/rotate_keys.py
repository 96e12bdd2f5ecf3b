"""Wraps every user's data key under the first master key, while everything runs.

Only the wrapping changes: nothing that is sealed under a data key is read. Each batch is one
transaction of a few milliseconds, so a rotation that was stopped goes on where it was.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.errors import SealError
from uplift.ledger import audit, deployment_keys, master_keys, user_keys
from uplift.ledger.audit import SYSTEM, Action, Actor
from uplift.ledger.database import Database
from uplift.ledger.user_keys import KeyRow, NewKey
from uplift.ledger.users import key_context
from uplift.sealing import KeyRing

_log = structlog.get_logger(__name__)

_BATCH = 100
# The next pass meets users who were locked by another transaction. The number of passes is limited,
# because processes with an older key ring may add users under an older key for as long as they run.
_PASSES = 5
_PAUSE_SECONDS = 0.5  # between two passes


@dataclass(frozen=True, slots=True)
class Rotated:
    """What a rotation did. `left` counts the users under other master keys, by the key's id.

    `unopened` are the users among them whose data key does not open with that master key: their
    rows stay as they are.
    """

    rewrapped: int
    left: Mapping[str, int]
    unopened: frozenset[UUID]

    @property
    def complete(self) -> bool:
        """Whether the other master keys can be retired."""
        return not self.left


class Rotator:
    """Wraps data keys under the first key of the key ring. Several may run at once."""

    def __init__(
        self, database: Database, key_ring: KeyRing, *, pause_seconds: float = _PAUSE_SECONDS
    ) -> None:
        self._database = database
        self._key_ring = key_ring
        self._pause_seconds = pause_seconds

    async def rotate(
        self,
        progress: Callable[[int, int], None] = lambda _done, _all: None,
        *,
        by: Actor = SYSTEM,
    ) -> Rotated:
        """One rotation, which moves the deployment's own keys first.

        After each batch, `progress` gets the users done and the users in all.
        Its start is an event of the audit trail, caused by `by`. Raises SealError if a key of the
        deployment does not open.
        """
        async with self._database.transaction() as connection:
            await self._note_keys(connection)
            await deployment_keys.rewrap_keys(connection, self._key_ring)
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
                await asyncio.sleep(self._pause_seconds)
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
                _log.error("data_key_not_opened", user=str(row.user_id), why=str(error))
                continue
            keys.append(NewKey(row, self._key_ring.wrap(key, context)))
        async with self._database.transaction() as connection:
            # What they are under was needed until now.
            await self._note_keys(connection)
            return len(await user_keys.replace_keys(connection, keys))

    async def _note_keys(self, connection: AsyncConnection) -> None:
        await master_keys.note_keys(connection, self._key_ring.ids, self._key_ring.current)
