"""Labels that are names of one source, for one user: a hospital's old name and its new one."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid4

_GROUPS = text("""
    SELECT user_id, source_key, alias_group FROM source_aliases
    WHERE user_id = ANY(CAST(:user_ids AS uuid[]))
""")

# One user's aliases change in a row, so that two groups that become one miss nobody.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(CAST(:user_id AS text), 0))")

_UNITE = text("""
    UPDATE source_aliases SET alias_group = :into
    WHERE user_id = :user_id AND alias_group = ANY(CAST(:groups AS uuid[]))
""")

# Whatever collided under these names is tried again.
_ADD = text("""
    INSERT INTO source_aliases (user_id, source_key, alias_group, retry_collisions)
    SELECT :user_id, source_key, :into, true FROM unnest(CAST(:keys AS bytea[])) AS source_key
    ON CONFLICT (user_id, source_key) DO UPDATE SET retry_collisions = true
""")


async def lock(connection: AsyncConnection, user_id: UUID) -> None:
    """Lock the user's aliases until the transaction ends."""
    await connection.execute(_LOCK, {"user_id": str(user_id)})


class Aliases:
    """The aliases of some users, as this transaction knows them."""

    def __init__(self, connection: AsyncConnection, user_ids: Collection[UUID]) -> None:
        self._connection = connection
        self._user_ids = list(user_ids)
        self._groups: dict[tuple[UUID, bytes], UUID] = {}

    async def read(self) -> None:
        """Read them."""
        rows = await self._connection.execute(_GROUPS, {"user_ids": self._user_ids})
        self._groups = {(row.user_id, bytes(row.source_key)): row.alias_group for row in rows}

    def same_source(self, user_id: UUID, one: bytes | None, other: bytes | None) -> bool:
        """Whether two different labels are known as names of one source."""
        if one is None or other is None or one == other:
            return False
        group = self._groups.get((user_id, one))
        return group is not None and group == self._groups.get((user_id, other))

    async def add(self, user_id: UUID, one: bytes, other: bytes) -> None:
        """Note that these labels are names of one source; nothing happens if that is known."""
        if self.same_source(user_id, one, other):
            return
        await lock(self._connection, user_id)
        await self.read()
        known = {group for key in (one, other) if (group := self._groups.get((user_id, key)))}
        into = min(known, default=uuid4())
        await self._connection.execute(
            _UNITE, {"user_id": user_id, "into": into, "groups": list(known)}
        )
        await self._connection.execute(
            _ADD, {"user_id": user_id, "into": into, "keys": [one, other]}
        )
        await self.read()
