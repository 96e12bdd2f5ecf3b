"""Uploads as the sweep finds them: due and not rung for, abandoned, or out of time."""

from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from relay.ledger.changes import Change, change_state
from relay.ledger.tables import Upload, state_is
from relay.ledger.work import is_due
from relay.lifecycle import Reason, State


async def ring_due(
    connection: AsyncConnection, *, queue: str, most: int, ring_seconds: float
) -> list[UUID]:
    """Due uploads of a queue that no bell has rung for lately; notes that it rings now."""
    due = (
        select(Upload.id)
        .where(
            Upload.queue == queue,
            *is_due(Upload.state),
            func.coalesce(Upload.rung_until, text("'-infinity'")) <= func.now(),
        )
        .order_by(Upload.next_attempt_at)
        .limit(most)
        .with_for_update(of=Upload, skip_locked=True)
    )
    rows = await connection.execute(
        update(Upload)
        .where(Upload.id.in_(due.scalar_subquery()))
        .values(rung_until=func.now() + func.make_interval(0, 0, 0, 0, 0, 0, ring_seconds))
        .returning(Upload.id)
    )
    return sorted(rows.scalars())


async def recover_abandoned(connection: AsyncConnection, *, most: int, delay: float) -> set[UUID]:
    """Queue uploads whose lease ran out again, to be asked about after `delay` seconds."""
    rows = await connection.execute(
        select(Upload.id, Upload.lease_id)
        .where(state_is(Upload.state, State.SENDING), Upload.lease_until < func.now())
        .order_by(Upload.lease_until)
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    return await change_state(
        connection,
        [
            Change(
                upload_id=row.id,
                source=State.SENDING,
                target=State.QUEUED,
                reason=Reason.RECOVERED,
                lease_id=row.lease_id,
                delay=delay,
                crashed=True,
            )
            for row in rows
        ],
    )


async def expire_outlived(connection: AsyncConnection, *, most: int) -> set[UUID]:
    """End uploads whose time is up, but for those that may be upstream and can be asked about.

    Those a worker claims once more: it looks, and then ends them.
    """
    rows = await connection.execute(
        select(Upload.id, Upload.state)
        .where(
            state_is(Upload.state, State.PARKED)
            | (state_is(Upload.state, State.QUEUED) & Upload.maybe_sent.is_(False)),
            Upload.give_up_at <= func.now(),
        )
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    return await change_state(
        connection,
        [
            Change(
                upload_id=row.id,
                source=State(row.state),
                target=State.EXPIRED,
                reason=Reason.GAVE_UP,
            )
            for row in rows
        ],
    )
