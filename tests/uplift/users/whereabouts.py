"""Finds a person: in what the ledger shows to anybody, in what its keys open, and in Redis."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from typing import Any
from uuid import UUID

import redis.asyncio
from sqlalchemy import LargeBinary, Row, select

from uplift.errors import SealError
from uplift.ledger.database import Database
from uplift.ledger.named_patients import patients_context
from uplift.ledger.tables import Table, User
from uplift.ledger.uploads import body_context, delivery_context, receipt_context
from uplift.ledger.upstream_deletions import target_context
from uplift.ledger.users import key_context
from uplift.ledger.watermarks import watermark_context
from uplift.sealing import KeyRing, UserKey, WrappedKey

_CONTEXTS: dict[tuple[str, str], Callable[[Any], bytes]] = {
    ("uploads", "sealed_body"): lambda row: body_context(row.id),
    ("uploads", "sealed_receipt"): lambda row: receipt_context(row.id),
    ("deliveries", "sealed_receipt"): lambda row: delivery_context(row.record_id, row.destination),
    ("records", "sealed_watermark"): lambda row: watermark_context(row.id),
    ("tombstones", "sealed_receipt"): lambda row: receipt_context(row.upload_id),
    ("upstream_deletions", "sealed_target"): lambda row: target_context(
        row.user_id, bytes(row.key)
    ),
    ("users", "sealed_patients"): lambda row: patients_context(row.id),
    ("grants", "sealed_tokens"): lambda row: b"grant " + row.user_id.bytes,
}
"""What each sealed column is bound to."""


def sealed_columns() -> set[tuple[str, str]]:
    """Every column whose name says that it is sealed."""
    return {
        (table.name, column.name)
        for table in Table.metadata.sorted_tables
        for column in table.columns
        if column.name.startswith("sealed_") and isinstance(column.type, LargeBinary)
    }


def openable_columns() -> set[tuple[str, str]]:
    """The columns that `opened` opens."""
    return set(_CONTEXTS)


async def opened(database: Database, key_ring: KeyRing) -> bytes:
    """All that the key ring opens: each sealed value of each row, with every user's key."""
    keys = await _user_keys(database, key_ring)
    found: list[bytes] = []
    async for table, row in _rows(database):
        for column, value in row._mapping.items():
            context = _CONTEXTS.get((table, str(column)))
            if context is None or value is None:
                continue
            for key in keys:
                with suppress(SealError):
                    found.append(key.open(bytes(value), context(row)))
    return b"\n".join(found)


async def shown(database: Database, *, but: Iterable[str] = ()) -> bytes:
    """All that a search of the tables finds without a key: text, ids, numbers and bytes."""
    skipped = set(but)
    return b"\n".join(
        [
            _plain(value)
            async for table, row in _rows(database)
            if table not in skipped
            for value in row
            if value is not None
        ]
    )


async def counts(database: Database) -> dict[str, int]:
    """How many rows there are, by table; tables without any are left out."""
    numbers: dict[str, int] = {}
    async for table, _ in _rows(database):
        numbers[table] = numbers.get(table, 0) + 1
    return numbers


async def in_redis(url: str) -> bytes:
    """All that Redis holds: every key, and what it is the key of."""
    server = redis.asyncio.from_url(url)
    found: list[bytes] = []
    async for key in server.scan_iter():
        found.append(key)
        # Long lists are compressed in a dump.
        if await server.type(key) == b"list":
            held = await server.lrange(key, 0, -1)
            found += [item if isinstance(item, bytes) else item.encode() for item in held]
        else:
            found.append(await server.dump(key) or b"")
    await server.aclose()
    return b"\n".join(found)


def _plain(value: Any) -> bytes:
    match value:
        case bytes() | memoryview():
            return bytes(value)
        case UUID():
            return f"{value} {value.hex}".encode()
        case _:
            return str(value).encode()


async def _user_keys(database: Database, key_ring: KeyRing) -> list[UserKey]:
    async with database.transaction() as connection:
        rows = (
            await connection.execute(
                select(User.id, User.master_key_id, User.wrapped_key).where(
                    User.wrapped_key.is_not(None)
                )
            )
        ).all()
    return [
        key_ring.unwrap(
            WrappedKey(row.master_key_id or "", row.wrapped_key or b""), key_context(row.id)
        )
        for row in rows
    ]


async def _rows(database: Database) -> AsyncIterator[tuple[str, Row[Any]]]:
    async with database.transaction() as connection:
        for table in Table.metadata.sorted_tables:
            for row in await connection.execute(select(table)):
                yield table.name, row
