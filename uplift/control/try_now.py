"""Tries waiting uploads now, for somebody who knows that the cause of the wait is gone."""

from collections.abc import Callable, Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.control.deadlocks import retry_deadlocks
from uplift.ledger import trying_now
from uplift.ledger.audit import SYSTEM, Actor
from uplift.ledger.database import Database
from uplift.ledger.filters import Filter
from uplift.ledger.pages import walk
from uplift.settings import Settings

_GROUP = 500  # uploads in one transaction


class TryNow:
    """Makes waiting uploads due. Workers send them by the rules: the rate limiter, pauses and the
    settle time after an unknown outcome stay. The sweep dispatches them within seconds."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        # After an empty search, the index may be late.
        self._settle_seconds = max(settings.settle_seconds, settings.index_lag_seconds)

    async def one(self, upload_id: UUID, *, by: Actor = SYSTEM) -> bool:
        """Try one upload; whether it is due earlier than before."""
        async with self._database.transaction() as connection:
            return bool(await self._some(connection, [upload_id], by))

    async def all(
        self,
        matching: Filter,
        *,
        by: Actor = SYSTEM,
        progress: Callable[[int], None] = lambda _: None,
    ) -> int:
        """Try what matches, in groups; how many are due earlier. `progress` gets each group."""
        tried = 0

        async def try_some(after: UUID | None) -> Sequence[UUID]:
            nonlocal tried
            ids, count = await self._find_some(matching, after, by)
            tried += count
            return ids

        async for ids in walk(try_some, lambda id_: id_, size=_GROUP):
            progress(len(ids))
        return tried

    async def count(self, matching: Filter) -> int:
        """How many uploads `all` would look at."""
        async with self._database.transaction() as connection:
            return await trying_now.count(connection, matching)

    @retry_deadlocks
    async def _find_some(
        self, matching: Filter, after: UUID | None, by: Actor
    ) -> tuple[Sequence[UUID], int]:
        async with self._database.transaction() as connection:
            ids = await trying_now.find(connection, matching, after=after, limit=_GROUP)
            return ids, len(await self._some(connection, ids, by))

    async def _some(
        self, connection: AsyncConnection, ids: Sequence[UUID], by: Actor
    ) -> list[UUID]:
        return await trying_now.try_now(connection, ids, settle_seconds=self._settle_seconds, by=by)
