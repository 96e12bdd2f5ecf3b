"""What stands at the place of a record: its type and id, of one user and one FHIR version.

Most places have one record. Where there are more, `joining` decides under the place's lock.
"""

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.new_uploads import NewUpload
from uplift.ledger.parameters import Rows


@dataclass(slots=True)
class Place:
    """What is at the place of an upload: the row of its own identity, and other records."""

    new: NewUpload
    own: Row[Any] | None = None
    others: list[Row[Any]] = field(default_factory=list)

    @property
    def contested(self) -> bool:
        """Whether it takes the place's lock to say which record the upload is of.

        What was delivered stays where it was delivered, whatever id the resource has now.
        """
        if self.own is None or self.own.alias_of is not None:
            return True
        if self.own.upstream_key == self.new.upstream_key:
            return bool(self.others)
        return not self.own.delivered

    @property
    def record_ids(self) -> set[UUID]:
        """All records whose locks the decision needs."""
        ids = {row.id for row in self.others} if self.contested else set()
        if self.own is not None:
            ids |= {self.own.id, self.own.alias_of or self.own.id}
        return ids


_PLACES = Rows("places", number="int", user_id="uuid", identity="bytea", upstream_key="bytea")

_FIND = _PLACES.statement("""
    SELECT n.number, r.* FROM {places} AS n
    CROSS JOIN LATERAL (
        SELECT true AS own, id, alias_of, upstream_key, upstream_rank,
            EXISTS (SELECT FROM deliveries WHERE record_id = id AND version > 0) AS delivered
        FROM records WHERE user_id = n.user_id AND identity = n.identity
        UNION ALL
        SELECT false, id, alias_of, upstream_key, upstream_rank, NULL
        FROM records
        WHERE user_id = n.user_id AND upstream_key = n.upstream_key AND identity <> n.identity
    ) AS r
    ORDER BY n.number, r.upstream_rank
""")


async def find(connection: AsyncConnection, group: Sequence[NewUpload]) -> list[Place]:
    """The places of these uploads, in their order. Locks nothing."""
    places = [Place(new) for new in group]
    rows = await connection.execute(
        _FIND,
        _PLACES.parameter(
            {
                "number": number,
                "user_id": new.user_id,
                "identity": new.identity,
                "upstream_key": new.upstream_key,
            }
            for number, new in enumerate(group)
        ),
    )
    for row in rows:
        if row.own:
            places[row.number].own = row
        else:
            places[row.number].others.append(row)
    return places


# Two numbers, so these are not the locks of `collisions`: workers take those while they have
# uploads locked.
_LOCK = text("""
    SELECT pg_advisory_xact_lock(one, other)
    FROM unnest(CAST(:ones AS int[]), CAST(:others AS int[])) AS key(one, other)
""")


async def lock(connection: AsyncConnection, upstream_keys: Collection[bytes]) -> None:
    """Lock these places until the transaction ends, in one order.

    64 bits of a keyed hash: two that agree by chance only wait for each other.
    """
    keys = sorted({struct.unpack(">ii", key[:8]) for key in upstream_keys})
    await connection.execute(
        _LOCK, {"ones": [one for one, _ in keys], "others": [other for _, other in keys]}
    )
