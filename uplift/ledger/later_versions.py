"""Adds uploads to records that are there, or finds that they need none.

Older versions that nobody has tried to send are superseded. An older version that may be at
1upHealth ends first, and what comes after it is looked up there before it is sent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from uplift.ledger import locks
from uplift.ledger.new_uploads import Added, NewUpload, Version, add, adding
from uplift.ledger.parameters import Rows, is_among
from uplift.ledger.tables import Record, Upload, state_is
from uplift.ledger.transitions import Change, change_state
from uplift.lifecycle import ENDED_UNDELIVERED, UNFINISHED, Reason, State

# These ended because somebody stopped them, or time did. The same content that comes again is a
# new wish to send it, and no duplicate.
_GIVEN_UP = frozenset({State.CANCELLED, State.EXPIRED, State.SUPERSEDED})


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of an upload that was put in: the id it has, and whether that was there before.

    `added` is what the ledger decided about it, if it is new.
    """

    id: UUID
    duplicate: bool
    added: Added | None = None


async def add_later_versions(
    connection: AsyncConnection, group: Sequence[NewUpload], *, redispatch_seconds: float
) -> dict[UUID, Kept]:
    """Put in these uploads, each of another record; what became of each, by the uploads' ids."""
    locked = await locks.add_or_lock_records(
        connection,
        (
            {
                "id": uuid7(),
                "user_id": new.user_id,
                "identity": new.identity,
                "upstream_key": new.upstream_key,
            }
            for new in group
        ),
    )
    records = {(row.user_id, bytes(row.identity)): row for row in locked}
    pairs = [(new, records[new.user_id, new.identity]) for new in group]
    kept = await _find_repeated(connection, pairs)
    changed = [(new, record) for new, record in pairs if new.id not in kept]
    if not changed:
        return kept
    # A record that never had an upload needs no question.
    standings: dict[UUID, Row[Any]] = {}
    if before := [record.id for _, record in changed if record.versions]:
        await _supersede_unsent(connection, before)
        standings = await _standings(connection, before)
    versions: list[Version] = []
    for new, record in changed:
        standing = standings.get(record.id)
        same_as_delivered = record.delivered_digest == new.digest
        if standing and same_as_delivered and _is_as_delivered(standing):
            kept[new.id] = Kept(standing.delivered_upload_id, duplicate=True)
        else:
            # What was delivered last may still be there, after a version that never arrived. The
            # same content that is under way may soon be there.
            maybe_sent = standing is not None and (
                standing.maybe_sent or same_as_delivered or new.digest in (standing.under_way or ())
            )
            versions.append(Version(new, record.id, record.versions + 1, maybe_sent))
    if versions:
        added = await add(connection, _ADD_NEXT, versions, redispatch_seconds=redispatch_seconds)
        kept |= {id_: Kept(id_, duplicate=False, added=each) for id_, each in added.items()}
    await connection.execute(
        _NOTE_LATEST,
        _LATEST.parameter(
            {
                "record_id": record.id,
                "upload_id": kept[new.id].id,
                "digest": new.digest,
                "added": 0 if kept[new.id].duplicate else 1,
            }
            for new, record in changed
        ),
    )
    return kept


_ADD_NEXT = adding()

_LATEST = Rows("latest", record_id="uuid", upload_id="uuid", digest="bytea", added="int")

_NOTE_LATEST = _LATEST.statement("""
    UPDATE records AS r
    SET versions = r.versions + n.added, latest_upload_id = n.upload_id, latest_digest = n.digest
    FROM {latest} AS n
    WHERE r.id = n.record_id
""")

# What its owner withdrew ends as cancelled, unless it turns out to be delivered.
_STATES = text("""
    SELECT id, CASE WHEN cancel_requested AND state IN ('parked', 'queued', 'sending')
        THEN 'cancelled' ELSE state END AS state
    FROM uploads WHERE id = ANY(CAST(:ids AS uuid[]))
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
        _STATES, {"ids": [record.latest_upload_id for _, record in repeated]}
    )
    states = {row.id: row.state for row in rows}
    return {
        new.id: Kept(record.latest_upload_id, duplicate=True)
        for new, record in repeated
        if _is_kept(states.get(record.latest_upload_id), record)
    }


def _is_kept(state: str | None, record: Row[Any]) -> bool:
    """Whether the content that came last needs no upload, given its upload's state.

    Without a state the upload was thinned out. It still counts if it was delivered last.
    """
    if state is None:
        return bool(record.delivered_digest == record.latest_digest)
    return state not in _GIVEN_UP


# The states stand in the text for the partial index, as `tables.state_is` explains.
_UNSENT = text("""
    SELECT id, state FROM uploads
    WHERE record_id = ANY(CAST(:record_ids AS uuid[])) AND state IN ('queued', 'parked')
        AND NOT maybe_sent
    ORDER BY id FOR UPDATE
""")


async def _supersede_unsent(connection: AsyncConnection, record_ids: list[UUID]) -> None:
    older = await connection.execute(_UNSENT, {"record_ids": record_ids})
    await change_state(
        connection,
        [
            Change(
                upload_id=row.id,
                source=State(row.state),
                target=State.SUPERSEDED,
                reason=Reason.NEWER_VERSION,
            )
            for row in older
        ],
    )


# One statement, so that a version that ends meanwhile is seen either before or after it did.
_STANDINGS = select(
    Record.id,
    select(func.array_agg(Upload.digest))
    .where(Upload.record_id == Record.id, state_is(Upload.state, *sorted(UNFINISHED)))
    .scalar_subquery()
    .label("under_way"),
    select(1)
    .where(
        Upload.record_id == Record.id,
        Upload.version > Record.delivered_version,
        Upload.maybe_sent,
        state_is(Upload.state, *sorted(ENDED_UNDELIVERED)),
    )
    .exists()
    .label("maybe_sent"),
    select(Upload.id)
    .where(
        Upload.record_id == Record.id,
        Upload.version == Record.delivered_version,
        Upload.digest == Record.delivered_digest,
        state_is(Upload.state, State.DELIVERED),
    )
    .scalar_subquery()
    .label("delivered_upload_id"),
).where(is_among(Record.id, "record_ids"))


async def _standings(connection: AsyncConnection, record_ids: list[UUID]) -> dict[UUID, Row[Any]]:
    """Of each record: what is under way, what may be at 1upHealth unnoticed, what was delivered."""
    rows = await connection.execute(_STANDINGS, {"record_ids": record_ids})
    return {row.id: row for row in rows}


def _is_as_delivered(standing: Row[Any]) -> bool:
    """Whether 1upHealth has what was delivered last, nothing else, and its upload is still here."""
    return (
        standing.delivered_upload_id is not None
        and not standing.under_way
        and not standing.maybe_sent
    )
