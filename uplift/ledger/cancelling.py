"""Uploads that their owner cancels: they end at once, or when a worker knows if they were sent."""

from collections.abc import Sequence
from enum import StrEnum
from uuid import UUID

from sqlalchemy import case, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.audit import Action, Actor, note_uploads
from uplift.ledger.filters import Filter
from uplift.ledger.parameters import is_among
from uplift.ledger.tables import Upload, User, state_is
from uplift.ledger.transitions import Change, change_state
from uplift.lifecycle import UNFINISHED, Reason, State


class Cancelled(StrEnum):
    """What a request to cancel an upload did."""

    DONE = "done"  # cancelled, now or before
    REQUESTED = "requested"  # a worker has it, or must look it up at 1upHealth first
    TOO_LATE = "too_late"  # it ended in another way


# These wait until 1upHealth works again. All others wait for what was sent to settle, or for a
# limit, and such a wait must not get shorter.
_MAY_END_EARLY = (Reason.RETRY, Reason.HELD)


async def cancel(
    connection: AsyncConnection, ids: Sequence[UUID], *, by: Actor
) -> dict[UUID, Cancelled]:
    """Cancel uploads, or request it; what is not there is missing from the result.

    An upload that was certainly not sent ends at once. One that may have been sent is looked up at
    1upHealth by a worker, and ends as delivered or cancelled. A parked one cannot be looked up
    without a token: it ends at once, and keeps saying that it may be there.
    """
    rows = (
        await connection.execute(
            select(Upload.id, Upload.state, Upload.maybe_sent, Upload.cancel_requested)
            .join(User, (User.id == Upload.user_id) & User.erased_at.is_(None))
            .where(is_among(Upload.id))
            .order_by(Upload.id)
            .with_for_update(of=Upload),
            {"ids": list(ids)},
        )
    ).all()
    responses: dict[UUID, Cancelled] = {}
    changes: list[Change] = []
    asked: list[UUID] = []
    for row in rows:
        state = State(row.state)
        if state is State.PARKED or (state is State.QUEUED and not row.maybe_sent):
            changes.append(_cancelled(row.id, state))
            responses[row.id] = Cancelled.DONE
        elif state in UNFINISHED:
            if not row.cancel_requested:
                asked.append(row.id)
            responses[row.id] = Cancelled.REQUESTED
        else:
            responses[row.id] = Cancelled.DONE if state is State.CANCELLED else Cancelled.TOO_LATE
    await change_state(connection, changes)
    if asked:
        hasten = state_is(Upload.state, State.QUEUED) & Upload.reason.in_(_MAY_END_EARLY)
        await connection.execute(
            update(Upload)
            .where(is_among(Upload.id))
            .values(
                cancel_requested=True,
                next_attempt_at=case(
                    (hasten, func.least(Upload.next_attempt_at, func.now())),
                    else_=Upload.next_attempt_at,
                ),
                revision=Upload.revision + 1,
                updated_at=func.now(),
            ),
            {"ids": asked},
        )
    already = {row.id for row in rows if row.cancel_requested}
    noted = [change.upload_id for change in changes if change.upload_id not in already] + asked
    await note_uploads(connection, by, Action.UPLOAD_CANCELLED, noted)
    return responses


async def cancel_parked(connection: AsyncConnection, *, limit: int) -> set[UUID]:
    """End parked uploads that their owner has asked to cancel.

    A worker that found the grant dead could not look them up, and new consent would not end them.
    """
    rows = await connection.scalars(
        select(Upload.id)
        .where(state_is(Upload.state, State.PARKED), Upload.cancel_requested)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return await change_state(connection, [_cancelled(id_, State.PARKED) for id_ in rows])


def _cancelled(upload_id: UUID, source: State) -> Change:
    return Change(
        upload_id=upload_id,
        source=source,
        target=State.CANCELLED,
        reason=Reason.CANCELLED_BY_OWNER,
    )


async def count(connection: AsyncConnection, matching: Filter) -> int:
    """How many unfinished uploads match."""
    counted = select(func.count(Upload.id)).where(
        state_is(Upload.state, *sorted(UNFINISHED)), *matching.conditions()
    )
    return await connection.scalar(counted) or 0


async def find(
    connection: AsyncConnection, matching: Filter, *, after: UUID | None, limit: int
) -> list[UUID]:
    """Unfinished uploads that match, in the order of acceptance, from the one after `after`."""
    statement = (
        select(Upload.id)
        .where(state_is(Upload.state, *sorted(UNFINISHED)), *matching.conditions())
        .order_by(Upload.id)
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(Upload.id > after)
    return list(await connection.scalars(statement))
