"""Users' wrapped data keys in the ledger: under which master keys they are, and moving them."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Row, Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.parameters import Rows
from uplift.ledger.tables import User
from uplift.sealing import WrappedKey

# A key without an id cannot be opened; it counts as one under an id that no key ring has.
_MASTER_ID = func.coalesce(User.master_key_id, "")


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A living user's wrapped data key."""

    user_id: UUID
    wrapped: WrappedKey


@dataclass(frozen=True, slots=True)
class NewKey:
    """A wrapped data key that replaces another."""

    row: KeyRow
    wrapped: WrappedKey


async def count_by_master_key(connection: AsyncConnection) -> dict[str, int]:
    """How many living users each master key id has, by id."""
    rows = await connection.execute(
        select(_MASTER_ID.label("master_id"), func.count().label("users"))
        .where(User.erased_at.is_(None))
        .group_by(_MASTER_ID)
        .order_by(_MASTER_ID)
    )
    return {row.master_id: row.users for row in rows}


async def samples_of(connection: AsyncConnection, master_id: str) -> list[KeyRow]:
    """The oldest and the newest user whose data key that master key wraps."""
    of_it = _living().where(User.master_key_id == master_id).limit(1)
    return [
        _read(row)
        for order in (User.id.asc(), User.id.desc())
        for row in await connection.execute(of_it.order_by(order))
    ]


async def keys_not_under(
    connection: AsyncConnection, master_id: str, *, after: UUID | None, limit: int
) -> list[KeyRow]:
    """The next living users, by id, whose data key another master key wraps."""
    statement = (
        _living().where(_MASTER_ID.is_distinct_from(master_id)).order_by(User.id).limit(limit)
    )
    if after is not None:
        statement = statement.where(User.id > after)
    return [_read(row) for row in await connection.execute(statement)]


_KEYS = Rows("keys", id="uuid", old_id="text", old_key="bytea", new_id="text", new_key="bytea")

# Locked rows are never waited for, so two rotations, or a rotation and an erasure, cannot block
# each other. FOR NO KEY UPDATE lets uploads that come in meanwhile refer to their user.
_REPLACE = _KEYS.statement("""
    WITH wanted AS {keys}, free AS (
        SELECT id FROM users WHERE id = ANY ({keys.id})
        ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE users AS u
    SET master_key_id = w.new_id, wrapped_key = w.new_key
    FROM wanted AS w JOIN free USING (id)
    WHERE u.id = ANY ({keys.id}) AND u.id = w.id
      AND u.erased_at IS NULL
      AND u.master_key_id = w.old_id
      AND u.wrapped_key = w.old_key
    RETURNING u.id
""")


async def replace_keys(connection: AsyncConnection, keys: Sequence[NewKey]) -> set[UUID]:
    """Replace each old wrapped key that is still there; the ids of the users whose key it was.

    A user that is missing from them was erased or moved meanwhile, or is being changed by another
    transaction now.
    """
    if not keys:
        return set()
    rows = [
        {
            "id": key.row.user_id,
            "old_id": key.row.wrapped.master_id,
            "old_key": key.row.wrapped.sealed,
            "new_id": key.wrapped.master_id,
            "new_key": key.wrapped.sealed,
        }
        for key in keys
    ]
    done = await connection.execute(_REPLACE, _KEYS.parameter(rows))
    return {row.id for row in done}


def _living() -> Select[tuple[UUID, str | None, bytes | None]]:
    return select(User.id, User.master_key_id, User.wrapped_key).where(User.erased_at.is_(None))


def _read(row: Row[tuple[UUID, str | None, bytes | None]]) -> KeyRow:
    return KeyRow(row.id, WrappedKey(row.master_key_id or "", row.wrapped_key or b""))
