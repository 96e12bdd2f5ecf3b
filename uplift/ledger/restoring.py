"""A ledger that went back in time: by a restore, or by a failover that lost the last commits.

Uploads that it has as not sent may have been sent since then, and so may uploads that it lost.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.tables import Grant, Restore, Upload, User, state_is
from uplift.lifecycle import State

FIRST = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Marked:
    """What a step marked; `last` is where to go on, None if it was the last step."""

    last: UUID | None
    unfinished: int = 0
    ended: int = 0
    locked: int = 0


async def note_restore(
    connection: AsyncConnection, since: datetime, *, look_seconds: float, settle_seconds: float
) -> datetime:
    """Note that the ledger went back to `since`: for so many seconds, what is put in may be at
    1upHealth already, and for `settle_seconds` it may be on its way there.

    Returns until when. If that was noted before, it is only made later. Every user gets another
    sync token: devices have moved on past what the ledger knows.
    """
    until = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, look_seconds)
    settled = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, settle_seconds)
    await connection.execute(update(User).values(sync_token=func.gen_random_uuid()))
    row = await connection.execute(
        insert(Restore)
        .values(since=since, look_until=until, settled_at=settled)
        .on_conflict_do_update(
            index_elements=[Restore.since],
            set_={
                "look_until": func.greatest(Restore.look_until, until),
                "settled_at": func.greatest(Restore.settled_at, settled),
            },
        )
        .returning(Restore.look_until)
    )
    return row.scalar_one()


async def is_in_the_future(connection: AsyncConnection, since: datetime) -> bool:
    """Whether the time is still to come, by the database's clock."""
    return bool(await connection.scalar(select(func.now() < since)))


# Queued uploads wait until everything sent before the ledger went back had time to arrive. Uploads
# that ended with their body are marked too: they can be redriven, and later versions of their
# records look for them. The claim marks what a worker has. Locked rows are counted, for another
# pass.
_MARK = text("""
    WITH walked AS (
        SELECT id FROM uploads
        WHERE id > :after AND (state IN ('queued', 'parked') OR (
            state IN ('rejected', 'refused', 'expired')
            AND sealed_body IS NOT NULL AND NOT maybe_sent))
        ORDER BY id LIMIT :limit
    ), free AS (
        SELECT u.id, u.state IN ('queued', 'parked') AS unfinished, u.state = 'queued' AS queued
        FROM uploads AS u JOIN walked USING (id)
        WHERE u.state NOT IN ('delivered', 'sending', 'cancelled', 'superseded')
        ORDER BY u.id FOR UPDATE OF u SKIP LOCKED
    ), marked AS (
        UPDATE uploads AS u SET
            maybe_sent = true,
            -- What was in doubt before the ledger went back stays so.
            maybe_lost = NOT u.maybe_sent OR u.maybe_lost,
            restored = true,
            empty_searches = 0,
            finish_tag = NULL,
            revision = u.revision + 1,
            reason = CASE WHEN free.queued THEN 'restored' ELSE u.reason END,
            next_attempt_at = CASE WHEN free.queued THEN greatest(
                u.next_attempt_at, now() + make_interval(secs => :settle)) END,
            updated_at = CASE WHEN free.unfinished THEN now() ELSE u.updated_at END
        FROM free WHERE u.id = free.id
        RETURNING free.unfinished
    )
    SELECT (SELECT id FROM walked ORDER BY id DESC LIMIT 1) AS last,
        (SELECT count(*) FROM walked) AS walked,
        count(*) FILTER (WHERE unfinished) AS unfinished,
        count(*) FILTER (WHERE NOT unfinished) AS ended
    FROM marked
""")


async def mark_some(
    connection: AsyncConnection, *, after: UUID, limit: int, settle_seconds: float
) -> Marked:
    """Mark up to `limit` undelivered uploads after that id as maybe sent, and restored."""
    row = (
        await connection.execute(_MARK, {"after": after, "limit": limit, "settle": settle_seconds})
    ).one()
    return Marked(
        last=row.last if row.walked == limit else None,
        unfinished=row.unfinished,
        ended=row.ended,
        locked=row.walked - row.unfinished - row.ended,
    )


async def mark_leased(connection: AsyncConnection) -> None:
    """Mark what workers have a lease of as restored. Their claims marked it as maybe sent."""
    await connection.execute(
        update(Upload).where(state_is(Upload.state, State.SENDING)).values(restored=True)
    )


async def count_unfinished(connection: AsyncConnection) -> int:
    """How many uploads are to be marked, without those that can be redriven."""
    return (
        await connection.scalar(
            select(func.count())
            .select_from(Upload)
            .where(state_is(Upload.state, State.QUEUED, State.PARKED))
        )
    ) or 0


async def count_grants(connection: AsyncConnection) -> tuple[int, int]:
    """How many grants work: those that Uplift obtained, and those that the backend brought."""
    rows = await connection.execute(
        select(Grant.origin, func.count().label("grants"))
        .where(Grant.state == "active")
        .group_by(Grant.origin)
    )
    counted: dict[str, int] = {row.origin: row.grants for row in rows}
    return counted.get("user_management", 0), counted.get("backend", 0)
