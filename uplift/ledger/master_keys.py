"""What the ledger knows of the master keys: since when one is in use, and until when it is needed.

Who erases or rotates notes in the same transaction which key was needed until now. So a backup from
after that time needs it no more.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.key_life import KeyLife
from uplift.ledger.tables import MasterKey

_NOTE = text("""
    INSERT INTO master_keys (id)
    SELECT unnest(CAST(:ids AS text[]))
    UNION SELECT master_key_id FROM users WHERE master_key_id IS NOT NULL
    UNION SELECT master_key_id FROM deployment_keys
    ON CONFLICT DO NOTHING
""")
_IN_USE = text(
    "UPDATE master_keys SET in_use_since = now() WHERE id = :id AND in_use_since IS NULL"
)
_WRAPS = """
    (EXISTS (SELECT FROM users WHERE master_key_id = m.id AND erased_at IS NULL)
        OR EXISTS (SELECT FROM deployment_keys WHERE master_key_id = m.id))
"""
_NEEDED = text(f"UPDATE master_keys AS m SET needed_at = now() WHERE {_WRAPS}")  # noqa: S608
_LIVES = text(
    "SELECT id, in_use_since, needed_at, retired_at,"  # noqa: S608
    f" {_WRAPS} AS wraps FROM master_keys AS m ORDER BY id"
)
_NEEDED_BY = text("""
    INSERT INTO master_keys (id)
    SELECT master_key_id FROM users WHERE id = :user_id AND master_key_id IS NOT NULL
    ON CONFLICT (id) DO UPDATE SET needed_at = now()
""")


async def note_keys(connection: AsyncConnection, ids: Sequence[str], current: str) -> None:
    """Note the keys of a key ring, which of them is in use, and which the ledger needs now."""
    await connection.execute(_NOTE, {"ids": list(ids)})
    await connection.execute(_IN_USE, {"id": current})
    await connection.execute(_NEEDED)


async def note_needed_by(connection: AsyncConnection, user_id: UUID) -> None:
    """Note that a user's master key was needed until now, before the user's data key goes."""
    await connection.execute(_NEEDED_BY, {"user_id": user_id})


async def key_lives(connection: AsyncConnection) -> dict[str, KeyLife]:
    """What is known of every key, by its id."""
    rows = await connection.execute(_LIVES)
    return {row.id: KeyLife(**row._asdict()) for row in rows}


async def in_use_since(
    connection: AsyncConnection, key_id: str
) -> tuple[datetime, datetime | None]:
    """The time now, and since when that key is in use; None if nobody noted it."""
    row = (
        await connection.execute(
            select(
                func.now().label("now"),
                select(MasterKey.in_use_since)
                .where(MasterKey.id == key_id)
                .scalar_subquery()
                .label("since"),
            )
        )
    ).one()
    return row.now, row.since


async def note_retired(connection: AsyncConnection, key_id: str) -> None:
    """Note that a key is retired."""
    await connection.execute(
        text("UPDATE master_keys SET retired_at = now() WHERE id = :id"), {"id": key_id}
    )
