"""Makes two records one: one goes on, and everything that comes for the other goes to it.

The newest version of the other that waits, or that collided, becomes a version of the one that
goes on, unless that has a newer one.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.audit import SYSTEM, Action, note_uploads
from uplift.ledger.superseding import lock_unsent, supersede_unsent
from uplift.ledger.transitions import Change, change_state
from uplift.ledger.watermarks import move_version
from uplift.lifecycle import Reason, State
from uplift.sealing import UserKey

_SENT = text("""
    SELECT r.id,
        EXISTS (SELECT FROM deliveries WHERE record_id = r.id AND version > 0) AS delivered,
        EXISTS (SELECT 1 FROM uploads WHERE record_id = r.id AND maybe_sent) AS maybe_sent
    FROM records AS r WHERE r.id = ANY(CAST(:ids AS uuid[]))
""")

_LEFT = text("""
    SELECT id, record_id, version, digest, state, sealed_body IS NOT NULL AS kept FROM uploads
    WHERE record_id = :id AND NOT maybe_sent AND (state IN ('queued', 'parked')
        OR (state = 'refused' AND reason = 'id_collision'))
    ORDER BY version DESC
""")

# The place's next record must meet one that has the first rank there.
_LEAVE = text("""
    UPDATE records SET alias_of = :goes_on, upstream_key = NULL, upstream_rank = 0
    WHERE id = :left OR (user_id = :user_id AND alias_of = :left)
""")
_STAY = text("UPDATE records SET upstream_rank = :rank WHERE id = :goes_on")

# What may be there already ends with a look-up, and is not sent again.
_TELL = text("""
    UPDATE uploads SET possible_duplicate = true, revision = revision + 1, updated_at = now(),
        cancel_requested = cancel_requested OR state IN ('parked', 'queued', 'sending')
    WHERE record_id = :left AND (state = 'delivered' OR maybe_sent)
""")
_TELL_TOMBSTONE = text("""
    UPDATE tombstones SET possible_duplicate = true, revision = revision + 1
    WHERE upload_id = :upload_id
""")

_MOVE = text("UPDATE uploads SET record_id = :record_id, version = :version WHERE id = :id")
_NOTE = text("""
    UPDATE records SET versions = :version, latest_upload_id = :id, latest_digest = :digest,
        sealed_watermark = coalesce(:watermark, sealed_watermark)
    WHERE id = :record_id
""")


async def merge(
    connection: AsyncConnection, one: Row[Any], other: Row[Any], key: UserKey | None
) -> UUID:
    """Make two locked records of one place one; the id of the one that goes on.

    That is the one that was delivered, or that may be at 1upHealth, or that came first. Nothing
    more is sent to the other. If both may be there, its uploads are marked as possible duplicates.
    """
    rows = {row.id: row for row in (one, other)}
    await lock_unsent(connection, rows)
    sent = (await connection.execute(_SENT, {"ids": list(rows)})).all()
    first, last = sorted(
        sent, key=lambda row: (0 if row.delivered else 1 if row.maybe_sent else 2, row.id)
    )
    goes_on, left = rows[first.id], rows[last.id]
    if last.delivered or last.maybe_sent:
        await connection.execute(_TELL, {"left": left.id})
        await connection.execute(_TELL_TOMBSTONE, {"upload_id": left.latest_upload_id})
    await _leave(connection, goes_on, left, key)
    await connection.execute(
        _LEAVE, {"left": left.id, "goes_on": goes_on.id, "user_id": left.user_id}
    )
    rank = min(one.upstream_rank, other.upstream_rank)
    await connection.execute(_STAY, {"goes_on": goes_on.id, "rank": rank})
    id_: UUID = goes_on.id
    return id_


async def _leave(
    connection: AsyncConnection, goes_on: Row[Any], left: Row[Any], key: UserKey | None
) -> None:
    """Supersede what was not sent of a record, except the version that moves to the other."""
    uploads = (await connection.execute(_LEFT, {"id": left.id})).all()
    changes = [_superseded(upload, Reason.NEWER_VERSION) for upload in uploads]
    newest = next((upload for upload in uploads if upload.kept), None)
    if newest is not None:
        moved = await move_version(connection, key, newest, left, goes_on)
        changes = [change for change in changes if change.upload_id != newest.id]
        if moved.reason is not None:
            changes.append(_superseded(newest, moved.reason))
        else:
            await supersede_unsent(connection, [goes_on.id])
            version = {
                "id": newest.id,
                "record_id": goes_on.id,
                "version": goes_on.versions + 1,
                "digest": newest.digest,
                "watermark": moved.watermark,
            }
            await connection.execute(_MOVE, version)
            await connection.execute(_NOTE, version)
            if newest.state == State.REFUSED:
                changes.append(_redriven(newest))
                await note_uploads(connection, SYSTEM, Action.UPLOAD_REDRIVEN, [newest.id])
    await change_state(connection, changes)


def _superseded(upload: Row[Any], reason: Reason) -> Change:
    return Change(
        upload_id=upload.id,
        source=State(upload.state),
        target=State.SUPERSEDED,
        reason=reason,
    )


def _redriven(upload: Row[Any]) -> Change:
    return Change(
        upload_id=upload.id,
        source=State.REFUSED,
        target=State.QUEUED,
        reason=Reason.REDRIVEN,
        reset=True,
    )
