"""API keys and device tokens in the ledger. Only a hash of each secret is kept.

The secrets are 256 random bits, so a plain SHA-256 cannot be searched backwards; a slow password
hash would only slow every request (OWASP, Password Storage: it is for secrets people choose).
"""

import hashlib
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from uplift.ledger.audit import SYSTEM, Action, Actor, note
from uplift.ledger.tables import Credential


class Scope(StrEnum):
    """What a credential allows."""

    BACKEND = "backend"
    OPERATOR = "operator"
    DEVICE = "device"


class NewDeviceToken(NamedTuple):
    """A device token that was just made. The secret is shown only now."""

    secret: str
    expires_at: datetime
    id: UUID


@dataclass(frozen=True, slots=True)
class CredentialRow:
    """A credential that is valid now."""

    id: UUID
    name: str
    scopes: frozenset[str]
    user_id: UUID | None
    app_user_id: str | None

    @property
    def actor(self) -> Actor:
        """How the audit trail names its owner."""
        return Actor(f"{'key' if self.user_id is None else 'device'}:{self.id}")


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


async def add_api_key(
    connection: AsyncConnection, name: str, scopes: frozenset[Scope], *, by: Actor = SYSTEM
) -> tuple[UUID, str]:
    """Add an API key; its id, and the secret, which is shown only now."""
    secret = "uplift_key_" + secrets.token_urlsafe(32)
    key_id = uuid7()
    await connection.execute(
        insert(Credential).values(
            id=key_id,
            kind="api_key",
            name=name,
            secret_hash=_hash(secret),
            scopes=sorted(scopes),
        )
    )
    await note(connection, by, Action.API_KEY_MADE, credential_id=key_id)
    return key_id, secret


async def add_device_token(
    connection: AsyncConnection, user_id: UUID, seconds: float, *, by: Actor = SYSTEM
) -> NewDeviceToken:
    """Add a device token of one user, whom the caller has locked, valid for so many seconds."""
    token_id = uuid7()
    secret = "uplift_device_" + secrets.token_urlsafe(32)
    row = await connection.execute(
        insert(Credential)
        .values(
            id=token_id,
            kind="device_token",
            name="device",
            secret_hash=_hash(secret),
            scopes=[Scope.DEVICE],
            user_id=user_id,
            expires_at=func.now() + func.make_interval(0, 0, 0, 0, 0, 0, seconds),
        )
        .returning(Credential.expires_at)
    )
    expires_at = row.scalar_one()
    assert expires_at is not None  # noqa: S101  a constraint says so
    await note(connection, by, Action.DEVICE_TOKEN_MADE, user_id=user_id, credential_id=token_id)
    return NewDeviceToken(secret, expires_at, token_id)


# As text: SQLAlchemy takes longer to look up a statement that it composed than PostgreSQL to run
# it.
_VALID = text("""
    SELECT c.id, c.name, c.scopes, c.user_id, c.secret_hash, u.app_user_id
    FROM credentials AS c LEFT JOIN users AS u ON u.id = c.user_id
    WHERE c.secret_hash = ANY(CAST(:hashes AS bytea[])) AND c.revoked_at IS NULL
        AND (c.expires_at IS NULL OR c.expires_at > now()) AND u.erased_at IS NULL
""")


async def find_credentials(
    connection: AsyncConnection, secrets_: Collection[str]
) -> dict[str, CredentialRow]:
    """The credentials of these secrets; revoked, expired and unknown ones are missing."""
    hashes = {secret: _hash(secret) for secret in secrets_}
    rows = await connection.execute(_VALID, {"hashes": list(set(hashes.values()))})
    found = {
        bytes(row.secret_hash): CredentialRow(
            row.id, row.name, frozenset(row.scopes), row.user_id, row.app_user_id
        )
        for row in rows
    }
    return {secret: found[hash_] for secret, hash_ in hashes.items() if hash_ in found}


async def find_credential(connection: AsyncConnection, secret: str) -> CredentialRow | None:
    """The credential of that secret, if it is neither revoked nor expired."""
    return (await find_credentials(connection, [secret])).get(secret)


async def list_api_keys(
    connection: AsyncConnection,
) -> list[tuple[UUID, str, list[str], datetime, datetime | None]]:
    """Every API key: id, name, scopes, made when, revoked when."""
    rows = await connection.execute(
        select(
            Credential.id,
            Credential.name,
            Credential.scopes,
            Credential.created_at,
            Credential.revoked_at,
        )
        .where(Credential.kind == "api_key")
        .order_by(Credential.id)
    )
    return [row._tuple() for row in rows]  # noqa: SLF001  SQLAlchemy's typed row


async def revoke(connection: AsyncConnection, credential_id: UUID, *, by: Actor = SYSTEM) -> bool:
    """Revoke a credential at once; False if there is none or it is revoked already."""
    row = (
        await connection.execute(
            update(Credential)
            .where(Credential.id == credential_id, Credential.revoked_at.is_(None))
            .values(revoked_at=func.now())
            .returning(Credential.user_id)
        )
    ).one_or_none()
    if row is None:
        return False
    action = Action.API_KEY_REVOKED if row.user_id is None else Action.DEVICE_TOKEN_REVOKED
    await note(connection, by, action, user_id=row.user_id, credential_id=credential_id)
    return True


async def revoke_device_tokens(
    connection: AsyncConnection, user_id: UUID, *, by: Actor = SYSTEM
) -> int:
    """Revoke every device token of a user at once; how many there were."""
    valid = await connection.scalars(
        select(Credential.id).where(Credential.user_id == user_id, Credential.revoked_at.is_(None))
    )
    return sum([await revoke(connection, token_id, by=by) for token_id in valid.all()])


async def is_device_token(connection: AsyncConnection, credential_id: UUID, user_id: UUID) -> bool:
    """Whether there is such a device token of that user, valid or not."""
    found = await connection.scalar(
        select(Credential.id).where(Credential.id == credential_id, Credential.user_id == user_id)
    )
    return found is not None
