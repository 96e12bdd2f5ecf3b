"""Idempotency keys: a caller's own name for a request, and the upload that it became.

Source: draft-ietf-httpapi-idempotency-key-header-07.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.tables import IdempotencyKey

LIFE_SECONDS = 24 * 3600
"""How long a key stands for its request."""


@dataclass(frozen=True, slots=True)
class CallersKey:
    """An idempotency key of one caller. The same key of another caller is another key."""

    credential_id: UUID
    key: str

    @property
    def digest(self) -> bytes:
        """What is kept of it (32 bytes)."""
        return hashlib.sha256(self.key.encode()).digest()


@dataclass(frozen=True, slots=True)
class Known:
    """What a key stands for already, and since when."""

    request_digest: bytes
    upload_id: UUID
    since: datetime


# Waits for a transaction that is adding the same key. A caller whose credential is being removed
# adds nothing: the row that the foreign key needs is locked, or gone.
_CLAIM = text("""
    INSERT INTO idempotency_keys AS k
        (credential_id, key_hash, request_digest, upload_id, expires_at)
    SELECT c.id, :key_hash, :request_digest, :upload_id, now() + make_interval(secs => :seconds)
    FROM (SELECT id FROM credentials WHERE id = :credential_id FOR KEY SHARE) AS c
    ON CONFLICT (credential_id, key_hash) DO UPDATE SET
        request_digest = excluded.request_digest,
        upload_id = excluded.upload_id,
        expires_at = excluded.expires_at
    WHERE k.expires_at <= now() OR :reset
    RETURNING upload_id
""")

_KNOWN = text("""
    SELECT request_digest, upload_id, expires_at - make_interval(secs => :seconds) AS since
    FROM idempotency_keys
    WHERE credential_id = :credential_id AND key_hash = :key_hash AND expires_at > now()
""")

_NAME = text("""
    UPDATE idempotency_keys SET upload_id = :upload_id
    WHERE credential_id = :credential_id AND key_hash = :key_hash
""")


async def claim(
    connection: AsyncConnection,
    key: CallersKey,
    request_digest: bytes,
    upload_id: UUID,
    *,
    reset: bool = False,
) -> bool:
    """Let the key stand for this request for a day from now; False if it stands for one already.

    With `reset`, it stands for this request in any case. Waits for a request with the same key that
    is under way elsewhere.
    """
    claimed = await connection.execute(
        _CLAIM,
        {
            "credential_id": key.credential_id,
            "key_hash": key.digest,
            "request_digest": request_digest,
            "upload_id": upload_id,
            "seconds": LIFE_SECONDS,
            "reset": reset,
        },
    )
    return claimed.one_or_none() is not None


async def find(connection: AsyncConnection, key: CallersKey) -> Known | None:
    """What the key stands for, if its day is not over."""
    row = (
        await connection.execute(
            _KNOWN,
            {
                "credential_id": key.credential_id,
                "key_hash": key.digest,
                "seconds": LIFE_SECONDS,
            },
        )
    ).one_or_none()
    return Known(bytes(row.request_digest), row.upload_id, row.since) if row is not None else None


async def name_upload(connection: AsyncConnection, key: CallersKey, upload_id: UUID) -> None:
    """Let a claimed key name another upload: the one that was there before."""
    await connection.execute(
        _NAME,
        {"credential_id": key.credential_id, "key_hash": key.digest, "upload_id": upload_id},
    )


async def purge_expired(connection: AsyncConnection, *, limit: int) -> int:
    """Remove up to `limit` keys whose day is over; how many there were."""
    over = (
        select(IdempotencyKey.credential_id, IdempotencyKey.key_hash)
        .where(IdempotencyKey.expires_at <= text("now()"))
        .limit(limit)
        .with_for_update(skip_locked=True)
        .subquery()
    )
    removed = await connection.execute(
        delete(IdempotencyKey)
        .where(
            IdempotencyKey.credential_id == over.c.credential_id,
            IdempotencyKey.key_hash == over.c.key_hash,
        )
        .returning(IdempotencyKey.upload_id)
    )
    return len(removed.all())
