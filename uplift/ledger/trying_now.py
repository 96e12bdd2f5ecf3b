"""Makes uploads due now that wait for a later attempt."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Select, case, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger import fair_queue
from uplift.ledger.audit import Action, Actor, note_uploads
from uplift.ledger.filters import Filter
from uplift.ledger.tables import Upload, User, state_is
from uplift.lifecycle import State


async def find(
    connection: AsyncConnection, matching: Filter, *, after: UUID | None, limit: int
) -> list[UUID]:
    """Queued uploads that match and are not due, the oldest first, from the one after `after`."""
    statement = _waiting(matching).order_by(Upload.id).limit(limit)
    if after is not None:
        statement = statement.where(Upload.id > after)
    return list(await connection.scalars(statement))


async def count(connection: AsyncConnection, matching: Filter) -> int:
    """How many match and are not due."""
    found = _waiting(matching).with_only_columns(func.count())
    return await connection.scalar(found) or 0


async def try_now(
    connection: AsyncConnection, ids: Sequence[UUID], *, settle_seconds: float, by: Actor
) -> list[UUID]:
    """Make these due now; those that are due earlier than before.

    What may be at the destination is not due before `settle_seconds` have passed since its last
    change: until then a look-up proves nothing.
    """
    # Its last change may be from when PostgreSQL's clock ran ahead.
    rested = func.least(Upload.updated_at, func.now()) + timedelta(seconds=settle_seconds)
    earliest = case((Upload.maybe_sent, func.greatest(func.now(), rested)), else_=func.now())
    changed = await connection.scalars(
        update(Upload)
        .where(
            Upload.id.in_(
                select(Upload.id)
                .where(Upload.id.in_(ids), state_is(Upload.state, State.QUEUED))
                .order_by(Upload.id)
                # A locked upload is being changed otherwise; waiting for it could deadlock.
                .with_for_update(skip_locked=True)
                .scalar_subquery()
            ),
            Upload.next_attempt_at > earliest,
        )
        .values(next_attempt_at=earliest, revision=Upload.revision + 1)
        .returning(Upload.id)
    )
    tried = list(changed)
    await fair_queue.tag(connection, tried)
    await note_uploads(connection, by, Action.UPLOAD_TRIED_NOW, tried)
    return tried


def _waiting(matching: Filter) -> Select[tuple[UUID]]:
    return (
        select(Upload.id)
        .join(User, (User.id == Upload.user_id) & User.erased_at.is_(None))
        .where(
            state_is(Upload.state, State.QUEUED),
            Upload.next_attempt_at > func.now(),
            *matching.conditions(),
        )
    )
