"""What is unfinished: how much of it in which state, and since when it is due."""

from dataclasses import dataclass

from sqlalchemy import distinct, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.pauses import not_paused
from uplift.ledger.tables import Pause, Upload, state_is
from uplift.lifecycle import UNFINISHED, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The unfinished uploads of one queue that are in one state for one reason.

    `due` of them should be claimed now, the longest since `due_seconds`; none that are paused.
    """

    queue: str
    state: str
    reason: str | None
    uploads: int
    due: int
    due_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """All that is unfinished, the users with parked uploads, and the pauses."""

    waiting: tuple[Waiting, ...]
    users_parked: int
    all_paused: bool
    users_paused: int


async def backlog(connection: AsyncConnection) -> Backlog:
    """As of now, by the database's clock. Its cost is that of the unfinished, never of history."""
    is_due = (
        state_is(Upload.state, State.QUEUED) & (Upload.next_attempt_at <= func.now()) & not_paused()
    )
    since = func.extract("epoch", func.now() - func.min(Upload.next_attempt_at).filter(is_due))
    waiting = await connection.execute(
        select(
            Upload.queue,
            Upload.state,
            Upload.reason,
            func.count().label("uploads"),
            func.count().filter(is_due).label("due"),
            func.coalesce(since, 0).label("due_seconds"),
        )
        .where(state_is(Upload.state, *sorted(UNFINISHED)))
        .group_by(Upload.queue, Upload.state, Upload.reason)
    )
    users_parked = await connection.scalar(
        select(func.count(distinct(Upload.user_id))).where(state_is(Upload.state, State.PARKED))
    )
    paused = (
        await connection.execute(
            select(func.count().filter(Pause.user_id.is_(None)), func.count(Pause.user_id))
        )
    ).one()
    return Backlog(
        waiting=tuple(
            Waiting(
                queue=row.queue,
                state=row.state,
                reason=row.reason,
                uploads=row.uploads,
                due=row.due,
                due_seconds=float(row.due_seconds),
            )
            for row in waiting
        ),
        users_parked=users_parked or 0,
        all_paused=paused[0] > 0,
        users_paused=paused[1],
    )
