"""Migrations up, down and up again, and what they make against what the tables say."""

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, inspect, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid4

from uplift.cli.local.embedded import EmbeddedPostgres
from uplift.ledger import migrate
from uplift.ledger.database import Database
from uplift.ledger.tables import Table
from uplift.settings import Settings


@pytest.fixture
async def empty(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    """A database without a schema, dropped afterwards."""
    name = f"empty_{uuid4().hex}"
    async with await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as server:
        await server.execute(f'CREATE DATABASE "{name}"'.encode())
        url = make_url(postgres.url).set(database=name)
        database = Database.connect(
            Settings(database_url=SecretStr(url.render_as_string(hide_password=False)))
        )
        yield database
        await database.close()
        await server.execute(f'DROP DATABASE "{name}"'.encode())


async def tables(database: Database) -> set[str]:
    async with database.transaction() as connection:
        return set(await connection.run_sync(lambda sync: inspect(sync).get_table_names()))


async def test_the_schema_goes_up_and_down_and_up_again_to_what_the_tables_say(
    empty: Database,
) -> None:
    expected = {table.name for table in Table.metadata.sorted_tables}
    assert await migrate.current(empty) is None
    await migrate.upgrade(empty)
    assert await tables(empty) == expected | {"alembic_version"}
    assert await migrate.drift(empty) == []
    await migrate.downgrade(empty, "base")
    assert await tables(empty) == {"alembic_version"}
    assert await migrate.current(empty) is None
    await migrate.upgrade(empty)
    assert await migrate.current(empty) == migrate.head()
    assert await migrate.drift(empty) == []


async def test_migrating_what_is_there_already_changes_nothing(empty: Database) -> None:
    await migrate.upgrade(empty)
    async with empty.transaction() as connection:
        await connection.execute(text("INSERT INTO audit_events (actor, action) VALUES ('a', 'b')"))
    await migrate.upgrade(empty)
    async with empty.transaction() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM audit_events")) == 1


async def test_two_processes_that_migrate_at_once_go_one_after_the_other(empty: Database) -> None:
    await asyncio.gather(*(migrate.upgrade(empty) for _ in range(3)))
    assert await migrate.current(empty) == migrate.head()


async def test_a_process_that_locks_in_another_order_is_only_waited_for(
    empty: Database,
) -> None:
    await migrate.upgrade(empty)
    tries = 0

    def lock_both(connection: Connection) -> None:
        nonlocal tries
        tries += 1
        connection.execute(text("SET LOCAL lock_timeout = '0.5s'"))
        connection.execute(text("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"))
        connection.execute(text("LOCK TABLE uploads IN ACCESS EXCLUSIVE MODE"))

    async def work() -> None:
        async with empty.transaction() as connection:
            await connection.execute(text("SELECT FROM uploads LIMIT 1"))
            began.set()
            await asyncio.sleep(0.3)
            await connection.execute(text("SELECT FROM users LIMIT 1"))

    began = asyncio.Event()
    working = asyncio.create_task(work())
    await began.wait()
    await migrate.with_its_locks(empty, lock_both)
    await working
    assert tries == 2


_DIFFERENCES = (
    "ALTER TABLE uploads DROP COLUMN last_response",
    "ALTER TABLE uploads ADD COLUMN more text",
    "ALTER TABLE uploads ALTER COLUMN attempts TYPE bigint",
    "ALTER TABLE uploads ALTER COLUMN crashes DROP DEFAULT",
    "ALTER TABLE uploads ALTER COLUMN digest DROP NOT NULL",
    "ALTER TABLE credentials DROP CONSTRAINT uq_credentials_secret_hash",
    "ALTER TABLE grants DROP CONSTRAINT fk_grants_user_id",
    "DROP INDEX ix_uploads_due",
    "CREATE TABLE more (id int)",
)


async def test_every_difference_between_tables_and_database_is_drift(empty: Database) -> None:
    await migrate.upgrade(empty)
    found = 0
    for difference in _DIFFERENCES:
        async with empty.transaction() as connection:
            await connection.execute(text(difference))
        drift = await migrate.drift(empty)
        assert len(drift) > found, difference
        found = len(drift)


async def test_check_constraints_and_partial_indexes_are_the_ones_that_the_tables_declare(
    empty: Database,
) -> None:
    # Alembic compares neither the text of a check nor the condition of an index.
    async with empty.transaction() as connection:
        await connection.run_sync(Table.metadata.create_all)
        declared = await _definitions(connection)
        await connection.run_sync(Table.metadata.drop_all)
    await migrate.upgrade(empty)
    async with empty.transaction() as connection:
        migrated = await _definitions(connection)
    assert migrated == declared
    assert len(declared) > 30


async def _definitions(connection: AsyncConnection) -> dict[str, str]:
    found = await connection.execute(
        text("""
            SELECT conname AS name, pg_get_constraintdef(oid) AS definition FROM pg_constraint
            WHERE connamespace = 'public'::regnamespace
              AND conrelid <> coalesce(to_regclass('alembic_version'), 0)
            UNION ALL
            SELECT 'index ' || indexname, indexdef FROM pg_indexes
            WHERE schemaname = 'public' AND tablename <> 'alembic_version'
        """)
    )
    return {row.name: row.definition for row in found}
