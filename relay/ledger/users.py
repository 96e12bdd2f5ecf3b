"""Users in the ledger: their names, and the keys of what is sealed for them."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid4, uuid7

from relay.ledger.tables import Grant, User
from relay.sealing import KeyRing, UserKey, WrappedKey


@dataclass(frozen=True, slots=True)
class UserRow:
    """A living user."""

    id: UUID
    app_user_id: str
    oneup_user_id: str | None
    wrapped_key: WrappedKey
    created_at: datetime
    grant_state: str | None

    def key(self, ring: KeyRing) -> UserKey:
        """The user's data key. Raises SealError if the ring cannot unwrap it."""
        return ring.unwrap(self.wrapped_key, key_context(self.id))


def key_context(user_id: UUID) -> bytes:
    """What a wrapped data key is bound to."""
    return b"user key " + user_id.bytes


async def find_user(connection: AsyncConnection, app_user_id: str) -> UserRow | None:
    """The living user of that name."""
    return await _find(connection, User.app_user_id == app_user_id)


async def get_user(connection: AsyncConnection, user_id: UUID) -> UserRow | None:
    """The living user with that id."""
    return await _find(connection, User.id == user_id)


async def _find(connection: AsyncConnection, condition: object) -> UserRow | None:
    row = (
        await connection.execute(
            select(
                User.id,
                User.app_user_id,
                User.oneup_user_id,
                User.master_key_id,
                User.wrapped_key,
                User.created_at,
                Grant.state,
            )
            .outerjoin(Grant, Grant.user_id == User.id)
            .where(condition, User.erased_at.is_(None))  # type: ignore[arg-type]
        )
    ).one_or_none()
    if row is None:
        return None
    return UserRow(
        id=row.id,
        app_user_id=row.app_user_id or "",
        oneup_user_id=row.oneup_user_id,
        wrapped_key=WrappedKey(row.master_key_id or "", row.wrapped_key or b""),
        created_at=row.created_at,
        grant_state=row.state,
    )


async def add_user(connection: AsyncConnection, app_user_id: str, ring: KeyRing) -> UserRow:
    """The living user of that name, made with a new data key if there was none."""
    user_id = uuid7()
    wrapped = ring.wrap(UserKey.generate(), key_context(user_id))
    await connection.execute(
        insert(User)
        .values(
            id=user_id,
            app_user_id=app_user_id,
            master_key_id=wrapped.master_id,
            wrapped_key=wrapped.sealed,
            pseudonym=uuid4(),
        )
        .on_conflict_do_nothing(
            index_elements=[User.app_user_id], index_where=User.erased_at.is_(None)
        )
    )
    user = await find_user(connection, app_user_id)
    if user is None:  # pragma: no cover - erased between two statements of one transaction
        raise LookupError("The user was erased while being added.")
    return user


async def set_oneup_user(connection: AsyncConnection, user_id: UUID, oneup_user_id: str) -> None:
    """Note what 1upHealth calls the user."""
    await connection.execute(
        update(User).where(User.id == user_id).values(oneup_user_id=oneup_user_id)
    )
