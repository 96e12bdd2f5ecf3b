"""Records that collided under two labels, which turned out to be names of one source.

They become one record.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger import locks, places, source_aliases
from uplift.ledger.merging import merge
from uplift.sealing import UserKey

_USERS = text("""
    SELECT DISTINCT a.user_id FROM source_aliases AS a
    JOIN users ON users.id = a.user_id AND users.erased_at IS NULL
    WHERE a.retry_collisions LIMIT :limit
""")

# Of each place, one pair at a time.
_PAIRS = text("""
    SELECT DISTINCT ON (r.upstream_key) r.upstream_key, o.id AS one, r.id AS other
    FROM records AS r
    JOIN records AS o ON o.user_id = r.user_id AND o.upstream_key = r.upstream_key
        AND o.upstream_rank < r.upstream_rank
    JOIN source_aliases AS a ON a.user_id = r.user_id AND a.source_key = r.source_key
    JOIN source_aliases AS b ON b.user_id = o.user_id AND b.source_key = o.source_key
        AND b.alias_group = a.alias_group
    WHERE r.user_id = :user_id AND r.upstream_rank > 0
        AND coalesce(r.server_key = o.server_key, true)
    ORDER BY r.upstream_key, o.upstream_rank, r.upstream_rank
    LIMIT :limit
""")

_DONE = text("""
    UPDATE source_aliases SET retry_collisions = false
    WHERE user_id = :user_id AND retry_collisions
""")


async def find_users(connection: AsyncConnection, *, limit: int) -> Sequence[UUID]:
    """Some users of whom collided records may be one now."""
    return (await connection.scalars(_USERS, {"limit": limit})).all()


async def retry(
    connection: AsyncConnection, user_id: UUID, key: UserKey, *, limit: int
) -> int | None:
    """Make up to so many pairs of a locked user's records one; how many, None at the end."""
    parameters = {"user_id": user_id, "limit": limit}
    pairs = (await connection.execute(_PAIRS, parameters)).all()
    if not pairs:
        # Whoever notes an alias now is seen before, or notes it again after.
        await source_aliases.lock(connection, user_id)
        if (await connection.execute(_PAIRS, parameters)).all():
            return 0
        await connection.execute(_DONE, {"user_id": user_id})
        return None
    await places.lock(connection, {bytes(pair.upstream_key) for pair in pairs})
    rows = await locks.lock_and_read_records(
        connection, {id_ for pair in pairs for id_ in (pair.one, pair.other)}
    )
    merged = 0
    for pair in pairs:
        one, other = rows.get(pair.one), rows.get(pair.other)
        if one and other and one.upstream_key == other.upstream_key == pair.upstream_key:
            await merge(connection, one, other, key)
            merged += 1
    return merged
