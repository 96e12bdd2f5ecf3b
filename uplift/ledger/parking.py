"""Uploads that wait for a person or for a token: parks and releases them, and makes them due."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.tables import Grant, Upload, state_is
from uplift.ledger.transitions import Change, change_state
from uplift.lifecycle import Reason, State


async def park_waiting(
    connection: AsyncConnection, user_id: UUID, *, destinations: Collection[str], clock: float
) -> set[UUID]:
    """Park what a user has queued for these destinations: the grant is dead, and they want one.

    It gives up after `clock` seconds.
    """
    rows = await connection.execute(
        select(Upload.id)
        .where(
            Upload.user_id == user_id,
            state_is(Upload.state, State.QUEUED),
            Upload.destination.in_(destinations),
            # An upload that 1upHealth may be storing now is parked by its next attempt. If it were
            # parked here and released at once, it would be looked up too early.
            ~(Upload.maybe_sent & (Upload.next_attempt_at > func.now())),
        )
        .order_by(Upload.id)
        .with_for_update()
    )
    return await change_state(
        connection,
        [
            Change(
                upload_id=id_,
                source=State.QUEUED,
                target=State.PARKED,
                reason=Reason.NEEDS_AUTHORIZATION,
                clock=clock,
            )
            for id_ in rows.scalars()
        ],
    )


async def release_parked(connection: AsyncConnection, user_id: UUID) -> set[UUID]:
    """Queue all parked uploads of a user, because there is a new grant."""
    rows = await connection.execute(
        select(Upload.id)
        .where(Upload.user_id == user_id, state_is(Upload.state, State.PARKED))
        .order_by(Upload.id)
        .with_for_update()
    )
    return await _release(connection, list(rows.scalars()))


async def release_authorized(connection: AsyncConnection, *, limit: int) -> set[UUID]:
    """Queue uploads that are parked although their user's grant works.

    An attempt with the old grant may park its upload just after the new grant released the others.
    """
    rows = await connection.execute(
        select(Upload.id)
        .join(Grant, (Grant.user_id == Upload.user_id) & (Grant.state == "active"))
        .where(state_is(Upload.state, State.PARKED))
        .limit(limit)
        .with_for_update(of=Upload, skip_locked=True)
    )
    return await _release(connection, list(rows.scalars()))


_FOR_A_TOKEN = (Reason.AWAITING_TOKEN, Reason.NO_TOKEN)


async def end_waits_for_token(connection: AsyncConnection, user_id: UUID) -> None:
    """Make a user's uploads due that wait only for a token: there is one now."""
    waiting = (
        select(Upload.id)
        .where(
            Upload.user_id == user_id,
            state_is(Upload.state, State.QUEUED),
            Upload.reason.in_(_FOR_A_TOKEN),
            Upload.next_attempt_at > func.now(),
        )
        .order_by(Upload.id)
        # A locked upload is being changed otherwise; waiting for it could deadlock.
        .with_for_update(skip_locked=True)
    )
    await connection.execute(
        update(Upload)
        .where(Upload.id.in_(waiting.scalar_subquery()))
        .values(
            next_attempt_at=func.now(),
            revision=Upload.revision + 1,
            updated_at=func.now(),
        )
    )


async def _release(connection: AsyncConnection, ids: list[UUID]) -> set[UUID]:
    return await change_state(
        connection,
        [
            Change(
                upload_id=id_,
                source=State.PARKED,
                target=State.QUEUED,
                reason=Reason.RELEASED,
            )
            for id_ in ids
        ],
    )
