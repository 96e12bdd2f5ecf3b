"""One transaction a block, committed whole or not at all; and no secrets in its errors."""

import asyncio

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from uplift.errors import ConfigurationError
from uplift.ledger.database import Database, is_away
from uplift.settings import Settings


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
        assert await connection.scalar(text("SHOW statement_timeout")) == "27s"
        limit = await connection.scalar(text("SHOW idle_in_transaction_session_timeout"))
    assert limit == "27s"


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


@pytest.mark.parametrize(
    "url",
    [
        "canary",
        "postgresql//uplift:canary@host/uplift",
        "postgresql://uplift:canary@host:port/uplift",
    ],
)
def test_an_address_that_is_none_is_named_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError, match="UPLIFT_DATABASE_URL is not an address") as caught:
        Database.connect(Settings(database_url=SecretStr(url)))
    assert "canary" not in str(caught.value)
    assert caught.value.__suppress_context__


async def error_of(database: Database, *statements: str) -> Exception:
    async def run() -> None:
        async with database.transaction() as connection:
            for statement in statements:
                await connection.execute(text(statement))

    with pytest.raises(DBAPIError) as caught:
        await run()
    return caught.value


async def test_a_connection_that_is_refused_or_lost_means_that_the_database_is_away(
    database: Database, unused_tcp_port: int
) -> None:
    assert is_away(await error_of(database, "SELECT pg_terminate_backend(pg_backend_pid())"))
    url = f"postgresql://uplift:secret@127.0.0.1:{unused_tcp_port}/uplift"
    nowhere = Database.connect(Settings(database_url=SecretStr(url)))
    assert is_away(await error_of(nowhere, "SELECT 1"))
    await nowhere.close()


@pytest.mark.parametrize(
    "sqlstate", ["08006", "08001", "57P01", "57P02", "57P03"], ids=lambda sqlstate: str(sqlstate)
)
async def test_what_a_server_says_when_it_goes_means_that_it_is_away(
    database: Database, sqlstate: str
) -> None:
    assert is_away(await error_of(database, _RAISE.format(sqlstate)))


@pytest.mark.parametrize("sqlstate", ["40P01", "40001", "57014", "55P03", "53100", "23505"])
async def test_what_a_server_says_of_one_statement_does_not_mean_that_it_is_away(
    database: Database, sqlstate: str
) -> None:
    assert not is_away(await error_of(database, _RAISE.format(sqlstate)))


async def test_a_statement_that_took_too_long_does_not_mean_that_the_database_is_away(
    database: Database,
) -> None:
    error = await error_of(database, "SET LOCAL statement_timeout = 50", "SELECT pg_sleep(30)")
    assert not is_away(error)


_RAISE = "DO $$ BEGIN RAISE EXCEPTION SQLSTATE '{}'; END $$"
