"""Records that would overwrite each other at 1upHealth: of one user, with one type and id."""

from collections.abc import Mapping
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# In one order, so that no two claims with several keys in common wait for each other. They last
# until the transaction ends.
_LOCK_KEYS = text("SELECT pg_advisory_xact_lock(key) FROM unnest(CAST(:keys AS bigint[])) AS key")

# A statement of its own, after the locks, sees what those before it have committed. OFFSET and
# LIMIT keep PostgreSQL from joins that would read through all history: it looks each record up by
# index.
_COLLIDING = text("""
    SELECT DISTINCT r.id FROM records AS r
    CROSS JOIN LATERAL (
        SELECT id, delivered_version FROM records
        WHERE user_id = r.user_id AND upstream_key = r.upstream_key AND id <> r.id OFFSET 0
    ) AS o
    CROSS JOIN LATERAL (
        SELECT coalesce((SELECT true FROM uploads WHERE record_id = r.id AND maybe_sent LIMIT 1),
                        false) AS mine_maybe_sent,
               coalesce((SELECT true FROM uploads WHERE record_id = o.id AND maybe_sent LIMIT 1),
                        false) AS maybe_sent,
               coalesce((SELECT true FROM uploads WHERE record_id = o.id
                         AND state IN ('parked', 'queued', 'sending') LIMIT 1), false) AS unfinished
        OFFSET 0
    ) AS now
    WHERE r.id = ANY(CAST(:record_ids AS uuid[]))
      AND (o.delivered_version > 0 OR (r.delivered_version = 0 AND CASE
               WHEN now.mine_maybe_sent THEN now.maybe_sent AND o.id < r.id
               ELSE now.maybe_sent OR (now.unfinished AND o.id < r.id) END))
""")


async def colliding(connection: AsyncConnection, upstream_keys: Mapping[UUID, bytes]) -> set[UUID]:
    """Which of these records, given with their keys, must not be sent because of another.

    The other one was delivered, or may be at 1upHealth. Or it came first, has not ended, and this
    one was never sent. Where both are so, as after `uplift restore`, which marks all that waits,
    the one that was delivered is sent, else the one that came first: never none. Until the
    transaction ends, nobody else claims a record with one of these keys. So if two are claimed at
    once, exactly one is sent: a claim counts as maybe sent.
    """
    if not upstream_keys:
        return set()
    # 64 bits of a keyed hash: two that agree by chance only wait for each other.
    locks = {int.from_bytes(key[:8], "big", signed=True) for key in upstream_keys.values()}
    await connection.execute(_LOCK_KEYS, {"keys": sorted(locks)})
    rows = await connection.execute(_COLLIDING, {"record_ids": list(upstream_keys)})
    return set(rows.scalars())
