"""The keys of the deployment itself, each wrapped by a master key as a user's data key is."""

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.tables import DeploymentKey
from uplift.sealing import KeyRing, UserKey, WrappedKey

CREDENTIALS = "credentials"
"""The name of the key that signs API keys and device tokens."""

AUDIT = "audit"
"""The name of the key that seals the audit trail."""


def _context(name: str) -> bytes:
    return f"deployment_keys:{name}".encode()


async def wrapped_keys(connection: AsyncConnection) -> dict[str, WrappedKey]:
    """Every key of the deployment, by its name."""
    rows = await connection.execute(
        select(DeploymentKey.name, DeploymentKey.master_key_id, DeploymentKey.wrapped_key)
    )
    return {row.name: WrappedKey(row.master_key_id, bytes(row.wrapped_key)) for row in rows}


def open_key(key_ring: KeyRing, name: str, wrapped: WrappedKey) -> UserKey:
    """The key of that name.  Raises SealError."""
    return key_ring.unwrap(wrapped, _context(name))


async def find_key(connection: AsyncConnection, key_ring: KeyRing, name: str) -> UserKey | None:
    """The key of that name; None if nobody needed one yet.  Raises SealError."""
    wrapped = (await wrapped_keys(connection)).get(name)
    return None if wrapped is None else open_key(key_ring, name, wrapped)


async def make_key(connection: AsyncConnection, key_ring: KeyRing, name: str) -> UserKey:
    """The key of that name, made if there is none.  Raises SealError.

    Of several processes that make it at once, one wins: the others wait for its commit, and use its
    key.
    """
    if (found := await find_key(connection, key_ring, name)) is not None:
        return found
    wrapped = key_ring.wrap(UserKey.generate(), _context(name))
    await connection.execute(
        insert(DeploymentKey)
        .values(name=name, master_key_id=wrapped.master_id, wrapped_key=wrapped.sealed)
        .on_conflict_do_nothing()
    )
    made = await find_key(connection, key_ring, name)
    assert made is not None  # noqa: S101  inserted above, by this process or another
    return made


async def rewrap_keys(connection: AsyncConnection, key_ring: KeyRing) -> int:
    """Wrap every key by the master key in use; how many were under another.  Raises SealError."""
    done = 0
    for name, wrapped in (await wrapped_keys(connection)).items():
        if wrapped.master_id == key_ring.current:
            continue
        again = key_ring.wrap(open_key(key_ring, name, wrapped), _context(name))
        replaced = await connection.execute(
            update(DeploymentKey)
            .where(DeploymentKey.name == name, DeploymentKey.wrapped_key == wrapped.sealed)
            .values(master_key_id=again.master_id, wrapped_key=again.sealed)
        )
        done += replaced.rowcount
    return done
