"""Uploads that ended without being delivered, and may begin anew.

Lock order: the records' rows, as `accepting.put_in` locks them, before their uploads' rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.audit import Action, Actor, note_uploads
from uplift.ledger.filters import Filter
from uplift.ledger.tables import Upload, User, state_is
from uplift.ledger.transitions import Change, change_state
from uplift.lifecycle import DEAD_LETTERS, Reason, State


class Left(StrEnum):
    """Why an upload was not redriven."""

    NO_BODY = "no_body"  # its body is not kept any more
    NEWER_MAYBE_SENT = "newer_maybe_sent"  # what came after it may be at 1upHealth, unnoticed
    NOT_DEAD = "not_dead"  # it is not rejected, refused or expired, or not there at all


@dataclass(frozen=True, slots=True, kw_only=True)
class Redriven:
    """What became of uploads that were asked to begin anew; `due` are those due now, by queue."""

    queued: list[UUID] = field(default_factory=list)
    superseded: list[UUID] = field(default_factory=list)
    left: dict[UUID, Left] = field(default_factory=dict)
    due: dict[str, list[UUID]] = field(default_factory=dict)


def _matching(columns: Select[Any], matching: Filter) -> Select[Any]:
    return columns.join(User, (User.id == Upload.user_id) & User.erased_at.is_(None)).where(
        state_is(Upload.state, *sorted(DEAD_LETTERS)), *matching.conditions()
    )


async def count(connection: AsyncConnection, matching: Filter) -> int:
    """How many dead letters there are that match."""
    return await connection.scalar(_matching(select(func.count(Upload.id)), matching)) or 0


async def find(
    connection: AsyncConnection, matching: Filter, *, after: UUID | None, limit: int
) -> list[UUID]:
    """Dead letters that match, the newest first, from the one after `after`.

    The newest first, because it decides what becomes of older versions of its record.
    """
    statement = _matching(select(Upload.id), matching).order_by(Upload.id.desc()).limit(limit)
    if after is not None:
        statement = statement.where(Upload.id < after)
    return list(await connection.scalars(statement))


_LOCK_RECORDS = text("""
    SELECT r.id FROM records AS r
    WHERE r.id IN (SELECT record_id FROM uploads WHERE id = ANY(CAST(:ids AS uuid[])))
    ORDER BY r.user_id, r.identity FOR UPDATE
""")

# `overtaken`: a newer version was delivered, or will be; or what was delivered before it came back
# as the latest, which needed no upload.
_FACTS = text("""
    SELECT u.id, u.record_id, u.version, u.state, u.queue, u.maybe_sent,
        u.sealed_body IS NOT NULL AS kept,
        CAST(extract(epoch FROM now() - u.updated_at) AS float8) AS rested,
        r.delivered_version > u.version
            OR coalesce(r.latest_upload_id <> u.id AND r.latest_digest = r.delivered_digest, false)
            OR EXISTS (SELECT 1 FROM uploads AS n
                       WHERE n.record_id = u.record_id AND n.version > u.version
                           AND n.state IN ('queued', 'sending', 'parked')) AS overtaken,
        EXISTS (SELECT 1 FROM uploads AS n
                WHERE n.record_id = u.record_id AND n.version > u.version AND n.maybe_sent
                    AND n.state <> 'delivered') AS newer_maybe_sent
    FROM uploads AS u
    JOIN records AS r ON r.id = u.record_id
    JOIN users ON users.id = u.user_id AND users.erased_at IS NULL
    WHERE u.id = ANY(CAST(:ids AS uuid[])) AND u.state IN ('rejected', 'refused', 'expired')
    ORDER BY u.id FOR UPDATE OF u
""")

# The states stand in the text for the partial index, as `tables.state_is` explains.
_OLDER_UNSENT = text("""
    SELECT u.id, u.state
    FROM uploads AS u
    JOIN unnest(CAST(:record_ids AS uuid[]), CAST(:versions AS int[])) AS n(record_id, version)
        ON u.record_id = n.record_id AND u.version < n.version
    WHERE u.state IN ('queued', 'parked') AND NOT u.maybe_sent
    ORDER BY u.id FOR UPDATE OF u
""")

_NOTE_RINGING = text("""
    UPDATE uploads SET dispatched_until = now() + make_interval(secs => :seconds)
    WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'queued'
""")


async def redrive(
    connection: AsyncConnection,
    ids: Sequence[UUID],
    *,
    settle_seconds: float,
    redispatch_seconds: float,
    by: Actor,
) -> Redriven:
    """Have dead letters begin anew: due now, with a fresh clock, to be validated again.

    An old version never goes out after a newer one: where a newer one was delivered or is under
    way, the old one is superseded; where a newer one that ended may be at 1upHealth, it is left.
    What it goes out after itself, and nobody has tried to send, is superseded by it. One that may
    be at 1upHealth keeps saying so, and is due no sooner than `settle_seconds` after it ended: a
    worker looks for it before it sends.
    """
    await connection.execute(_LOCK_RECORDS, {"ids": list(ids)})
    rows = (await connection.execute(_FACTS, {"ids": list(ids)})).all()
    redriven = Redriven(
        left=dict.fromkeys(set(ids) - {row.id for row in rows}, Left.NOT_DEAD),
    )
    changes: list[Change] = []
    begun: dict[UUID, int] = {}  # the version that begins anew, by record
    # Of one record, its newest version decides about the others.
    for row in sorted(rows, key=lambda row: -row.version):
        if row.overtaken or row.record_id in begun:
            redriven.superseded.append(row.id)
            changes.append(_superseded(row))
        elif row.newer_maybe_sent:
            redriven.left[row.id] = Left.NEWER_MAYBE_SENT
        elif not row.kept:
            redriven.left[row.id] = Left.NO_BODY
        else:
            begun[row.record_id] = row.version
            redriven.queued.append(row.id)
            delay = max(0.0, settle_seconds - row.rested) if row.maybe_sent else 0.0
            if not delay:
                redriven.due.setdefault(row.queue, []).append(row.id)
            changes.append(
                Change(
                    upload_id=row.id,
                    source=State(row.state),
                    target=State.QUEUED,
                    reason=Reason.REDRIVEN,
                    delay=delay,
                    reset=True,
                )
            )
    if begun:
        older = await connection.execute(
            _OLDER_UNSENT, {"record_ids": list(begun), "versions": list(begun.values())}
        )
        changes += [_superseded(row) for row in older]
    await change_state(connection, changes)
    if due := [id_ for ids_ in redriven.due.values() for id_ in ids_]:
        await connection.execute(_NOTE_RINGING, {"ids": due, "seconds": redispatch_seconds})
    await note_uploads(
        connection, by, Action.UPLOAD_REDRIVEN, [*redriven.queued, *redriven.superseded]
    )
    return redriven


def _superseded(row: Row[Any]) -> Change:
    return Change(
        upload_id=row.id,
        source=State(row.state),
        target=State.SUPERSEDED,
        reason=Reason.NEWER_VERSION,
    )


async def get_state(connection: AsyncConnection, upload_id: UUID) -> State | None:
    """The state of an upload whose user is not being erased; None if there is none."""
    state = await connection.scalar(
        select(Upload.state)
        .join(User, (User.id == Upload.user_id) & User.erased_at.is_(None))
        .where(Upload.id == upload_id)
    )
    return State(state) if state is not None else None
