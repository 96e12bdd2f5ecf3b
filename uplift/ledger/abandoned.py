"""Uploads whose worker vanished: their lease ran out, or the process that has the lease ended, or
it was not heard of for so long that it sends nothing more.

A silent process may only stand still. What it has sent may arrive until the deadline of its
attempt, which is on the upload's row. What a process sent that has ended, it sent before its end.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.put_order import note_in_doubt, supersede_overtaken
from uplift.ledger.transitions import Change, change_state
from uplift.lifecycle import REFUSED_AFTER_CRASHES_ALONE, Reason, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What shows that a worker vanished, beside the end that is noted of its process.

    `leases_count`: a lease that ran out does. So does a silence of `silence_seconds` while the
    ledger's clock, in seconds since 1970, shows less than `silence_counts_until`; if that is None,
    no silence does.
    """

    leases_count: bool
    silence_seconds: float
    silence_counts_until: float | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """The uploads that were taken from vanished workers."""

    queued: set[UUID]
    refused: set[UUID]


# The silence is judged in the same statement as the time until which it counts: between two, the
# server may stand still, and then every process was silent.
_ABANDONED = text("""
    SELECT u.id, u.lease_id, u.crashes_alone,
        p.ended_at IS NOT NULL AS ended,
        -- Not if it ended by itself, nor if it lives and lost this lease only.
        coalesce(
            CASE WHEN p.ended_at IS NOT NULL THEN p.crashed
                ELSE p.heartbeat_at < now() - make_interval(secs => :silence) END,
            true
        ) AS crashed,
        p.id IS NOT NULL AND NOT EXISTS (
            SELECT FROM uploads AS o
            WHERE o.state = 'sending' AND o.process_id = p.id AND o.id <> u.id
        ) AS alone,
        -- By its history, since a redrive resets the count of its attempts.
        EXISTS (
            SELECT FROM attempts AS a WHERE a.upload_id = u.id AND a.lease_id <> u.lease_id
        ) AS attempted_before,
        -- Where Uplift derives ids, a second send makes no second resource.
        NOT EXISTS (
            SELECT FROM destinations AS d
            WHERE d.name = u.destination AND d.address->>'mode' <> 'oneup'
        ) AS doubles,
        extract(epoch FROM u.attempt_until - now())::float8 AS open_seconds, u.maybe_sent
    FROM uploads AS u LEFT JOIN processes AS p ON p.id = u.process_id
    WHERE u.state = 'sending' AND (
        p.ended_at IS NOT NULL
        OR (:leases_count AND u.lease_until < now())
        OR (p.heartbeat_at < now() - make_interval(secs => :silence)
            AND now() < to_timestamp(:silence_counts_until))
    )
    ORDER BY u.lease_until LIMIT :limit
    FOR UPDATE OF u SKIP LOCKED
""")


async def take_abandoned(
    connection: AsyncConnection, signs: Signs, *, limit: int, settle_seconds: float
) -> Taken:
    """Take what vanished workers had. It is queued, and looked up `settle_seconds` after the last
    moment at which it can have been sent.

    A crash is charged only to an upload that was alone with its process. With too many of these it
    is refused, before another worker claims it.
    """
    found = await connection.execute(
        _ABANDONED,
        {
            "leases_count": signs.leases_count,
            "silence": signs.silence_seconds,
            "silence_counts_until": signs.silence_counts_until,
            "limit": limit,
        },
    )
    rows = found.all()
    queued, refused = [], []
    for row in rows:
        charged = row.crashed and row.alone
        if row.crashes_alone + charged >= REFUSED_AFTER_CRASHES_ALONE:
            refused.append(_refused(row))
        else:
            queued.append(_queued(row, settle_seconds))
    taken = Taken(await change_state(connection, queued), await change_state(connection, refused))
    # Whether a precondition was sent, nobody knows any more.
    await note_in_doubt(
        connection, {row.id: _delay(row, settle_seconds) for row in rows if row.maybe_sent}
    )
    await supersede_overtaken(connection, taken.queued)
    return taken


def _delay(row: Row[Any], settle_seconds: float) -> float:
    # For how long it may still be sent; negative if that is over.
    open_seconds = min(0.0, row.open_seconds) if row.ended else row.open_seconds
    return float(max(0.0, open_seconds + settle_seconds))


def _queued(row: Row[Any], settle_seconds: float) -> Change:
    return Change(
        upload_id=row.id,
        source=State.SENDING,
        target=State.QUEUED,
        reason=Reason.LEASE_EXPIRED,
        lease_id=row.lease_id,
        delay=_delay(row, settle_seconds),
        crashed=row.crashed,
        crashed_alone=row.crashed and row.alone,
        keeps_crashes=True,
        sent_itself=True,
        # It may have been a second send: nobody can know any more.
        possible_duplicate=True if row.attempted_before and row.doubles else None,
    )


def _refused(row: Row[Any]) -> Change:
    return Change(
        upload_id=row.id,
        source=State.SENDING,
        target=State.REFUSED,
        reason=Reason.CRASHES_WORKER,
        lease_id=row.lease_id,
        crashed=True,
        crashed_alone=True,
        sent_itself=True,
        possible_duplicate=True if row.doubles else None,
    )
