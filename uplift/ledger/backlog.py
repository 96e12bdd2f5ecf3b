"""The backlog: what is unfinished, what of it is due, and what nobody took although it was due."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, SQLColumnExpression, distinct, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.due import is_due
from uplift.ledger.pauses import not_paused
from uplift.ledger.tables import Pause, Upload, state_is
from uplift.lifecycle import UNFINISHED, Reason, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The unfinished uploads of one queue that are in one state for one reason.

    `due` of them are due and not paused, the first of them since `due_seconds`.
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

    @property
    def held(self) -> int:
        """How many uploads are held: a response blamed the deployment."""
        return sum(each.uploads for each in self.waiting if each.reason == Reason.HELD)


async def backlog(connection: AsyncConnection) -> Backlog:
    """The backlog as of now, by the database's clock. It reads the unfinished, never history."""
    due = (
        state_is(Upload.state, State.QUEUED) & (Upload.next_attempt_at <= func.now()) & not_paused()
    )
    since = func.extract("epoch", func.now() - func.min(Upload.next_attempt_at).filter(due))
    waiting = await connection.execute(
        select(
            Upload.queue,
            Upload.state,
            Upload.reason,
            func.count().label("uploads"),
            func.count().filter(due).label("due"),
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


@dataclass(frozen=True, slots=True)
class Overdue:
    """How many uploads may be claimed and how many leases ran out, and since when, in seconds.

    What is paused, or waits for an older version of its record, may not be claimed.
    """

    due: int
    due_seconds: float
    abandoned: int
    abandoned_seconds: float


async def overdue(connection: AsyncConnection) -> Overdue:
    """What workers or the sweep should have taken by now: if it is old, none of them works."""

    def since(column: SQLColumnExpression[datetime | None]) -> ColumnElement[float]:
        return func.coalesce(func.extract("epoch", func.now() - func.min(column)), 0)

    due = (
        await connection.execute(
            select(func.count(), since(Upload.next_attempt_at)).where(*is_due(Upload.state))
        )
    ).one()
    abandoned = (
        await connection.execute(
            select(func.count(), since(Upload.lease_until)).where(
                state_is(Upload.state, State.SENDING), Upload.lease_until <= func.now()
            )
        )
    ).one()
    return Overdue(due[0], float(due[1]), abandoned[0], float(abandoned[1]))


@dataclass(frozen=True, slots=True)
class Amount:
    """So many uploads, and the bytes of their bodies."""

    uploads: int = 0
    body_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What one user has waiting to be sent, and parked."""

    app_user_id: str
    queued: Amount
    parked: Amount


@dataclass(frozen=True, slots=True)
class Load:
    """What waits to be sent, of everybody, and the users who have much."""

    queued: Amount
    users: tuple[Held, ...]


# By user, as the indexes have them. The states stand in the text for the partial indexes, as
# `tables.state_is` explains.
_LOAD = text("""
    WITH by_user AS MATERIALIZED (
        SELECT user_id, count(*) AS queued, sum(body_bytes) AS queued_bytes,
            0 AS parked, 0 AS parked_bytes
        FROM uploads WHERE state = 'queued' GROUP BY user_id
        UNION ALL
        SELECT user_id, 0, 0, count(*), sum(body_bytes)
        FROM uploads WHERE state = 'parked' GROUP BY user_id
    ), much AS (
        SELECT user_id, sum(queued) AS queued, sum(queued_bytes) AS queued_bytes,
            sum(parked) AS parked, sum(parked_bytes) AS parked_bytes
        FROM by_user GROUP BY user_id
        HAVING sum(queued + parked) >= :uploads OR sum(queued_bytes + parked_bytes) >= :body_bytes
    )
    SELECT NULL AS app_user_id, coalesce(sum(queued), 0) AS queued,
        coalesce(sum(queued_bytes), 0) AS queued_bytes, 0 AS parked, 0 AS parked_bytes
    FROM by_user
    UNION ALL
    SELECT users.app_user_id, queued, queued_bytes, parked, parked_bytes
    FROM much JOIN users ON users.id = much.user_id AND users.erased_at IS NULL
""")


async def load(connection: AsyncConnection, *, much: Amount) -> Load:
    """What waits, and of whom it is as much as `much` or more, in uploads or in bytes."""
    rows = await connection.execute(_LOAD, {"uploads": much.uploads, "body_bytes": much.body_bytes})
    whole = Amount()
    users = []
    for row in rows:
        queued = Amount(int(row.queued), int(row.queued_bytes))
        if row.app_user_id is None:
            whole = queued
        else:
            parked = Amount(int(row.parked), int(row.parked_bytes))
            users.append(Held(app_user_id=row.app_user_id, queued=queued, parked=parked))
    return Load(whole, tuple(users))


@dataclass(frozen=True, slots=True, kw_only=True)
class OfUser:
    """What of a user is unfinished. The first that is due, by the time only, is since
    `due_seconds`."""

    app_user_id: str
    due: int
    due_seconds: float
    queued: int
    sending: int
    parked: int
    body_bytes: int


_BY_USER = text("""
    WITH by_user AS (
        SELECT user_id, count(*) AS uploads, sum(body_bytes) AS body_bytes,
            count(*) FILTER (WHERE state = 'queued') AS queued,
            count(*) FILTER (WHERE state = 'sending') AS sending,
            count(*) FILTER (WHERE state = 'parked') AS parked,
            count(*) FILTER (WHERE next_attempt_at <= now()) AS due,
            greatest(extract(epoch FROM now() - min(next_attempt_at)), 0) AS due_seconds
        FROM uploads WHERE state IN ('parked', 'queued', 'sending')
        GROUP BY user_id
    )
    SELECT users.app_user_id, by_user.*
    FROM by_user JOIN users ON users.id = by_user.user_id AND users.erased_at IS NULL
    ORDER BY by_user.uploads DESC, users.app_user_id LIMIT :limit
""")


async def by_user(connection: AsyncConnection, *, limit: int) -> list[OfUser]:
    """Who has something unfinished, who has most first."""
    return [
        OfUser(
            app_user_id=row.app_user_id,
            due=row.due,
            due_seconds=float(row.due_seconds or 0),
            queued=row.queued,
            sending=row.sending,
            parked=row.parked,
            body_bytes=int(row.body_bytes),
        )
        for row in await connection.execute(_BY_USER, {"limit": limit})
    ]
