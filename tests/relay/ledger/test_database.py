"""One transaction a block, committed whole or not at all; and no secrets in its errors."""

import asyncio

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from relay.errors import ConfigurationError
from relay.ledger.database import Database
from relay.settings import Settings


async def test_a_block_that_ends_is_committed_and_one_that_raises_is_undone(
    database: Database,
) -> None:
    insert = text("INSERT INTO audit_events (actor, action) VALUES ('a', :action)")
    async with database.transaction() as connection:
        await connection.execute(insert, {"action": "kept"})

    async def fail() -> None:
        async with database.transaction() as connection:
            await connection.execute(insert, {"action": "undone"})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with database.transaction() as connection:
        kept = (await connection.execute(text("SELECT action FROM audit_events"))).scalars().all()
    assert kept == ["kept"]


async def test_a_block_that_is_cancelled_is_undone_and_the_pool_goes_on(
    database: Database,
) -> None:
    async def slow() -> None:
        async with database.transaction() as connection:
            await connection.execute(
                text("INSERT INTO audit_events (actor, action) VALUES ('a', 'b')")
            )
            await connection.execute(text("SELECT pg_sleep(30)"))

    async with asyncio.timeout(10):
        for _ in range(10):  # more often than there are connections
            task = asyncio.create_task(slow())
            await asyncio.sleep(0.03)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        async with database.transaction() as connection:
            assert await connection.scalar(text("SELECT count(*) FROM audit_events")) == 0


async def test_the_parameters_of_a_statement_are_not_in_its_error(database: Database) -> None:
    with pytest.raises(DBAPIError) as caught:
        async with database.transaction() as connection:
            await connection.execute(
                text("SELECT 1 / (:zero)::int, :name"), {"zero": 0, "name": "canary"}
            )
    assert "canary" not in str(caught.value) + repr(caught.value)


async def test_a_connection_that_the_server_dropped_is_replaced(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(text("SELECT 1"))
    async with database.transaction() as connection, database.transaction() as other:
        mine = await connection.scalar(text("SELECT pg_backend_pid()"))
        await other.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid NOT IN (:mine, pg_backend_pid())"
                " AND backend_type = 'client backend'"
            ),
            {"mine": mine},
        )
    for _ in range(3):
        async with database.transaction() as connection:
            assert await connection.scalar(text("SELECT 1")) == 1


async def test_times_are_in_utc_and_no_statement_runs_for_ever(database: Database) -> None:
    async with database.transaction() as connection:
        assert await connection.scalar(text("SHOW timezone")) == "UTC"
        assert await connection.scalar(text("SHOW statement_timeout")) == "30s"
        limit = await connection.scalar(text("SHOW idle_in_transaction_session_timeout"))
    assert limit == "30s"


async def test_a_server_that_is_away_is_an_error_without_the_password(
    unused_tcp_port: int,
) -> None:
    url = f"postgresql://uplift:canary@127.0.0.1:{unused_tcp_port}/uplift"
    database = Database.connect(Settings(database_url=SecretStr(url)))
    with pytest.raises(OperationalError) as caught:
        async with database.transaction():
            pass
    assert "canary" not in str(caught.value)
    await database.close()


def test_without_an_address_the_error_says_which_setting_to_make() -> None:
    with pytest.raises(ConfigurationError, match="UPLIFT_DATABASE_URL is not set"):
        Database.connect(Settings(database_url=None))
