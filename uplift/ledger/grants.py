"""Users' grants at 1upHealth: the sealed tokens, when they expire, and whether they still work."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

import orjson
from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.tables import Grant
from uplift.ledger.token_pair import TokenPair
from uplift.sealing import UserKey

Origin = Literal["user_management", "backend"]


@dataclass(frozen=True, slots=True)
class GrantRow:
    """A grant with its tokens opened. `expires_in` is what is left, in seconds."""

    user_id: UUID
    active: bool
    origin: Origin
    tokens: TokenPair
    version: int
    updated_at: datetime
    refreshing: bool  # somebody is asking 1upHealth for the next version

    def __repr__(self) -> str:
        return f"GrantRow(user_id={self.user_id}, active={self.active}, version={self.version})"


def _context(user_id: UUID) -> bytes:
    return b"grant " + user_id.bytes


async def get_grant(connection: AsyncConnection, user_id: UUID, key: UserKey) -> GrantRow | None:
    """The user's grant. Raises SealError if its tokens do not open with `key`."""
    row = (
        await connection.execute(
            select(
                Grant.state,
                Grant.origin,
                Grant.sealed_tokens,
                Grant.version,
                Grant.updated_at,
                func.extract("epoch", Grant.expires_at - func.now()).label("expires_in"),
                func.coalesce(Grant.refreshing_until > func.now(), text("false")).label(
                    "refreshing"
                ),
            ).where(Grant.user_id == user_id)
        )
    ).one_or_none()
    if row is None:
        return None
    opened = orjson.loads(key.open(row.sealed_tokens, _context(user_id)))
    return GrantRow(
        user_id=user_id,
        active=row.state == "active",
        origin=row.origin,
        tokens=TokenPair(opened["access"], opened["refresh"], float(row.expires_in)),
        version=row.version,
        updated_at=row.updated_at,
        refreshing=row.refreshing,
    )


async def put_grant(
    connection: AsyncConnection,
    user_id: UUID,
    key: UserKey,
    tokens: TokenPair,
    origin: Origin,
    *,
    instead_of: int | None = None,
) -> int | None:
    """Store new tokens, sealed; the grant's new version.

    With `instead_of`, only if the grant still is that version; None if it is not.
    """
    sealed = key.seal(
        orjson.dumps({"access": tokens.access_token, "refresh": tokens.refresh_token}),
        _context(user_id),
    )
    values = {
        "state": "active",
        "origin": origin,
        "sealed_tokens": sealed,
        "expires_at": func.now() + func.make_interval(0, 0, 0, 0, 0, 0, tokens.expires_in),
        "refreshing_until": None,
        "updated_at": func.now(),
    }
    newer = {**values, "version": Grant.version + 1}
    if instead_of is None:
        row = await connection.execute(
            insert(Grant)
            .values(user_id=user_id, **values)
            .on_conflict_do_update(index_elements=[Grant.user_id], set_=newer)
            .returning(Grant.version)
        )
    else:
        row = await connection.execute(
            update(Grant)
            .where(Grant.user_id == user_id, Grant.version == instead_of)
            .values(newer)
            .returning(Grant.version)
        )
    return row.scalar_one_or_none()


async def end_grant(connection: AsyncConnection, user_id: UUID, version: int) -> bool:
    """Note that the person must authorise again, if the grant still is the version that failed."""
    row = await connection.execute(
        update(Grant)
        .where(Grant.user_id == user_id, Grant.version == version)
        .values(state="needs_authorization", refreshing_until=None, updated_at=func.now())
        .returning(Grant.user_id)
    )
    return row.one_or_none() is not None


async def start_refresh(
    connection: AsyncConnection, user_id: UUID, version: int, seconds: float
) -> bool:
    """Whether the caller may refresh this version, for so many seconds: one at a time may."""
    row = await connection.execute(
        update(Grant)
        .where(
            Grant.user_id == user_id,
            Grant.version == version,
            text("coalesce(refreshing_until, '-infinity') <= now()"),
        )
        .values(refreshing_until=func.now() + func.make_interval(0, 0, 0, 0, 0, 0, seconds))
        .returning(Grant.user_id)
    )
    return row.one_or_none() is not None


async def end_refresh(connection: AsyncConnection, user_id: UUID, version: int) -> None:
    """Let another try to refresh this version, since the one that tried got no response."""
    await connection.execute(
        update(Grant)
        .where(Grant.user_id == user_id, Grant.version == version)
        .values(refreshing_until=None)
    )
