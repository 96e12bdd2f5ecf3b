"""Records that would overwrite each other at a destination: of one user, with one type and id."""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.direct_statements import DirectStatement
from uplift.ledger.locks import lock_keys
from uplift.ledger.parameters import array


@dataclass(frozen=True, slots=True)
class Claimed:
    """A record that is claimed for a destination, and its place there."""

    record_id: UUID
    destination: str
    upstream_key: bytes


# A statement of its own, after the locks, sees what those before it have committed. OFFSET and
# LIMIT keep PostgreSQL from joins that would read through all history: it looks each record up by
# index.
_COLLIDING = DirectStatement("""
    SELECT DISTINCT c.record_id, c.destination
    FROM unnest(CAST(:record_ids AS uuid[]), CAST(:destinations AS text[]))
        AS c(record_id, destination)
    CROSS JOIN LATERAL (
        SELECT id, user_id, upstream_key FROM records WHERE id = c.record_id OFFSET 0
    ) AS r
    CROSS JOIN LATERAL (
        SELECT id FROM records
        WHERE user_id = r.user_id AND upstream_key = r.upstream_key AND id <> r.id OFFSET 0
    ) AS o
    CROSS JOIN LATERAL (
        SELECT coalesce((SELECT version FROM deliveries
                         WHERE record_id = r.id AND destination = c.destination), 0) AS mine,
               coalesce((SELECT true FROM uploads
                         WHERE record_id = r.id AND destination = c.destination AND maybe_sent
                         LIMIT 1), false) AS mine_maybe_sent,
               coalesce((SELECT version FROM deliveries
                         WHERE record_id = o.id AND destination = c.destination), 0) AS other,
               coalesce((SELECT true FROM uploads
                         WHERE record_id = o.id AND destination = c.destination AND maybe_sent
                         LIMIT 1), false) AS maybe_sent,
               coalesce((SELECT true FROM uploads
                         WHERE record_id = o.id AND destination = c.destination
                            AND state IN ('parked', 'queued', 'sending')
                         LIMIT 1), false) AS unfinished
        OFFSET 0
    ) AS now
    WHERE now.other > 0 OR (now.mine = 0 AND CASE
        WHEN now.mine_maybe_sent THEN now.maybe_sent AND o.id < r.id
        ELSE now.maybe_sent OR (now.unfinished AND o.id < r.id) END)
""")


async def colliding(
    connection: AsyncConnection, claimed: Collection[Claimed]
) -> set[tuple[UUID, str]]:
    """Which of these records must not be sent because of another: each with the destination.

    The other one was delivered there, or may be there. Or it came first, has not ended, and this
    one was never sent. Where both are so, as after `uplift restore`, which marks all that waits,
    the one that was delivered is sent, else the one that came first: never none. Until the
    transaction ends, nobody else claims a record with one of these keys. So if two are claimed at
    once, exactly one is sent: a claim counts as maybe sent.
    """
    if not claimed:
        return set()
    await lock_keys(connection, (each.upstream_key for each in claimed))
    rows = await _COLLIDING.rows(
        connection,
        {
            "record_ids": array("uuid", [each.record_id for each in claimed]),
            "destinations": array("text", [each.destination for each in claimed]),
        },
    )
    return {(row.record_id, row.destination) for row in rows}
