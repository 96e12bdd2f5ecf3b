"""The records of one source that another record of it refers to, as one destination has them."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True)
class Target:
    """A record that another one refers to.

    `sealed_receipt` is of its last delivery; None if it has none. `unfinished` is whether a version
    of it is on its way, and `waits` whether that waits for a reference of its own.
    """

    key: bytes
    record_id: UUID
    sealed_receipt: bytes | None
    unfinished: bool
    waits: bool


_FIND = text("""
    SELECT r.upstream_key AS key, r.id AS record_id, d.sealed_receipt,
        u.id IS NOT NULL AS unfinished, u.waiting_since IS NOT NULL AS waits
    FROM records AS own
    JOIN records AS r ON r.user_id = own.user_id
        AND r.source_key IS NOT DISTINCT FROM own.source_key
        AND r.upstream_key = ANY(CAST(:keys AS bytea[]))
    LEFT JOIN deliveries AS d ON d.record_id = r.id AND d.destination = :destination
    LEFT JOIN LATERAL (
        SELECT id, waiting_since FROM uploads
        WHERE record_id = r.id AND destination = :destination
            AND state IN ('queued', 'sending', 'parked')
        ORDER BY version LIMIT 1
    ) AS u ON true
    WHERE own.id = :record_id
""")


async def find_targets(
    connection: AsyncConnection, *, record_id: UUID, destination: str, keys: Sequence[bytes]
) -> list[Target]:
    """Those records that are known, of the user and the source of that record.

    `keys` are `identity.upstream_key` of what it refers to.
    """
    rows = await connection.execute(
        _FIND, {"record_id": record_id, "destination": destination, "keys": list(keys)}
    )
    return [
        Target(bytes(row.key), row.record_id, row.sealed_receipt, row.unfinished, row.waits)
        for row in rows
    ]
