"""API keys and device tokens in the ledger. Only a hash of each secret is kept.

The secrets are 256 random bits, so a plain SHA-256 cannot be searched backwards; a slow password
hash would only slow every request (OWASP, Password Storage: it is for secrets people choose).

Each row has a MAC by the deployment's credential key, which the key ring opens. So whoever can
write the ledger, but has no master key, can neither make a credential nor change what it allows.
"""

import hashlib
import hmac
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from uplift.ledger.audit import SYSTEM, Action, Actor, note
from uplift.ledger.deployment_keys import CREDENTIALS, find_key, make_key
from uplift.ledger.direct_statements import DirectStatement
from uplift.ledger.parameters import array
from uplift.ledger.tables import Credential
from uplift.sealing import KeyRing


class Scope(StrEnum):
    """What a credential allows."""

    SUBMIT = "submit"  # send uploads, read their statuses, redrive and cancel them
    USERS = "users"  # add users, store their grants, make and revoke device tokens
    READ_BACK = "read_back"  # read what 1upHealth has of a user
    ERASE = "erase"  # erase users
    OPERATOR = "operator"  # read everything but contents; redrive, cancel, pause
    DEVICE = "device"  # of a device token: send and read uploads of one user


BACKEND = frozenset({Scope.SUBMIT, Scope.USERS, Scope.READ_BACK, Scope.ERASE})
"""What the backend of an app needs."""


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


def _mac(key: bytes, row: Any) -> bytes:
    """The MAC of all that a row says, except when it was made, used and revoked."""
    expires_at = row["expires_at"]
    said = orjson.dumps(
        [
            str(row["id"]),
            row["kind"],
            row["name"],
            sorted(row["scopes"]),
            row["user_id"] and str(row["user_id"]),
            expires_at and expires_at.astimezone(UTC).isoformat(),
            bytes(row["secret_hash"]).hex(),
        ]
    )
    return hmac.digest(key, said, "sha256")


async def _insert(connection: AsyncConnection, key_ring: KeyRing, row: dict[str, Any]) -> None:
    key = await make_key(connection, key_ring, CREDENTIALS)
    await connection.execute(insert(Credential).values(**row, mac=_mac(key.credential_key, row)))


async def credential_key(connection: AsyncConnection, key_ring: KeyRing) -> bytes:
    """The deployment's credential key; made by the first who needs it.  Raises SealError."""
    return (await make_key(connection, key_ring, CREDENTIALS)).credential_key


async def add_api_key(
    connection: AsyncConnection,
    key_ring: KeyRing,
    name: str,
    scopes: frozenset[Scope],
    *,
    seconds: float | None = None,
    by: Actor = SYSTEM,
) -> tuple[UUID, str]:
    """Add an API key, valid for so many seconds; for good if that is None.

    Returns its id, and the secret, which is shown only now. Raises SealError.
    """
    secret = "uplift_key_" + secrets.token_urlsafe(32)
    key_id = uuid7()
    row = {
        "id": key_id,
        "kind": "api_key",
        "name": name,
        "secret_hash": _hash(secret),
        "scopes": sorted(scopes),
        "user_id": None,
        "expires_at": None if seconds is None else await _in_seconds(connection, seconds),
    }
    await _insert(connection, key_ring, row)
    await note(connection, by, Action.API_KEY_MADE, credential_id=key_id)
    return key_id, secret


async def add_device_token(
    connection: AsyncConnection,
    key_ring: KeyRing,
    user_id: UUID,
    seconds: float,
    *,
    name: str = "device",
    by: Actor = SYSTEM,
) -> NewDeviceToken:
    """Add a device token of one user, whom the caller has locked, valid for so many seconds.

    Raises SealError.
    """
    token_id = uuid7()
    secret = "uplift_device_" + secrets.token_urlsafe(32)
    expires_at = await _in_seconds(connection, seconds)
    row = {
        "id": token_id,
        "kind": "device_token",
        "name": name,
        "secret_hash": _hash(secret),
        "scopes": [Scope.DEVICE],
        "user_id": user_id,
        "expires_at": expires_at,
    }
    await _insert(connection, key_ring, row)
    await note(connection, by, Action.DEVICE_TOKEN_MADE, user_id=user_id, credential_id=token_id)
    return NewDeviceToken(secret, expires_at, token_id)


async def _in_seconds(connection: AsyncConnection, seconds: float) -> datetime:
    found = await connection.scalar(
        select(func.now() + func.make_interval(0, 0, 0, 0, 0, 0, seconds))
    )
    assert found is not None  # noqa: S101  PostgreSQL has a clock
    return found


_VALID = DirectStatement("""
    SELECT c.id, c.kind, c.name, c.scopes, c.user_id, c.secret_hash, c.expires_at, c.mac,
        u.app_user_id
    FROM credentials AS c LEFT JOIN users AS u ON u.id = c.user_id
    WHERE c.secret_hash = ANY(CAST(:hashes AS bytea[])) AND c.revoked_at IS NULL
        AND (c.expires_at IS NULL OR c.expires_at > now() AND c.expires_at < '9999-01-01')
        AND u.erased_at IS NULL
""")


@dataclass(frozen=True, slots=True)
class FoundCredentials:
    """Valid credentials by their secrets, and the ids of rows whose MAC is wrong."""

    valid: dict[str, CredentialRow]
    forged: frozenset[UUID]


async def find_credentials(
    connection: AsyncConnection, key: bytes, secrets_: Collection[str]
) -> FoundCredentials:
    """The credentials of these secrets; revoked, expired, unknown and forged ones are missing.

    `key` is the deployment's credential key.
    """
    hashes = {secret: _hash(secret) for secret in secrets_}
    rows = await _VALID.rows(connection, {"hashes": array("bytea", set(hashes.values()))})
    found: dict[bytes, CredentialRow] = {}
    forged: set[UUID] = set()
    for row in rows:
        if _believed(key, row._asdict()):
            found[bytes(row.secret_hash)] = CredentialRow(
                row.id, row.name, frozenset(row.scopes), row.user_id, row.app_user_id
            )
        else:
            forged.add(row.id)
    valid = {secret: found[hash_] for secret, hash_ in hashes.items() if hash_ in found}
    return FoundCredentials(valid, frozenset(forged))


def _believed(key: bytes, row: Any) -> bool:
    return hmac.compare_digest(_mac(key, row), bytes(row["mac"]))


async def find_credential(
    connection: AsyncConnection, key_ring: KeyRing, secret: str
) -> CredentialRow | None:
    """The credential of that secret, if it is neither revoked nor expired.  Raises SealError."""
    key = await credential_key(connection, key_ring)
    return (await find_credentials(connection, key, [secret])).valid.get(secret)


async def forged_credentials(
    connection: AsyncConnection, key_ring: KeyRing, *, limit: int
) -> list[UUID]:
    """Up to so many rows that are neither revoked nor expired and have a wrong MAC.

    Raises SealError.
    """
    key = await find_key(connection, key_ring, CREDENTIALS)
    mac_key = key.credential_key if key is not None else b""
    forged: list[UUID] = []
    rows = await connection.stream(
        select(Credential.__table__).where(
            Credential.revoked_at.is_(None),
            Credential.expires_at.is_(None) | (Credential.expires_at > func.now()),
        )
    )
    async for row in rows:
        if not _believed(mac_key, row._mapping):  # noqa: SLF001
            forged.append(row.id)
            if len(forged) == limit:
                break
    await rows.close()
    return forged


class ListedCredential(NamedTuple):
    """What a list shows of an API key or a device token."""

    id: UUID
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


_LISTED = select(
    Credential.id,
    Credential.name,
    Credential.scopes,
    Credential.created_at,
    Credential.expires_at,
    Credential.last_used_at,
    Credential.revoked_at,
).order_by(Credential.id)


async def list_api_keys(connection: AsyncConnection) -> list[ListedCredential]:
    """Every API key, the oldest first."""
    rows = await connection.execute(_LISTED.where(Credential.kind == "api_key"))
    return [ListedCredential(*row) for row in rows]


async def list_device_tokens(connection: AsyncConnection, user_id: UUID) -> list[ListedCredential]:
    """The device tokens of a user that are neither revoked nor expired, the oldest first."""
    rows = await connection.execute(
        _LISTED.where(
            Credential.user_id == user_id,
            Credential.revoked_at.is_(None),
            Credential.expires_at > func.now(),
        )
    )
    return [ListedCredential(*row) for row in rows]


async def note_use(connection: AsyncConnection, key_ids: Collection[UUID]) -> None:
    """Note that these API keys are used now."""
    await connection.execute(
        update(Credential).where(Credential.id.in_(key_ids)).values(last_used_at=func.now())
    )


async def revoke(connection: AsyncConnection, credential_id: UUID, *, by: Actor = SYSTEM) -> bool:
    """Revoke a credential at once; False if there is none or it is revoked already."""
    row = (
        await connection.execute(
            update(Credential)
            .where(Credential.id == credential_id, Credential.revoked_at.is_(None))
            # Without its MAC, it cannot come back by a write to this row.
            .values(revoked_at=func.now(), mac=b"")
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
