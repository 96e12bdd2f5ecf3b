"""Uploads as the sweep finds them: due and not rung for, abandoned, or out of time."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Select, func, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.leases import is_due, is_over
from uplift.ledger.pauses import not_paused
from uplift.ledger.tables import Attempt, Upload, state_is
from uplift.ledger.transitions import Change, change_state
from uplift.lifecycle import REFUSED_AFTER, Reason, State


async def find_due(
    connection: AsyncConnection,
    *,
    queue: str,
    limit: int,
    redispatch_seconds: float,
    anywhere: bool = False,
) -> list[UUID]:
    """Due uploads of a queue that no bell has rung for lately; notes that it rings now.

    Those that have been due longest come first. With `anywhere`, those that came due last before a
    random time since then: many of one user, due at one time, do not stand before all others.
    """
    due = (
        select(Upload.id)
        .where(
            Upload.queue == queue,
            *is_due(Upload.state),
            func.coalesce(Upload.dispatched_until, text("'-infinity'")) <= func.now(),
        )
        .order_by(Upload.next_attempt_at)
        .limit(limit)
        .with_for_update(of=Upload, skip_locked=True)
    )
    if anywhere:
        first = func.min(Upload.next_attempt_at)
        moment = select(first + func.random() * (func.now() - first)).where(
            Upload.queue == queue, state_is(Upload.state, State.QUEUED)
        )
        due = (
            due.where(Upload.next_attempt_at <= moment.scalar_subquery())
            .order_by(None)
            .order_by(Upload.next_attempt_at.desc())
        )
    rows = await connection.execute(
        update(Upload)
        .where(Upload.id.in_(due.scalar_subquery()))
        .values(
            dispatched_until=func.now() + func.make_interval(0, 0, 0, 0, 0, 0, redispatch_seconds)
        )
        .returning(Upload.id)
    )
    return sorted(rows.scalars())


async def requeue_expired_leases(
    connection: AsyncConnection, *, limit: int, delay: float
) -> set[UUID]:
    """Queue uploads whose lease ran out again, to be asked about after `delay` seconds."""
    rows = await connection.execute(
        _abandoned(limit).where(Upload.crashes < REFUSED_AFTER - 1).order_by(Upload.lease_until)
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
                # It may have been a second send, of which nobody can tell any more.
                possible_duplicate=True if row.attempted_before else None,
            )
            for row in rows
        ],
    )


async def refuse_crashing(connection: AsyncConnection, *, limit: int) -> set[UUID]:
    """End uploads of which too many leases ran out, one after the other, before another worker
    takes them up."""
    rows = await connection.execute(
        _abandoned(limit).where(Upload.crashes >= REFUSED_AFTER - 1).order_by(Upload.lease_until)
    )
    return await change_state(
        connection,
        [
            Change(
                upload_id=row.id,
                source=State.SENDING,
                target=State.REFUSED,
                reason=Reason.CRASHES_WORKER,
                lease_id=row.lease_id,
                crashed=True,
                possible_duplicate=True,
            )
            for row in rows
        ],
    )


def _abandoned(limit: int) -> Select[tuple[UUID, UUID | None, bool]]:
    # By its history: a redrive counts its attempts anew.
    before = select(1).where(Attempt.upload_id == Upload.id, Attempt.lease_id != Upload.lease_id)
    return (
        select(Upload.id, Upload.lease_id, before.exists().label("attempted_before"))
        .where(state_is(Upload.state, State.SENDING), Upload.lease_until < func.now())
        .limit(limit)
        .with_for_update(skip_locked=True)
    )


async def expire_past_deadline(
    connection: AsyncConnection, *, limit: int, stalled_seconds: float = 0.0
) -> set[UUID]:
    """End uploads whose time is up, but for those that may be upstream and can be asked about.

    Those a worker claims once more: it looks, and then ends them. Nothing expires while it is
    paused; `stalled_seconds` is for how many seconds nothing was sent that they did not get back yet.
    """
    rows = await connection.execute(
        select(Upload.id, Upload.state)
        .where(
            state_is(Upload.state, State.PARKED)
            | (state_is(Upload.state, State.QUEUED) & Upload.maybe_sent.is_(False)),
            is_over(stalled_seconds),
            not_paused(),
        )
        .limit(limit)
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


async def credit_stalled_time(
    connection: AsyncConnection,
    *,
    seconds: float,
    limit: int,
    before: tuple[datetime, UUID] | None = None,
) -> tuple[datetime, UUID] | None:
    """Let queued uploads give up so much later, in portions, those with the most time first.

    Each call goes on with what it is told the last one returned, until that is None.
    """
    key = tuple_(Upload.give_up_at, Upload.id)
    portion = (
        select(Upload.id, Upload.give_up_at)
        .where(state_is(Upload.state, State.QUEUED), Upload.give_up_at.is_not(None))
        .order_by(Upload.give_up_at.desc(), Upload.id.desc())
        .limit(limit)
        # Who holds a row now sends it: it does not wait.
        .with_for_update(skip_locked=True)
    )
    if before is not None:
        # What moved is behind the cursor, where nobody looks again.
        portion = portion.where(key < before)
    rows = (await connection.execute(portion)).all()
    if not rows:
        return None
    await connection.execute(
        update(Upload)
        .where(Upload.id.in_([row.id for row in rows]))
        .values(give_up_at=Upload.give_up_at + func.make_interval(0, 0, 0, 0, 0, 0, seconds))
    )
    return rows[-1].give_up_at, rows[-1].id
