"""The records of one source that other records of it refer to, as one destination has them."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.parameters import Rows


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a record refers to. `keys` are `identity.upstream_key` of that."""

    record_id: UUID
    destination: str
    keys: tuple[bytes, ...]


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


_WANTED = Rows("wanted", number="int", record_id="uuid", destination="text", key="bytea")

# OFFSET keeps PostgreSQL from joins that would read through all history: it looks each record up
# by index.
_FIND = _WANTED.direct("""
    SELECT w.number, r.upstream_key AS key, r.id AS record_id, d.sealed_receipt,
        u.id IS NOT NULL AS unfinished, u.waiting_since IS NOT NULL AS waits
    FROM {wanted} AS w
    CROSS JOIN LATERAL (
        SELECT user_id, source_key FROM records WHERE id = w.record_id OFFSET 0
    ) AS own
    CROSS JOIN LATERAL (
        SELECT id, upstream_key FROM records
        WHERE user_id = own.user_id AND upstream_key = w.key
            AND source_key IS NOT DISTINCT FROM own.source_key
        OFFSET 0
    ) AS r
    LEFT JOIN LATERAL (
        SELECT sealed_receipt FROM deliveries
        WHERE record_id = r.id AND destination = w.destination OFFSET 0
    ) AS d ON true
    LEFT JOIN LATERAL (
        SELECT id, waiting_since FROM uploads
        WHERE record_id = r.id AND destination = w.destination
            AND state IN ('queued', 'sending', 'parked')
        ORDER BY version LIMIT 1
    ) AS u ON true
""")


async def find_targets(connection: AsyncConnection, wanted: Sequence[Wanted]) -> list[list[Target]]:
    """For each of these, in their order: those that are known, of its user and its source."""
    rows = await _FIND.rows(
        connection,
        _WANTED.parameter(
            {
                "number": number,
                "record_id": each.record_id,
                "destination": each.destination,
                "key": key,
            }
            for number, each in enumerate(wanted)
            for key in each.keys
        ),
    )
    found: defaultdict[int, list[Target]] = defaultdict(list)
    for row in rows:
        target = Target(
            bytes(row.key), row.record_id, row.sealed_receipt, row.unfinished, row.waits
        )
        found[row.number].append(target)
    return [found[number] for number in range(len(wanted))]
