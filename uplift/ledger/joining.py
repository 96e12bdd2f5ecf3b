"""Finds the record of each upload that is not the first of its record, and locks it.

Most have one, under their own identity. Where several labels claim one place, the rules of
`same_record` decide, under the lock of the place: the upload joins a record, or gets one that
collides. An identity that joined another record stays as a row that only leads there.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger import locks, places
from uplift.ledger.merging import merge
from uplift.ledger.new_uploads import NewUpload
from uplift.ledger.parameters import Rows
from uplift.ledger.places import Place
from uplift.ledger.source_aliases import Aliases
from uplift.lifecycle import State
from uplift.same_record import Origin, Verdict, judge

Pair = tuple[NewUpload, Row[Any]]


@dataclass(frozen=True, slots=True)
class Joined:
    """The uploads with their records, locked.

    `like` are uploads that have the content of another server's record now. `deferred` are of a
    record or a place that another upload of the group has: they come after it.
    """

    pairs: list[Pair]
    like: list[Pair]
    deferred: list[NewUpload]


async def join(connection: AsyncConnection, group: Sequence[NewUpload]) -> Joined:
    """Find and lock the records of these uploads, which are there or whose places are taken."""
    found = await places.find(connection, group)
    contested = [place for place in found if place.contested]
    if contested:
        keys = {key for place in contested if (key := place.new.upstream_key)}
        await places.lock(connection, keys)
        found = await places.find(connection, group)
    now, deferred = _once_each(found)
    rows = await locks.lock_and_read_records(
        connection, {id_ for place in now for id_ in place.record_ids}
    )
    if _moved_meanwhile(now, rows):
        return await join(connection, group)
    record_ids = {place.new.id: place.own.id for place in now if place.own is not None}
    like: set[UUID] = set()
    if unclear := [place for place in now if place.contested]:
        decisions = _Decisions(connection, rows, await _delivered_digests(connection, rows))
        record_ids |= await decisions.decide(unclear)
        like = decisions.like
        # What was decided has changed them.
        rows = await locks.lock_and_read_records(connection, set(record_ids.values()))
    pairs = [(place.new, rows[record_ids[place.new.id]]) for place in now]
    return Joined(
        pairs=[pair for pair in pairs if pair[0].id not in like],
        like=[pair for pair in pairs if pair[0].id in like],
        deferred=deferred,
    )


def _once_each(found: Sequence[Place]) -> tuple[list[Place], list[NewUpload]]:
    """Places of which no two have a record in common, and the uploads of the others."""
    now: list[Place] = []
    deferred: list[NewUpload] = []
    seen: set[object] = set()
    for place in found:
        of: set[object] = {*place.record_ids}
        if place.contested:
            of.add((place.new.user_id, place.new.upstream_key or place.new.identity))
        if seen & of:
            deferred.append(place.new)
        else:
            now.append(place)
        seen |= of
    return now, deferred


def _moved_meanwhile(now: Sequence[Place], rows: dict[UUID, Row[Any]]) -> bool:
    """Whether a record joined another one after it was found and before it was locked."""
    for place in now:
        if place.own is not None:
            row = rows.get(place.own.id)
            if row is None or row.alias_of != place.own.alias_of:
                return True
        if any(other.id not in rows or rows[other.id].alias_of for other in place.others):
            return place.contested
    return False


_OWN = Rows(
    "own",
    id="uuid",
    user_id="uuid",
    identity="bytea",
    upstream_key="bytea",
    upstream_rank="int",
    derived_id="text",
    alias_of="uuid",
    source_key="bytea",
    server_key="bytea",
)

_PUT_OWN = _OWN.statement("""
    INSERT INTO records AS r (id, user_id, identity, upstream_key, upstream_rank, derived_id,
        alias_of, source_key, server_key)
    SELECT id, user_id, identity, upstream_key, upstream_rank, derived_id, alias_of, source_key,
        server_key
    FROM {own} AS own
    ON CONFLICT (user_id, identity) DO UPDATE
    SET upstream_key = excluded.upstream_key, upstream_rank = excluded.upstream_rank,
        alias_of = excluded.alias_of
    RETURNING id
""")

_LATEST_UPLOAD = text("SELECT state, destination FROM uploads WHERE id = :id")

_DELIVERED = text("""
    SELECT record_id, destination, digest FROM deliveries
    WHERE record_id = ANY(CAST(:record_ids AS uuid[])) AND digest IS NOT NULL
""")

_Digests = Mapping[tuple[UUID, str], bytes]


async def _delivered_digests(connection: AsyncConnection, record_ids: Iterable[UUID]) -> _Digests:
    """What was delivered last of these records, by the record and the destination."""
    rows = await connection.execute(_DELIVERED, {"record_ids": list(record_ids)})
    return {(row.record_id, row.destination): bytes(row.digest) for row in rows}


_GIVEN_UP = frozenset({"cancelled", "expired", "superseded"})


class _Decisions:
    """Decides about contested places, of which this transaction has all locks."""

    def __init__(
        self, connection: AsyncConnection, rows: dict[UUID, Row[Any]], delivered: _Digests
    ) -> None:
        self._connection = connection
        self._rows = rows
        self._delivered = delivered
        self._aliases = Aliases(connection, {row.user_id for row in rows.values()})
        self.like: set[UUID] = set()

    async def decide(self, contested: Sequence[Place]) -> dict[UUID, UUID]:
        """The record of each upload, by the upload's id; of what is only alike, the other's."""
        await self._aliases.read()
        records: dict[UUID, UUID] = {}
        # Equal content first: it tells which labels are names of one source.
        for place in sorted(contested, key=lambda place: not self._has_equal(place)):
            records[place.new.id] = await self._decide(place)
        return records

    def _has_equal(self, place: Place) -> bool:
        return any(
            self._same_content(place.new, row)
            for other in place.others
            if (row := self._rows[other.id])
        )

    async def _decide(self, place: Place) -> UUID:
        own = self._rows[place.own.id] if place.own is not None else None
        leads_to = self._rows[own.alias_of] if own is not None and own.alias_of else None
        others = [self._rows[other.id] for other in place.others]
        if leads_to is not None:
            if not _other_server(place.new, leads_to):
                return _id(leads_to)
            others = [leads_to, *(row for row in others if row.id != leads_to.id)]
        alike: Row[Any] | None = None
        for row in others:
            verdict = self._judge(place.new, row)
            if verdict in (Verdict.SAME_SOURCE, Verdict.SAME_RECORD):
                return await self._join(place.new, own, row, verdict)
            if verdict is Verdict.SAME_CONTENT:
                alike = alike or row
        if alike is not None and await self._is_latest(place.new, alike):
            self.like.add(place.new.id)
            return _id(alike)
        if own is not None and leads_to is None and own.upstream_key == place.new.upstream_key:
            return _id(own)
        return await self._stand_alone(place, others)

    def _judge(self, new: NewUpload, row: Row[Any]) -> Verdict:
        return judge(
            Origin(new.source_key, new.server_key),
            Origin(row.source_key, row.server_key),
            same_content=self._same_content(new, row),
            same_source=self._aliases.same_source(new.user_id, new.source_key, row.source_key),
        )

    async def _join(
        self, new: NewUpload, own: Row[Any] | None, row: Row[Any], verdict: Verdict
    ) -> UUID:
        if verdict is Verdict.SAME_SOURCE and new.source_key and row.source_key:
            await self._aliases.add(new.user_id, new.source_key, row.source_key)
        if own is not None and own.alias_of is None:
            return await merge(self._connection, row, own, new.key)
        await self._put_own(new, alias_of=row.id)
        return _id(row)

    async def _stand_alone(self, place: Place, others: Sequence[Row[Any]]) -> UUID:
        """Give the upload a record of its own, which collides with what is at its place."""
        there = [row.upstream_rank for row in others if row.upstream_key == place.new.upstream_key]
        return await self._put_own(
            place.new,
            upstream_key=place.new.upstream_key,
            upstream_rank=max(there, default=-1) + 1,
        )

    async def _put_own(self, new: NewUpload, **columns: Any) -> UUID:
        row = {
            "id": new.record_id,
            "user_id": new.user_id,
            "identity": new.identity,
            "upstream_rank": 0,
            "derived_id": new.derived_id,
            "source_key": new.source_key,
            "server_key": new.server_key,
            **columns,
        }
        found = await self._connection.execute(_PUT_OWN, _OWN.parameter([row]))
        return _id(found.one())

    async def _is_latest(self, new: NewUpload, row: Row[Any]) -> bool:
        """Whether the content is what came last for the record, and was not given up."""
        if row.latest_upload_id is None or row.latest_digest != new.digest:
            return False
        found = await self._connection.execute(_LATEST_UPLOAD, {"id": row.latest_upload_id})
        latest = found.one_or_none()
        if latest is None:
            return self._is_there(new, row)
        if latest.state == State.DELIVERED and not self._is_there(new, row):
            return False
        return latest.destination == new.destination and latest.state not in _GIVEN_UP

    def _is_there(self, new: NewUpload, row: Row[Any]) -> bool:
        """Whether the destination has this content of the record."""
        return self._delivered.get((row.id, new.destination)) == new.digest

    def _same_content(self, new: NewUpload, row: Row[Any]) -> bool:
        return new.digest == row.latest_digest or self._is_there(new, row)


def _id(row: Row[Any]) -> UUID:
    id_: UUID = row.id
    return id_


def _other_server(new: NewUpload, row: Row[Any]) -> bool:
    return None not in (new.server_key, row.server_key) and new.server_key != row.server_key
