"""Adds uploads to records that are there, or finds that they need none.

Older versions that nobody has tried to send are superseded. One that comes late, after a version
that its server says is newer, is superseded itself. An older version that may be at
1upHealth ends first, and what comes after it is looked up there before it is sent.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.joining import join
from uplift.ledger.new_uploads import Added, NewUpload, Version, add, adding
from uplift.ledger.parameters import Rows
from uplift.ledger.superseding import supersede_unsent
from uplift.ledger.transitions import Change, change_state
from uplift.ledger.watermarks import Watermarks
from uplift.lifecycle import Reason, State

# These ended because somebody stopped them, or time did. The same content that comes again is a
# new wish to send it, and no duplicate.
_GIVEN_UP = frozenset({State.CANCELLED, State.EXPIRED, State.SUPERSEDED})


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of an upload that was put in: the id it has, and whether that was there before.

    `record_id` is its record, and `first` whether it is the first of it.
    `added` is what the ledger decided about it, if it is new and waits to be sent.
    """

    id: UUID
    record_id: UUID
    duplicate: bool
    added: Added | None = None
    first: bool = False


async def add_later_versions(
    connection: AsyncConnection, group: Sequence[NewUpload]
) -> dict[UUID, Kept]:
    """Put in these uploads, each of another identity; what became of each, by the uploads' ids."""
    joined = await join(connection, group)
    pairs = joined.pairs
    watermarks = Watermarks(connection)
    kept = await _find_repeated(connection, pairs)
    moved = await watermarks.with_duplicates(
        [(new, record, kept[new.id].id) for new, record in pairs if new.id in kept]
    )
    changed = [(new, record) for new, record in pairs if new.id not in kept]
    late = await watermarks.find_late(changed) if changed else set()
    for new, record in changed:
        if new.id in late and (before := watermarks.late_before(new, record)):
            kept[new.id] = Kept(before, record.id, duplicate=True)
    newer = [(new, record) for new, record in changed if new.id not in late]
    versions, gone_back = await _next_versions(connection, newer)
    kept |= gone_back
    moved |= await watermarks.with_duplicates(
        [(new, record, kept[new.id].id) for new, record in newer if new.id in kept]
    )
    moved |= await watermarks.with_versions(
        [(new, record) for new, record in newer if new.id not in kept]
    )
    versions += [
        Version(new, record.id, record.versions + 1, maybe_sent=False)
        for new, record in changed
        if new.id in late and new.id not in kept
    ]
    if versions:
        added = await add(connection, _ADD_NEXT, versions)
        await change_state(connection, [_older(id_) for id_ in added if id_ in late])
        records = {version.new.id: version.record_id for version in versions}
        kept |= {
            id_: Kept(id_, records[id_], duplicate=False, added=each if id_ not in late else None)
            for id_, each in added.items()
        }
    await _note(connection, pairs, kept, late, moved)
    kept |= {
        new.id: Kept(record.latest_upload_id, record.id, duplicate=True)
        for new, record in joined.like
    }
    if joined.deferred:
        kept |= await add_later_versions(connection, joined.deferred)
    return kept


def _older(upload_id: UUID) -> Change:
    return Change(
        upload_id=upload_id,
        source=State.QUEUED,
        target=State.SUPERSEDED,
        reason=Reason.OLDER_VERSION,
    )


async def _next_versions(
    connection: AsyncConnection, pairs: Sequence[tuple[NewUpload, Row[Any]]]
) -> tuple[list[Version], dict[UUID, Kept]]:
    """The uploads as the next versions of their records; and those that went back to what was
    delivered. What is not sent yet is superseded by both.
    """
    # A record that never had an upload needs no question.
    standings: dict[UUID, Row[Any]] = {}
    before = [(new, record) for new, record in pairs if record.versions]
    if before:
        await supersede_unsent(connection, [record.id for _, record in before])
        standings = await _standings(connection, before)
    versions: list[Version] = []
    gone_back: dict[UUID, Kept] = {}
    for new, record in pairs:
        standing = standings.get(record.id)
        same_as_delivered = standing is not None and standing.delivered_digest == new.digest
        if standing and same_as_delivered and _is_as_delivered(standing):
            gone_back[new.id] = Kept(standing.delivered_upload_id, record.id, duplicate=True)
        else:
            # What was delivered last may still be there, after a version that never arrived. The
            # same content that is under way may soon be there.
            known = standing is not None and (
                same_as_delivered or new.digest in (standing.under_way or ())
            )
            only_lost = standing.only_lost if standing is not None else None
            versions.append(
                Version(
                    new,
                    record.id,
                    record.versions + 1,
                    maybe_sent=known or only_lost is not None,
                    maybe_lost=bool(only_lost) and not known,
                )
            )
    return versions, gone_back


async def _note(
    connection: AsyncConnection,
    pairs: Sequence[tuple[NewUpload, Row[Any]]],
    kept: Mapping[UUID, Kept],
    late: Collection[UUID],
    moved: Mapping[UUID, bytes],
) -> None:
    """Note in the records what came last; what is late did not."""
    notes = []
    for new, record in pairs:
        is_newest = new.id not in late
        note = {
            "record_id": record.id,
            "upload_id": kept[new.id].id if is_newest else record.latest_upload_id,
            "digest": new.digest if is_newest else record.latest_digest,
            "added": 0 if kept[new.id].duplicate else 1,
            "watermark": moved.get(record.id),
            "source_key": record.source_key or new.source_key,
            "server_key": new.server_key or record.server_key,
            # Given once. A record that came while there was no id key has none yet.
            "derived_id": record.derived_id or new.derived_id,
        }
        if note["added"] or note["watermark"] or _differs(note, record):
            notes.append(note)
    if notes:
        await connection.execute(_NOTE_LATEST, _LATEST.parameter(notes))


def _differs(note: Mapping[str, Any], record: Row[Any]) -> bool:
    return (note["upload_id"], note["source_key"], note["server_key"], note["derived_id"]) != (
        record.latest_upload_id,
        record.source_key,
        record.server_key,
        record.derived_id,
    )


_ADD_NEXT = adding()

_LATEST = Rows(
    "latest",
    record_id="uuid",
    upload_id="uuid",
    digest="bytea",
    added="int",
    watermark="bytea",
    source_key="bytea",
    server_key="bytea",
    derived_id="text",
)

_NOTE_LATEST = _LATEST.statement("""
    UPDATE records AS r
    SET versions = r.versions + n.added, latest_upload_id = n.upload_id, latest_digest = n.digest,
        source_key = n.source_key, server_key = n.server_key, derived_id = n.derived_id,
        sealed_watermark = coalesce(n.watermark, r.sealed_watermark)
    FROM {latest} AS n
    WHERE r.id = ANY ({latest.record_id}) AND r.id = n.record_id
""")

_AT = Rows("at", record_id="uuid", destination="text", upload_id="uuid")

# What its owner withdrew ends as cancelled, unless it turns out to be delivered.
_LATEST_UPLOADS = _AT.statement("""
    SELECT a.record_id, u.destination = a.destination AS is_here, d.digest AS delivered_digest,
        CASE WHEN u.cancel_requested AND u.state IN ('parked', 'queued', 'sending')
            THEN 'cancelled' ELSE u.state END AS state
    FROM {at} AS a
    LEFT JOIN LATERAL (
        SELECT destination, state, cancel_requested FROM uploads WHERE id = a.upload_id OFFSET 0
    ) AS u ON true
    LEFT JOIN LATERAL (
        SELECT digest FROM deliveries
        WHERE record_id = a.record_id AND destination = a.destination OFFSET 0
    ) AS d ON true
""")


async def _find_repeated(
    connection: AsyncConnection, pairs: Sequence[tuple[NewUpload, Row[Any]]]
) -> dict[UUID, Kept]:
    """The uploads whose content came last for their record, and that need no upload again."""
    repeated = [
        (new, record)
        for new, record in pairs
        if record.latest_upload_id is not None and record.latest_digest == new.digest
    ]
    if not repeated:
        return {}
    rows = await connection.execute(
        _LATEST_UPLOADS,
        _AT.parameter(
            {
                "record_id": record.id,
                "destination": new.destination,
                "upload_id": record.latest_upload_id,
            }
            for new, record in repeated
        ),
    )
    latest = {row.record_id: row for row in rows}
    return {
        new.id: Kept(record.latest_upload_id, record.id, duplicate=True)
        for new, record in repeated
        if _is_kept(latest[record.id], new)
    }


def _is_kept(latest: Row[Any], new: NewUpload) -> bool:
    """Whether the content that came last needs no upload to this destination.

    Without a state its upload was thinned out. It still counts if it was delivered last.
    """
    if latest.state is None:
        return bool(latest.delivered_digest == new.digest)
    if latest.state == State.DELIVERED and latest.delivered_digest != new.digest:
        return False  # what the destination has was forgotten since: it is to be sent again
    return bool(latest.is_here) and latest.state not in _GIVEN_UP


# One statement, so that a version that ends meanwhile is seen either before or after it did.
_STANDINGS = _AT.statement("""
    SELECT a.record_id, d.digest AS delivered_digest,
        (SELECT array_agg(digest) FROM uploads
         WHERE record_id = a.record_id AND destination = a.destination
            AND state IN ('parked', 'queued', 'sending')) AS under_way,
        (SELECT bool_and(maybe_lost) FROM uploads
            WHERE record_id = a.record_id AND destination = a.destination
                AND version > coalesce(d.version, 0) AND maybe_sent
                AND state IN ('rejected', 'refused', 'expired', 'cancelled', 'superseded')
        ) AS only_lost,
        (SELECT id FROM uploads
         WHERE record_id = a.record_id AND destination = a.destination AND version = d.version
            AND digest = d.digest AND state = 'delivered') AS delivered_upload_id
    FROM {at} AS a
    LEFT JOIN LATERAL (
        SELECT version, digest FROM deliveries
        WHERE record_id = a.record_id AND destination = a.destination OFFSET 0
    ) AS d ON true
""")


async def _standings(
    connection: AsyncConnection, pairs: Sequence[tuple[NewUpload, Row[Any]]]
) -> dict[UUID, Row[Any]]:
    """Of each record at its destination: what is under way, what may be there unnoticed, and what
    was delivered there."""
    rows = await connection.execute(
        _STANDINGS,
        _AT.parameter(
            {"record_id": record.id, "destination": new.destination} for new, record in pairs
        ),
    )
    return {row.record_id: row for row in rows}


def _is_as_delivered(standing: Row[Any]) -> bool:
    """Whether the destination has what was delivered last, nothing else, and its upload is still
    here."""
    return (
        standing.delivered_upload_id is not None
        and not standing.under_way
        and standing.only_lost is None
    )
