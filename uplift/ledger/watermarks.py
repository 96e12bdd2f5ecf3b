"""The watermarks of records: which uploads are late, and what a record keeps to tell.

A watermark is sealed, so it is compared here and not in SQL. The record's lock keeps it as it is.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.errors import SealError
from uplift.ledger.new_uploads import NewUpload
from uplift.lifecycle import DEAD_LETTERS, UNFINISHED, Reason, State
from uplift.sealing import UserKey
from uplift.watermark import Stamped, Times, from_bytes, is_late, is_newest, noted, to_bytes


def watermark_context(record_id: UUID) -> bytes:
    """What a sealed watermark is bound to."""
    return b"watermark " + record_id.bytes


def first_watermark(record_id: UUID, key: UserKey, times: Times) -> bytes | None:
    """The sealed watermark of a record that has one version, of these times."""
    if not times.known:
        return None
    return _sealed(record_id, key, [Stamped(1, times)])


def _sealed(record_id: UUID, key: UserKey, stamped: Sequence[Stamped]) -> bytes:
    return key.seal(to_bytes(stamped), watermark_context(record_id))


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions of a record that its ledger still has, by their numbers.

    `delivered` is the one that its user's destination had last, `delivered_anywhere` the last one
    of any destination.
    """

    delivered: int
    delivered_anywhere: int
    rows: Mapping[int, Row[Any]] = field(default_factory=dict)

    def counts(self, version: int) -> bool:
        """Whether it was delivered to its user's destination, may be there, or is under way."""
        row = self.rows.get(version)
        if row is None:
            return version <= self.delivered  # only what was delivered is thinned out before
        return bool(row.is_here) and _is_or_may_be_there(row)

    def keeps(self, version: int) -> bool:
        """Whether its times may still matter: a dead letter can be redriven, and a user may move
        back."""
        row = self.rows.get(version)
        if row is None:
            return version <= self.delivered_anywhere
        return _is_or_may_be_there(row) or row.state in DEAD_LETTERS

    def late_before(self, digest: bytes) -> UUID | None:
        """The upload with that content that came late before."""
        return next(
            (
                row.id
                for row in self.rows.values()
                if row.is_here
                and row.reason == Reason.OLDER_VERSION
                and bytes(row.digest) == digest
            ),
            None,
        )

    def number_of(self, upload_id: UUID) -> int:
        """The number of an upload's version; of one that was thinned out, what was delivered."""
        return next(
            (number for number, row in self.rows.items() if row.id == upload_id), self.delivered
        )


def _is_or_may_be_there(row: Row[Any]) -> bool:
    return row.maybe_sent or row.state == State.DELIVERED or row.state in UNFINISHED


# `is_here`: it is for the destination that its user has now.
_VERSIONS = text("""
    SELECT r.id AS record_id, u.version, u.id, u.state, u.reason, u.maybe_sent, u.digest,
        u.destination = users.destination AS is_here, coalesce(d.version, 0) AS delivered,
        coalesce((SELECT max(version) FROM deliveries WHERE record_id = r.id), 0)
            AS delivered_anywhere
    FROM records AS r
    JOIN users ON users.id = r.user_id
    LEFT JOIN deliveries AS d ON d.record_id = r.id AND d.destination = users.destination
    LEFT JOIN uploads AS u ON u.record_id = r.id
    WHERE r.id = ANY(CAST(:record_ids AS uuid[]))
""")


class Watermarks:
    """The watermarks of records that a transaction has locked."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._versions: dict[UUID, Versions] = {}

    async def find_late(self, pairs: Sequence[tuple[NewUpload, Row[Any]]]) -> set[UUID]:
        """Those of the uploads that are older than a version of their record that counts."""
        opened = [
            (new, record, stamped)
            for new, record in pairs
            if new.times.known and not new.force and (stamped := _opened(new.key, record))
        ]
        await self._read_versions([record for _, record, _ in opened])
        return {
            new.id
            for new, record, stamped in opened
            if is_late(
                new.times,
                (each for each in stamped if self._versions[record.id].counts(each.version)),
            )
        }

    def late_before(self, new: NewUpload, record: Row[Any]) -> UUID | None:
        """The upload of the same content that came before and was late too."""
        return self._versions[record.id].late_before(new.digest)

    async def with_duplicates(
        self, repeated: Sequence[tuple[NewUpload, Row[Any], UUID]]
    ) -> dict[UUID, bytes]:
        """The watermarks that duplicates move, sealed, by record; each with the upload it has."""
        opened = [
            (new, record, upload_id, _opened(new.key, record))
            for new, record, upload_id in repeated
            if new.times.known
        ]
        moving = [
            (new, record, upload_id, stamped)
            for new, record, upload_id, stamped in opened
            if all(each.times != new.times for each in stamped)
        ]
        await self._read_versions([record for _, record, _, _ in moving])
        moved: dict[UUID, bytes] = {}
        for new, record, upload_id, stamped in moving:
            versions = self._versions[record.id]
            again = Stamped(versions.number_of(upload_id), new.times)
            kept = noted(stamped, again, keeps=versions.keeps)
            if new.key is not None and kept != stamped:
                moved[record.id] = _sealed(record.id, new.key, kept)
        return moved

    async def with_versions(self, added: Sequence[tuple[NewUpload, Row[Any]]]) -> dict[UUID, bytes]:
        """The watermarks of records that get another version, sealed, by record."""
        known = [
            (new, record, _opened(new.key, record))
            for new, record in added
            if new.key is not None and new.times.known
        ]
        await self._read_versions([record for _, record, stamped in known if stamped])
        sealed: dict[UUID, bytes] = {}
        for new, record, stamped in known:
            keeps = self._versions[record.id].keeps if stamped else bool
            kept = noted(stamped, Stamped(record.versions + 1, new.times), keeps=keeps)
            if new.key is not None:
                sealed[record.id] = _sealed(record.id, new.key, kept)
        return sealed

    async def _read_versions(self, records: Sequence[Row[Any]]) -> None:
        missing = [record for record in records if record.id not in self._versions]
        if missing:
            self._versions |= await _read_versions(self._connection, missing)


async def _read_versions(
    connection: AsyncConnection, records: Sequence[Row[Any]]
) -> dict[UUID, Versions]:
    ids = [record.id for record in records]
    rows = await connection.execute(_VERSIONS, {"record_ids": ids})
    of: dict[UUID, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        of[row.record_id].append(row)
    return {
        id_: Versions(
            rows[0].delivered,
            rows[0].delivered_anywhere,
            {row.version: row for row in rows if row.id is not None},
        )
        for id_, rows in of.items()
    }


@dataclass(frozen=True, slots=True)
class Moved:
    """A version that moves to another record: why it is not sent, or the record's watermark."""

    reason: Reason | None
    watermark: bytes | None = None


async def move_version(
    connection: AsyncConnection,
    key: UserKey | None,
    upload: Row[Any],
    left: Row[Any],
    goes_on: Row[Any],
) -> Moved:
    """What a version of a record that joined another is there: late, overtaken, or the next.

    Its server decides; if it does not say, the order in which both came.
    """
    stamped = _opened(key, goes_on)
    versions = (await _read_versions(connection, [goes_on]))[goes_on.id]
    counting = [each for each in stamped if versions.counts(each.version)]
    own = [each.times for each in _opened(key, left) if each.version == upload.version]
    if any(is_late(times, counting) for times in own):
        return Moved(Reason.OLDER_VERSION)
    came_before = goes_on.latest_upload_id is not None and upload.id < goes_on.latest_upload_id
    if came_before and not any(is_newest(times, counting) for times in own):
        return Moved(Reason.NEWER_VERSION)
    for times in own:
        moved = Stamped(goes_on.versions + 1, times)
        stamped = noted(stamped, moved, keeps=versions.keeps)
    return Moved(None, _sealed(goes_on.id, key, stamped) if own and key else None)


def _opened(key: UserKey | None, record: Row[Any]) -> list[Stamped]:
    if key is None or record.sealed_watermark is None:
        return []
    try:
        content = key.open(record.sealed_watermark, watermark_context(record.id))
    except SealError:
        return []  # then they count in the order of their arrival
    return from_bytes(content)
