"""Dead letters: uploads that ended without being delivered, and may be sent again."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger import fair_queue
from uplift.ledger.audit import Action, Actor, note_uploads
from uplift.ledger.filters import Filter
from uplift.ledger.locks import lock_records_of
from uplift.ledger.parameters import Rows
from uplift.ledger.tables import Upload, User, state_is
from uplift.ledger.transitions import Change, change_state
from uplift.lifecycle import DEAD_LETTERS, Reason, State


class Left(StrEnum):
    """Why an upload was not redriven."""

    NO_BODY = "no_body"  # its body is not kept any more
    NEWER_MAYBE_SENT = "newer_maybe_sent"  # a newer version may be at 1upHealth, unnoticed
    NOT_DEAD = "not_dead"  # it is not rejected, refused or expired, or not there at all


@dataclass(frozen=True, slots=True, kw_only=True)
class Redriven:
    """What a redrive did with uploads; `due` are those that are due now, by queue."""

    queued: list[UUID] = field(default_factory=list)
    superseded: list[UUID] = field(default_factory=list)
    left: dict[UUID, Left] = field(default_factory=dict)
    due: dict[str, list[UUID]] = field(default_factory=dict)


def _matching(columns: Select[Any], matching: Filter) -> Select[Any]:
    return columns.join(User, (User.id == Upload.user_id) & User.erased_at.is_(None)).where(
        state_is(Upload.state, *sorted(DEAD_LETTERS)), *matching.conditions()
    )


async def count(connection: AsyncConnection, matching: Filter) -> int:
    """How many dead letters match."""
    return await connection.scalar(_matching(select(func.count(Upload.id)), matching)) or 0


async def find(
    connection: AsyncConnection, matching: Filter, *, after: UUID | None, limit: int
) -> list[UUID]:
    """Dead letters that match, the newest first, from the one after `after`.

    The newest version of a record comes first, because it decides about the older ones.
    """
    statement = _matching(select(Upload.id), matching).order_by(Upload.id.desc()).limit(limit)
    if after is not None:
        statement = statement.where(Upload.id < after)
    return list(await connection.scalars(statement))


# `overtaken`: a newer version was delivered, or will be. Or the content that was delivered before
# it came back as the latest, which needed no upload. Or its record joined another one.
_STANDINGS = text("""
    SELECT u.id, u.record_id, u.version, u.state, u.queue, u.maybe_sent,
        t.destination, t.destination <> u.destination AS moves,
        u.sealed_body IS NOT NULL AS kept,
        -- It may have ended while PostgreSQL's clock ran ahead.
        CAST(extract(epoch FROM now() - least(u.updated_at, now())) AS float8) AS rested,
        coalesce(d.version, 0) > u.version OR r.alias_of IS NOT NULL
            OR coalesce(r.latest_upload_id <> u.id AND r.latest_digest = d.digest, false)
            OR EXISTS (SELECT 1 FROM uploads AS n
                       WHERE n.record_id = u.record_id AND n.version > u.version
                           AND n.destination = t.destination
                           AND n.state IN ('queued', 'sending', 'parked')) AS overtaken,
        EXISTS (SELECT 1 FROM uploads AS n
                WHERE n.record_id = u.record_id AND n.version > u.version AND n.maybe_sent
                    AND n.destination = t.destination
                    AND n.state <> 'delivered') AS newer_maybe_sent
    FROM uploads AS u
    JOIN records AS r ON r.id = u.record_id
    JOIN users ON users.id = u.user_id AND users.erased_at IS NULL
    CROSS JOIN LATERAL (
        SELECT CASE WHEN u.maybe_sent THEN u.destination ELSE users.destination END AS destination
    ) AS t
    LEFT JOIN deliveries AS d ON d.record_id = u.record_id AND d.destination = t.destination
    WHERE u.id = ANY(CAST(:ids AS uuid[])) AND u.state IN ('rejected', 'refused', 'expired')
    ORDER BY u.id FOR UPDATE OF u
""")

_MOVES = Rows("moves", id="uuid", destination="text")
_MOVE = _MOVES.statement(
    "UPDATE uploads AS u SET destination = m.destination FROM {moves} AS m"
    " WHERE u.id = ANY ({moves.id}) AND u.id = m.id"
)

_VERSIONS = Rows("versions", record_id="uuid", version="int")

# The states stand in the text for the partial index, as `tables.state_is` explains.
_OLDER_UNSENT = _VERSIONS.statement("""
    SELECT u.id, u.state
    FROM uploads AS u
    JOIN {versions} AS n
        ON u.record_id = n.record_id AND u.version < n.version
    WHERE u.record_id = ANY ({versions.record_id})
        AND u.state IN ('queued', 'parked') AND NOT u.maybe_sent
    ORDER BY u.id FOR UPDATE OF u
""")


async def redrive(
    connection: AsyncConnection,
    ids: Sequence[UUID],
    *,
    settle_seconds: float,
    by: Actor,
) -> Redriven:
    """Reset dead letters: they are due now, get a new time to give up, and are validated again.

    An old version is never sent after a newer one. Where a newer version was delivered or is under
    way, the old one is superseded. Where a newer version ended and may be at 1upHealth, the old one
    is left. Older versions of a redriven upload that nobody has tried to send are superseded by it.
    An upload that may be at 1upHealth keeps saying so, and is due no sooner than `settle_seconds`
    after it ended: a worker looks it up before it sends. What was never sent goes where its user
    has moved meanwhile.
    """
    await lock_records_of(connection, ids)
    rows = (await connection.execute(_STANDINGS, {"ids": list(ids)})).all()
    redriven = Redriven(
        left=dict.fromkeys(set(ids) - {row.id for row in rows}, Left.NOT_DEAD),
    )
    changes: list[Change] = []
    redriven_versions: dict[UUID, int] = {}  # by record
    # The newest version of a record decides about its others.
    for row in sorted(rows, key=lambda row: -row.version):
        if row.overtaken or row.record_id in redriven_versions:
            redriven.superseded.append(row.id)
            changes.append(_superseded(row))
        elif row.newer_maybe_sent:
            redriven.left[row.id] = Left.NEWER_MAYBE_SENT
        elif not row.kept:
            redriven.left[row.id] = Left.NO_BODY
        else:
            redriven_versions[row.record_id] = row.version
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
    if redriven_versions:
        older = await connection.execute(
            _OLDER_UNSENT,
            _VERSIONS.parameter(
                {"record_id": record_id, "version": version}
                for record_id, version in redriven_versions.items()
            ),
        )
        changes += [_superseded(row) for row in older]
    await change_state(connection, changes)
    queued = set(redriven.queued)
    moves = {row.id: row.destination for row in rows if row.moves and row.id in queued}
    if moves:
        await connection.execute(
            _MOVE, _MOVES.parameter({"id": id_, "destination": to} for id_, to in moves.items())
        )
    await fair_queue.tag(connection, [id_ for ids_ in redriven.due.values() for id_ in ids_])
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
