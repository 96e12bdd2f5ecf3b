"""The Patients that a backend named for a user: they were at a destination before Uplift.

Sealed with the user's key, by the destination's name: a server's own id of a person is health data.
"""

from collections.abc import Mapping
from uuid import UUID

import orjson
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger import locks, users
from uplift.ledger.audit import Action, Actor, note
from uplift.ledger.tables import User
from uplift.sealing import KeyRing, UserKey

Patients = Mapping[str, str]
"""The id of a user's Patient, by the destination that has it."""


def patients_context(user_id: UUID) -> bytes:
    """What the named Patients of a user are bound to."""
    return b"patients " + user_id.bytes


def named_for(user: users.UserRow, key_ring: KeyRing) -> Patients:
    """The named Patients of a user, by their row. Raises SealError if they cannot be opened."""
    if user.sealed_patients is None:
        return {}
    return _open(user.sealed_patients, user.id, user.key(key_ring))


async def read(connection: AsyncConnection, user_id: UUID, key: UserKey) -> Patients:
    """The named Patients of a user. It waits for whoever names one now.

    Raises SealError if they cannot be opened.
    """
    sealed = await connection.scalar(
        locks.share_lock(select(User.sealed_patients).where(User.id == user_id))
    )
    return _open(sealed, user_id, key)


async def lock(connection: AsyncConnection, user_id: UUID, key: UserKey) -> Patients:
    """The same, while nobody else can read or write them until the transaction ends.

    Raises NotFound if the user was erased meanwhile, Conflict if that has begun at their
    destination.
    """
    row = (
        await connection.execute(
            select(User.sealed_patients, User.erasing_upstream_since)
            .where(User.id == user_id, User.erased_at.is_(None))
            .with_for_update()
        )
    ).one_or_none()
    if row is None:
        raise users.no_such_user()
    if row.erasing_upstream_since is not None:
        raise users.being_erased()
    return _open(row.sealed_patients, user_id, key)


async def write(
    connection: AsyncConnection, user_id: UUID, key: UserKey, patients: Patients, *, by: Actor
) -> None:
    """Store all named Patients of a user, whom `lock` locked."""
    sealed = key.seal(orjson.dumps(dict(patients)), patients_context(user_id))
    await connection.execute(
        update(User)
        .where(User.id == user_id, User.erased_at.is_(None))
        .values(sealed_patients=sealed)
    )
    await note(connection, by, Action.PATIENT_NAMED, user_id=user_id)


_ATTEMPTED = text("""
    SELECT EXISTS (
            SELECT FROM uploads AS u WHERE u.user_id = :user_id AND u.destination = :destination
                AND (u.attempts > 0 OR EXISTS (SELECT FROM attempts WHERE upload_id = u.id)))
        OR EXISTS (SELECT FROM tombstones
            WHERE user_id = :user_id AND destination = :destination)
        OR EXISTS (SELECT FROM records AS r JOIN deliveries AS d ON d.record_id = r.id
            WHERE r.user_id = :user_id AND d.destination = :destination)
""")


async def was_attempted(connection: AsyncConnection, user_id: UUID, destination: str) -> bool:
    """Whether anything of the user was ever sent to that destination, or was about to be."""
    parameters = {"user_id": user_id, "destination": destination}
    return bool(await connection.scalar(_ATTEMPTED, parameters))


def _open(sealed: bytes | None, user_id: UUID, key: UserKey) -> dict[str, str]:
    if sealed is None:
        return {}
    patients: dict[str, str] = orjson.loads(key.open(sealed, patients_context(user_id)))
    return patients
