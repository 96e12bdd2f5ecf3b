"""Moves a user to another destination, or has everything sent to theirs once more.

What was never sent goes to the new destination. What may be at the old one ends there: it is looked
up or sent again, and nothing new goes there. The bodies of what was delivered are gone, so a new
sync token tells the person's apps to send everything again.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger import fair_queue
from uplift.ledger.audit import Action, Actor, note
from uplift.ledger.tables import User
from uplift.ledger.transitions import Change, change_state
from uplift.lifecycle import Reason, State

_NEW_SYNC_TOKEN = text("gen_random_uuid()")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a destination takes: the FHIR versions, and whether each person must have a grant."""

    versions: Collection[str]
    needs_grant: bool


@dataclass(frozen=True, slots=True)
class Moved:
    """What a step moved: so many uploads were found, and so many of them are not taken."""

    found: int
    refused: int


async def begin(connection: AsyncConnection, user_id: UUID, destination: str, *, by: Actor) -> bool:
    """Send what the user brings to another destination from now on; False if it is theirs already.

    It waits for those who put in uploads of the user: what they commit is found by `move_some`.
    """
    before = await connection.scalar(
        select(User.destination)
        .where(User.id == user_id, User.erased_at.is_(None))
        .with_for_update()
    )
    if before in (None, destination):
        return False
    await connection.execute(
        update(User)
        .where(User.id == user_id)
        .values(destination=destination, moving=True, sync_token=_NEW_SYNC_TOKEN)
    )
    await note(connection, by, Action.USER_MOVED, user_id=user_id)
    return True


async def some_moving(connection: AsyncConnection, *, limit: int) -> Sequence[UUID]:
    """Up to `limit` users of whom something is left at the destination before, by chance."""
    return (
        await connection.scalars(
            select(User.id)
            .where(text("moving"), User.erased_at.is_(None))
            # Those of whom something stays there long must not keep the others out.
            .order_by(func.random())
            .limit(limit)
        )
    ).all()


# Locked rows are being claimed, cancelled or superseded now: the next step finds how that ended.
_LEFT = text("""
    SELECT u.id, u.state, u.fhir_version, p.destination
    FROM uploads AS u JOIN users AS p ON p.id = u.user_id AND p.erased_at IS NULL
    WHERE u.user_id = :user_id AND u.destination <> p.destination AND NOT u.maybe_sent
        AND u.state IN ('queued', 'parked')
    ORDER BY u.id LIMIT :limit
    FOR UPDATE OF u SKIP LOCKED
""")

# It starts from zero there: what it waited for at the old one says nothing about the new one.
_RETARGET = text("""
    UPDATE uploads SET destination = :destination, revision = revision + 1, updated_at = now(),
        give_up_at = CASE WHEN state = 'parked' THEN give_up_at END,
        next_attempt_at = CASE WHEN state = 'queued' THEN least(next_attempt_at, now()) END
    WHERE id = ANY(CAST(:ids AS uuid[]))
""")


async def move_some(
    connection: AsyncConnection, user_id: UUID, terms: Mapping[str, Terms], *, limit: int
) -> Moved:
    """Move up to `limit` uploads of a user that were never sent to where the user has moved.

    What is parked is queued if the new destination needs no grant. What it does not take is
    refused, and can be redriven. `terms` are those of the destinations by their names; one that is
    not among them takes everything.
    """
    rows = (await connection.execute(_LEFT, {"user_id": user_id, "limit": limit})).all()
    if not rows:
        return Moved(0, 0)
    (destination,) = {row.destination for row in rows}
    ids = [row.id for row in rows]
    await connection.execute(_RETARGET, {"ids": ids, "destination": destination})
    there = terms.get(destination)
    not_taken = [row for row in rows if there and row.fhir_version not in there.versions]
    changes = [_refused(row) for row in not_taken]
    if there is not None and not there.needs_grant:
        changes += [
            _released(row) for row in rows if row.state == State.PARKED and row not in not_taken
        ]
    await change_state(connection, changes)
    await fair_queue.tag(connection, ids)
    return Moved(len(rows), len(not_taken))


def _refused(row: Row[Any]) -> Change:
    return Change(
        upload_id=row.id,
        source=State(row.state),
        target=State.REFUSED,
        reason=Reason.VERSION_NOT_TAKEN,
    )


def _released(row: Row[Any]) -> Change:
    return Change(
        upload_id=row.id, source=State.PARKED, target=State.QUEUED, reason=Reason.RELEASED
    )


# A question for each state, so that each finds its partial index.
_END = text("""
    UPDATE users AS p SET moving = false
    WHERE p.id = :user_id AND p.moving
        AND NOT EXISTS (SELECT FROM uploads
            WHERE user_id = p.id AND state = 'queued' AND destination <> p.destination)
        AND NOT EXISTS (SELECT FROM uploads
            WHERE user_id = p.id AND state = 'parked' AND destination <> p.destination)
        AND NOT EXISTS (SELECT FROM uploads
            WHERE user_id = p.id AND state = 'sending' AND destination <> p.destination)
""")


async def end(connection: AsyncConnection, user_id: UUID) -> bool:
    """Note that a user's move has ended, if nothing of theirs is left at the destination before."""
    return bool((await connection.execute(_END, {"user_id": user_id})).rowcount)


_FORGET = text("""
    WITH walked AS (
        SELECT r.id, r.identity, p.destination FROM records AS r
        JOIN users AS p ON p.id = r.user_id
        WHERE r.user_id = :user_id AND r.identity > :after
        ORDER BY r.identity LIMIT :limit
    ), locked AS (
        -- In the order in which workers lock them.
        SELECT d.record_id, d.destination FROM deliveries AS d JOIN walked
            ON d.record_id = walked.id AND d.destination = walked.destination
        WHERE d.digest IS NOT NULL ORDER BY d.record_id FOR UPDATE OF d
    ), forgotten AS (
        UPDATE deliveries AS d SET digest = NULL FROM locked
        WHERE d.record_id = locked.record_id AND d.destination = locked.destination
    )
    SELECT identity FROM walked ORDER BY identity DESC LIMIT 1
""")


async def forget_contents(
    connection: AsyncConnection, user_id: UUID, *, after: bytes = b"", limit: int
) -> bytes | None:
    """Forget which content the user's destination has of some records, but not where: the next
    upload of each is new content, and goes out as an update. Where to go on, None at the end."""
    last: bytes | None = await connection.scalar(
        _FORGET, {"user_id": user_id, "after": after, "limit": limit}
    )
    return last


async def ask_for_all(connection: AsyncConnection, user_id: UUID, *, by: Actor) -> None:
    """Give the user a new sync token: their apps send everything again."""
    await connection.execute(
        update(User)
        .where(User.id == user_id, User.erased_at.is_(None))
        .values(sync_token=_NEW_SYNC_TOKEN)
    )
    await note(connection, by, Action.RESEND_REQUESTED, user_id=user_id)
