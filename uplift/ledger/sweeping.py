"""Uploads as the sweep finds them: past their deadline, or with waits that a clock made longer."""

import time
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.due import is_over
from uplift.ledger.parameters import is_among
from uplift.ledger.pauses import not_paused
from uplift.ledger.tables import Upload, state_is
from uplift.ledger.transitions import Change, change_state
from uplift.lifecycle import Reason, State


@dataclass(frozen=True, slots=True, kw_only=True)
class LongestWaits:
    """How long an upload may wait at most, in seconds. A longer wait is from a clock that jumped.

    `settling` is after an unknown outcome. Until its backoff is longer, which begins with
    `backoff_first` and doubles with each attempt, it waits no longer.
    """

    lease: float
    settling: float
    backoff_first: float
    max_backoff: float
    other: float


_CAP = text("""
    WITH longest AS (
        SELECT id, CASE WHEN reason IN ('settling', 'lease_expired', 'redriven')
            THEN greatest(
                :settling, least(:max_backoff, :backoff_first * power(2, least(attempts, 60) - 1))
            )
            ELSE :other END AS seconds
        FROM uploads
        WHERE state = 'queued' AND finish_tag IS NULL
            AND next_attempt_at > now() + make_interval(secs => :settling)
    ), waiting AS (
        SELECT u.id FROM uploads AS u JOIN longest AS l USING (id)
        WHERE u.next_attempt_at > now() + make_interval(secs => l.seconds)
        LIMIT :limit FOR UPDATE OF u SKIP LOCKED
    )
    UPDATE uploads AS u
    SET next_attempt_at = now() + make_interval(secs => :settling / 2)
    FROM waiting WHERE u.id = waiting.id
""")

_CAP_LEASES = text("""
    UPDATE uploads SET
        lease_until = now() + make_interval(secs => :lease),
        attempt_until = least(attempt_until, now() + make_interval(secs => :lease))
    WHERE id IN (
        SELECT id FROM uploads
        WHERE state = 'sending' AND lease_until > now() + make_interval(secs => :lease)
        LIMIT :limit FOR UPDATE SKIP LOCKED
    )
""")

_CAP_DOUBTS = text("""
    UPDATE deliveries SET in_doubt_until = now() + make_interval(secs => :settling / 2)
    WHERE (record_id, destination) IN (
        SELECT record_id, destination FROM deliveries
        WHERE in_doubt_until > now() + make_interval(secs => :settling)
        LIMIT :limit FOR UPDATE SKIP LOCKED
    )
""")

_CAP_DELETIONS = text("""
    UPDATE upstream_deletions SET due_at = now()
    WHERE (user_id, destination, key) IN (
        SELECT user_id, destination, key FROM upstream_deletions
        WHERE due_at > now() + make_interval(secs => :other)
        LIMIT :limit FOR UPDATE SKIP LOCKED
    )
""")


async def cap_waits(connection: AsyncConnection, longest: LongestWaits, *, limit: int) -> int:
    """Shorten waits and leases that are longer than any can be; how many.

    PostgreSQL's clock ran ahead when they began. How much of the wait has passed nobody knows, so
    an upload that settles settles again, and what waits for an older version of its record.
    """
    values = {**asdict(longest), "limit": limit}
    capped = 0
    for statement in (_CAP, _CAP_LEASES, _CAP_DOUBTS, _CAP_DELETIONS):
        capped += (await connection.execute(statement, values)).rowcount
    return capped


async def ledger_clock(connection: AsyncConnection) -> float:
    """PostgreSQL's clock now, in seconds since 1970."""
    now = await connection.scalar(text("SELECT extract(epoch FROM clock_timestamp())::float8"))
    return float(now)


async def expire_past_deadline(
    connection: AsyncConnection, destination: str, *, limit: int, stalled_seconds: float = 0.0
) -> set[UUID]:
    """End uploads for a destination whose time to give up has come, unless they may be there and
    can be looked up.

    A worker claims those once more: it looks them up, and then ends them. Nothing expires while it
    is paused. For `stalled_seconds` nothing could be sent, and the uploads did not get that time
    back yet.
    """
    rows = await connection.execute(
        select(Upload.id, Upload.state)
        .where(
            state_is(Upload.state, State.PARKED)
            | (state_is(Upload.state, State.QUEUED) & Upload.maybe_sent.is_(False)),
            Upload.destination == destination,
            is_over(stalled_seconds, time.time()),
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
    destination: str,
    *,
    seconds: float,
    limit: int,
    before: tuple[datetime, UUID] | None = None,
) -> tuple[datetime, UUID] | None:
    """Move the time to give up of what is queued for a destination by so many seconds, in portions.

    Those with the most time come first. Each call goes on at `before`, which the last one returned,
    until that is None.
    """
    key = tuple_(Upload.give_up_at, Upload.id)
    portion = (
        select(Upload.id, Upload.give_up_at)
        .where(
            state_is(Upload.state, State.QUEUED),
            Upload.destination == destination,
            Upload.give_up_at.is_not(None),
        )
        .order_by(Upload.give_up_at.desc(), Upload.id.desc())
        .limit(limit)
        # Who has locked a row now is sending it, so it does not wait.
        .with_for_update(skip_locked=True)
    )
    if before is not None:
        # What was moved is past `before`, so no call moves it again.
        portion = portion.where(key < before)
    rows = (await connection.execute(portion)).all()
    if not rows:
        return None
    await connection.execute(
        update(Upload)
        .where(is_among(Upload.id))
        .values(give_up_at=Upload.give_up_at + func.make_interval(0, 0, 0, 0, 0, 0, seconds)),
        {"ids": [row.id for row in rows]},
    )
    return rows[-1].give_up_at, rows[-1].id
