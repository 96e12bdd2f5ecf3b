"""Pauses, of one user or of everybody: nothing of theirs is claimed, dispatched or expired."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from uplift.ledger.audit import Action, Actor, note
from uplift.ledger.tables import Pause, Upload, User


@dataclass(frozen=True, slots=True)
class PauseRow:
    """A pause of the user of that name, or of everybody; and since when."""

    app_user_id: str | None
    since: datetime


def not_paused(upload: Any = Upload) -> ColumnElement[bool]:
    """Whether neither everybody nor the upload's user is paused: a condition on `Upload`."""
    # The first of two questions has one answer for all rows, so PostgreSQL asks it once.
    of_user = select(Pause.id).where(Pause.user_id == upload.user_id).exists()
    return nobody_paused_all() & ~of_user


def nobody_paused_all() -> ColumnElement[bool]:
    """Whether there is no pause of everybody."""
    return ~select(Pause.id).where(Pause.user_id.is_(None)).exists()


async def pause(connection: AsyncConnection, user_id: UUID | None, *, by: Actor) -> datetime:
    """Pause a user, or everybody; returns since when. A pause that is there already goes on."""
    new = uuid7()
    adding = insert(Pause).values(id=new, user_id=user_id)
    row = (
        await connection.execute(
            # Changes nothing, but locks the pause that is there and returns it.
            adding.on_conflict_do_update(
                index_elements=[Pause.user_id], set_={"user_id": adding.excluded.user_id}
            ).returning(Pause.id, Pause.since)
        )
    ).one()
    if row.id == new:
        await note(connection, by, Action.PAUSED, user_id=user_id)
    since: datetime = row.since
    return since


_MOVE_OF_ALL = text("""
    UPDATE uploads AS u
    SET give_up_at = u.give_up_at
        + greatest(interval '0', coalesce(p.since, now()) - CAST(:since AS timestamptz))
    FROM (
        SELECT id, user_id FROM uploads
        WHERE state = 'queued' AND give_up_at IS NOT NULL
        ORDER BY id FOR UPDATE
    ) AS q
    LEFT JOIN pauses AS p ON p.user_id = q.user_id
    WHERE u.id = q.id
""")

_MOVE_OF_USER = text("""
    UPDATE uploads AS u
    SET give_up_at = u.give_up_at + greatest(interval '0',
        coalesce((SELECT since FROM pauses WHERE user_id IS NULL), now())
        - CAST(:since AS timestamptz))
    FROM (
        SELECT id FROM uploads
        WHERE user_id = :user_id AND state = 'queued' AND give_up_at IS NOT NULL
        ORDER BY id FOR UPDATE
    ) AS q
    WHERE u.id = q.id
""")

_MOVING_TIMEOUT = text("SET LOCAL statement_timeout = '10min'")


async def resume(connection: AsyncConnection, user_id: UUID | None, *, by: Actor) -> bool:
    """End a pause of a user, or of everybody; False if there was none.

    The time to give up stood still, so it moves by the pause's length. Where a user's pause and
    everybody's overlap, it moves by the length of both together: each counts the time before the
    other began, and the one that ends last counts the rest. All of it is one transaction with the
    end of the pause: nothing can expire or be claimed before its time to give up is right, and a
    resume that fails has changed nothing. Only what was tried before has such a time; nobody claims
    it during the pause, so the row locks keep no worker waiting.

    The time to give up of parked uploads does not stand still: the person may consent at any time.
    """
    # All pauses, so that two that end at once count their common time one after the other.
    rows = (await connection.execute(select(Pause).order_by(Pause.id).with_for_update())).all()
    ended = next((row for row in rows if row.user_id == user_id), None)
    if ended is None:
        return False
    await connection.execute(_MOVING_TIMEOUT)
    if user_id is None:
        await connection.execute(_MOVE_OF_ALL, {"since": ended.since})
    else:
        await connection.execute(_MOVE_OF_USER, {"since": ended.since, "user_id": user_id})
    await connection.execute(delete(Pause).where(Pause.id == ended.id))
    await note(connection, by, Action.RESUMED, user_id=user_id)
    return True


async def list_pauses(connection: AsyncConnection) -> list[PauseRow]:
    """All pauses, the oldest first. Made by hand, so they are few."""
    rows = await connection.execute(
        select(User.app_user_id, Pause.since)
        .select_from(Pause)
        .outerjoin(User, User.id == Pause.user_id)
        .where(Pause.user_id.is_(None) | User.erased_at.is_(None))
        .order_by(Pause.since, Pause.id)
    )
    return [PauseRow(row.app_user_id, row.since) for row in rows]


def is_paused() -> ColumnElement[bool]:
    """Whether a user is paused, by name or with everybody: a condition on `User`."""
    return select(Pause.id).where(Pause.user_id.is_(None) | (Pause.user_id == User.id)).exists()
