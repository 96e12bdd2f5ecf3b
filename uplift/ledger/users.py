"""Users in the ledger: their names, and the keys of what is sealed for them."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid4, uuid7

from uplift.errors import Conflict, NotFound
from uplift.ledger import locks
from uplift.ledger.audit import SYSTEM, Action, Actor, note
from uplift.ledger.direct_statements import DirectStatement
from uplift.ledger.pages import Order
from uplift.ledger.parameters import array
from uplift.ledger.pauses import is_paused
from uplift.ledger.tables import ONEUP, Grant, User
from uplift.problem_types import ProblemType
from uplift.sealing import KeyRing, UserKey, WrappedKey

_ADD_TRIES = 5


class GrantState(StrEnum):
    """Whether 1upHealth lets Uplift act for a user."""

    ACTIVE = "active"
    NEEDS_AUTHORIZATION = "needs_authorization"  # only the person can give a new one
    NONE = "none"  # there never was one


@dataclass(frozen=True, slots=True)
class LockedUser:
    """A living user, with what is needed to keep something for them: their key, and where it
    goes."""

    id: UUID
    app_user_id: str
    wrapped_key: WrappedKey
    destination: str

    def key(self, key_ring: KeyRing) -> UserKey:
        """The user's data key. Raises SealError if the key ring cannot unwrap it."""
        return key_ring.unwrap(self.wrapped_key, key_context(self.id))


@dataclass(frozen=True, slots=True)
class UserRow(LockedUser):
    """A living user: their erasing has not begun."""

    oneup_user_id: str | None
    created_at: datetime
    grant_state: str | None
    grant_origin: str | None
    paused: bool
    sync_token: UUID
    erasing_upstream_since: datetime | None = None
    sealed_patients: bytes | None = field(default=None, repr=False)


def key_context(user_id: UUID) -> bytes:
    """What a wrapped data key is bound to."""
    return b"user key " + user_id.bytes


async def find_user(
    connection: AsyncConnection, app_user_id: str, *, lock: bool = False
) -> UserRow | None:
    """The living user of that name.

    Whoever will write something that belongs to the user must `lock` them: their erasing then does
    not end before this transaction, and what it wrote is removed with the rest.
    """
    return await _find(connection, User.app_user_id == app_user_id, lock=lock)


def no_such_user() -> NotFound:
    """The error about a user who is not there, or whose erasing has begun."""
    return NotFound(
        ProblemType.NO_SUCH_USER,
        "There is no such user. Create them first: POST /v1/users, or `uplift users add`.",
    )


def being_erased() -> Conflict:
    """The error about a user of whom something is left at a destination, and is deleted now."""
    return Conflict(
        ProblemType.BEING_ERASED,
        "The user is being erased, at their destination too. Nothing of theirs is taken until that"
        " ends: DELETE /v1/users/NAME tells how far it is.",
    )


async def require_user(
    connection: AsyncConnection, app_user_id: str, *, lock: bool = False
) -> UserRow:
    """`find_user`. Raises NotFound if there is no such user, Conflict while they are erased at
    their destination."""
    user = await find_user(connection, app_user_id, lock=lock)
    if user is None:
        raise no_such_user()
    if user.erasing_upstream_since is not None:
        raise being_erased()
    return user


_DESTINATION = DirectStatement("""
    SELECT destination, erasing_upstream_since FROM users
    WHERE id = :id AND erased_at IS NULL FOR KEY SHARE
""")


async def require_destination_of(connection: AsyncConnection, user_id: UUID) -> str:
    """Where what a user brings goes now; they are locked as by `find_user`.

    Raises as `require_user`.
    """
    found = await _DESTINATION.rows(connection, {"id": user_id})
    if not found:
        raise no_such_user()
    (row,) = found
    if row.erasing_upstream_since is not None:
        raise being_erased()
    destination: str = row.destination
    return destination


async def get_user(
    connection: AsyncConnection, user_id: UUID, *, lock: bool = False
) -> UserRow | None:
    """The living user with that id; `lock` as in `find_user`."""
    return await _find(connection, User.id == user_id, lock=lock)


async def list_users(
    connection: AsyncConnection,
    *,
    grant: GrantState | None = None,
    order: Order = Order.NEWEST_FIRST,
    after: UUID | None = None,
    limit: int,
) -> list[UserRow]:
    """Living users in the order in which they were added or against it, after `after`."""
    statement = _living().order_by(order.of(User.id)).limit(limit)
    match grant:
        case GrantState.NONE:
            statement = statement.where(Grant.state.is_(None))
        case GrantState.NEEDS_AUTHORIZATION:
            # In the SQL itself, so that every plan may use the index of just these.
            statement = statement.where(text("grants.state = 'needs_authorization'"))
        case GrantState.ACTIVE:
            statement = statement.where(Grant.state == grant)
    if after is not None:
        statement = statement.where(order.is_after(User.id, after))
    return [_read(row) for row in await connection.execute(statement)]


def _living() -> Select[Any]:
    return (
        select(
            User.id,
            User.app_user_id,
            User.oneup_user_id,
            User.master_key_id,
            User.wrapped_key,
            User.destination,
            User.created_at,
            Grant.state,
            Grant.origin,
            is_paused().label("paused"),
            User.sync_token,
            User.erasing_upstream_since,
            User.sealed_patients,
        )
        .outerjoin(Grant, Grant.user_id == User.id)
        .where(User.erased_at.is_(None))
    )


async def lock_users(
    connection: AsyncConnection, app_user_ids: Collection[str]
) -> dict[str, LockedUser]:
    """The living users of these names, locked as by `find_user`.

    A user whose lock is not free is missing: the others must not wait for one.
    """
    rows = await locks.lock_free_users(connection, app_user_ids)
    return {
        name: LockedUser(id_, name, WrappedKey(master_id, bytes(wrapped)), destination)
        for id_, name, master_id, wrapped, destination in rows
    }


_ERASED = DirectStatement("""
    SELECT id FROM users WHERE id = ANY(CAST(:ids AS uuid[]))
        AND (erased_at IS NOT NULL OR erasing_upstream_since IS NOT NULL)
""")


async def find_erased(connection: AsyncConnection, ids: Collection[UUID]) -> set[UUID]:
    """Those of these users whose erasing has begun by now, although they are locked."""
    return set(await _ERASED.column(connection, {"ids": array("uuid", ids)}))


async def _find(
    connection: AsyncConnection, condition: ColumnElement[bool], *, lock: bool
) -> UserRow | None:
    statement = _living().where(condition)
    if lock:
        statement = locks.share_lock(statement)
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else _read(row)


def _read(row: Row[Any]) -> UserRow:
    return UserRow(
        id=row.id,
        app_user_id=row.app_user_id or "",
        oneup_user_id=row.oneup_user_id,
        wrapped_key=WrappedKey(row.master_key_id or "", row.wrapped_key or b""),
        destination=row.destination,
        created_at=row.created_at,
        grant_state=row.state,
        grant_origin=row.origin,
        paused=row.paused,
        sync_token=row.sync_token,
        erasing_upstream_since=row.erasing_upstream_since,
        sealed_patients=row.sealed_patients,
    )


async def add_user(
    connection: AsyncConnection,
    app_user_id: str,
    key_ring: KeyRing,
    *,
    destination: str = ONEUP,
    by: Actor = SYSTEM,
) -> UserRow:
    """The living user of that name, locked; added with a new data key if there was none.

    What a new one brings goes to `destination`.

    Raises LookupError if others erase the user again and again meanwhile.
    """
    for _ in range(_ADD_TRIES):
        user_id = uuid7()
        wrapped = key_ring.wrap(UserKey.generate(), key_context(user_id))
        added = await connection.scalar(
            insert(User)
            .values(
                id=user_id,
                app_user_id=app_user_id,
                master_key_id=wrapped.master_id,
                wrapped_key=wrapped.sealed,
                pseudonym=uuid4(),
                destination=destination,
            )
            .on_conflict_do_nothing(
                index_elements=[User.app_user_id], index_where=User.erased_at.is_(None)
            )
            .returning(User.id)
        )
        if added is not None:
            await note(connection, by, Action.USER_ADDED, user_id=added)
        user = await find_user(connection, app_user_id, lock=True)
        if user is not None:
            return user
        # Erased between the two statements: the name is free again.
    raise LookupError("The user was erased again and again while being added.")


async def set_oneup_user(connection: AsyncConnection, user_id: UUID, oneup_user_id: str) -> None:
    """Note what 1upHealth calls the user."""
    await connection.execute(
        update(User)
        .where(User.id == user_id, User.erased_at.is_(None))
        .values(oneup_user_id=oneup_user_id)
    )
