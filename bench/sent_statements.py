"""The statements that psycopg sends, whoever hands them to it: SQLAlchemy or the ledger itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.database import driver_of


@contextmanager
def sent_by(connection: AsyncConnection | None = None) -> Iterator[list[tuple[str, Any]]]:
    """What is sent within the block, with its parameters; by this connection, or by all."""
    sent: list[tuple[str, Any]] = []
    driver = None if connection is None else driver_of(connection)
    execute = psycopg.AsyncCursor.execute

    async def note(cursor: Any, query: Any, params: Any = None, **options: Any) -> Any:
        if driver in (None, cursor.connection):
            sent.append((query, params))
        return await execute(cursor, query, params, **options)

    psycopg.AsyncCursor.execute = note  # type: ignore[method-assign, assignment]
    try:
        yield sent
    finally:
        psycopg.AsyncCursor.execute = execute  # type: ignore[method-assign]
