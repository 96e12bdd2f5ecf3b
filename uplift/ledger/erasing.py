"""Removes a user from the ledger: one step makes all unreadable, then it goes row by row.

The user's own row goes last: foreign keys keep it until nothing refers to it. Until then its
`erased_at` says that there is work left, for whichever process does it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.audit import Action, Actor, note
from uplift.ledger.master_keys import note_needed_by
from uplift.ledger.parameters import is_among
from uplift.ledger.tables import (
    Batch,
    Credential,
    Delivery,
    Grant,
    IdempotencyKey,
    Pause,
    Record,
    SourceAlias,
    Tombstone,
    Upload,
    UpstreamDeletion,
    User,
)


@dataclass(frozen=True, slots=True)
class Removal:
    """What one step removed; `sending` is how many uploads workers still have."""

    done: bool
    moved: bool
    sending: int = 0


async def begin(
    connection: AsyncConnection, app_user_id: str, by: Actor, *, left_upstream: int | None = None
) -> bool:
    """Begin to erase the living user of that name; False if there is none.

    `left_upstream` is how much may be left of one who was erased upstream before; None if that was
    not wanted, or is not any more.

    With the commit their data key, pseudonym, grant and device tokens are gone: nothing sealed for
    them can be opened again, and nothing more of theirs is accepted, claimed or shown. What others
    write for them meanwhile is removed with the rest.
    """
    user_id = await connection.scalar(
        select(User.id)
        .where(User.app_user_id == app_user_id, User.erased_at.is_(None))
        # Does not wait for those who share the user's lock: while uploads come in, some always do.
        .with_for_update(key_share=True)
    )
    if user_id is None:
        return False
    await note(connection, by, Action.USER_ERASED, user_id=user_id)
    await note_needed_by(connection, user_id)
    before: dict[str, int | None] = {"erasing_upstream_since": None}
    if left_upstream is not None:
        before = {"lost_upstream": left_upstream}
    await connection.execute(
        update(User)
        .where(User.id == user_id)
        .values(
            **before,
            erased_at=func.now(),
            master_key_id=None,
            wrapped_key=None,
            oneup_user_id=None,
            pseudonym=None,
            sealed_patients=None,
        )
    )
    await _remove_access(connection, user_id)
    return True


async def begun(connection: AsyncConnection, app_user_id: str) -> Sequence[UUID]:
    """Users of that name whose erasing began and has not ended."""
    return (
        await connection.scalars(
            select(User.id)
            .where(User.erased_at.is_not(None), User.app_user_id == app_user_id)
            .order_by(User.erased_at)
        )
    ).all()


async def some_begun(connection: AsyncConnection, *, limit: int) -> Sequence[UUID]:
    """Up to `limit` users whose erasing began and has not ended, chosen by chance."""
    return (
        await connection.scalars(
            select(User.id)
            .where(User.erased_at.is_not(None))
            # Those that cannot be erased now must not keep the others out.
            .order_by(func.random())
            .limit(limit)
        )
    ).all()


async def remove_some(connection: AsyncConnection, user_id: UUID, *, limit: int) -> Removal:
    """Remove up to `limit` rows of a user whose erasing began; at the end the user's own.

    It may run anywhere, any number of times: one at a time removes rows of a user, and the others
    return that nothing moved.
    """
    locked = await connection.scalar(
        select(User.id)
        .where(User.id == user_id, User.erased_at.is_not(None))
        .with_for_update(skip_locked=True)
    )
    if locked is None:
        gone = await connection.scalar(select(User.id).where(User.id == user_id)) is None
        return Removal(done=gone, moved=False)
    await connection.execute(_END_LEASES, {"user_id": user_id})
    removed = (
        await connection.scalars(_REMOVE_UPLOADS, {"user_id": user_id, "limit": limit})
    ).all()
    if removed:
        await connection.execute(
            delete(IdempotencyKey).where(is_among(IdempotencyKey.upload_id)), {"ids": removed}
        )
        return Removal(done=False, moved=True)
    left = await connection.scalar(
        select(func.count()).select_from(Upload).where(Upload.user_id == user_id)
    )
    if left:
        return Removal(done=False, moved=False, sending=left)
    deletions = select(UpstreamDeletion.key).where(UpstreamDeletion.user_id == user_id).limit(limit)
    keys = (
        await connection.scalars(
            delete(UpstreamDeletion)
            .where(
                UpstreamDeletion.user_id == user_id,
                UpstreamDeletion.key.in_(deletions.scalar_subquery()),
            )
            .returning(UpstreamDeletion.key)
        )
    ).all()
    if keys:
        return Removal(done=False, moved=True)
    left_over = select(Tombstone.upload_id).where(Tombstone.user_id == user_id).limit(limit)
    removed = (
        await connection.scalars(
            delete(Tombstone)
            .where(Tombstone.upload_id.in_(left_over.scalar_subquery()))
            .returning(Tombstone.upload_id)
        )
    ).all()
    if removed:
        return Removal(done=False, moved=True)
    records = select(Record.id).where(Record.user_id == user_id).limit(limit)
    removed = (
        await connection.scalars(
            delete(Record).where(Record.id.in_(records.scalar_subquery())).returning(Record.id)
        )
    ).all()
    if removed:
        await connection.execute(
            delete(Delivery).where(is_among(Delivery.record_id)), {"ids": removed}
        )
        return Removal(done=False, moved=True)
    await connection.execute(delete(SourceAlias).where(SourceAlias.user_id == user_id))
    await connection.execute(delete(Batch).where(Batch.user_id == user_id))
    await _remove_access(connection, user_id)
    await connection.execute(delete(User).where(User.id == user_id))
    return Removal(done=True, moved=True)


async def _remove_access(connection: AsyncConnection, user_id: UUID) -> None:
    """Remove the grant, the pause, and the device tokens with their idempotency keys."""
    await connection.execute(delete(Grant).where(Grant.user_id == user_id))
    await remove_devices(connection, user_id)


async def remove_devices(connection: AsyncConnection, user_id: UUID) -> None:
    """Remove the user's pause, and their device tokens with the tokens' idempotency keys."""
    await connection.execute(delete(Pause).where(Pause.user_id == user_id))
    theirs = select(Credential.id).where(Credential.user_id == user_id).scalar_subquery()
    # First, so that no idempotency key is added between the two removals.
    await connection.execute(
        select(Credential.id).where(Credential.user_id == user_id).with_for_update()
    )
    await connection.execute(delete(IdempotencyKey).where(IdempotencyKey.credential_id.in_(theirs)))
    await connection.execute(delete(Credential).where(Credential.user_id == user_id))


# What a worker is sending cannot be called back. But with another lease on the row the worker can
# record nothing: no receipt, no issues, no state. The row of its attempt still says when it ended.
_END_LEASES = text("""
    UPDATE uploads SET lease_id = gen_random_uuid(), sealed_body = '', sealed_receipt = NULL,
        issues = NULL, digest = ''
    WHERE id IN (
        SELECT u.id FROM uploads AS u
        JOIN attempts AS a ON a.upload_id = u.id AND a.lease_id = u.lease_id
        WHERE u.user_id = :user_id AND u.state = 'sending'
        FOR UPDATE OF u SKIP LOCKED
    )
""")

# Locked rows are being recorded now: the next step finds how they ended.
_REMOVE_UPLOADS = text("""
    DELETE FROM uploads WHERE id IN (
        SELECT u.id FROM uploads AS u
        WHERE u.user_id = :user_id AND (
            u.state <> 'sending' OR u.lease_until < now() OR (
                SELECT a.closed_at IS NOT NULL FROM attempts AS a
                WHERE a.upload_id = u.id ORDER BY a.opened_at DESC LIMIT 1
            )
        )
        ORDER BY u.id LIMIT :limit
        FOR UPDATE OF u SKIP LOCKED
    )
    RETURNING id
""")
