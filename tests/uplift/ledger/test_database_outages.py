"""The pool leaves servers that cannot be written, and waits for none of them for long."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from chaos.postgres_faults import frozen, make_read_only, standby_away
from tests.ledger_copies import LedgerCopies
from uplift.cli.local.embedded import EmbeddedPostgres
from uplift.ledger.database import CommitUnknown, Database, Patience, is_away
from uplift.settings import Settings

_BRIEF = Patience(transaction=1.0, pool=1.0)
_FAST = {"fsync": "off"}


@pytest.fixture(scope="module")
def own(
    tmp_path_factory: pytest.TempPathFactory, ledger_copies: LedgerCopies
) -> Iterator[EmbeddedPostgres]:
    folder = ledger_copies.put(tmp_path_factory.mktemp("own"))
    with EmbeddedPostgres(folder, settings=_FAST) as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("CREATE TABLE kept (number int)")
        yield server


async def write(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(text("INSERT INTO kept VALUES (1)"))


async def until_written(database: Database, seconds: float) -> int:
    """Try until it works; how many tries failed."""
    failed = 0
    async with asyncio.timeout(seconds):
        while True:
            try:
                await write(database)
                return failed
            except DBAPIError:
                failed += 1


async def test_after_a_switchover_the_pool_writes_to_the_new_primary(
    own: EmbeddedPostgres, ledger_copies: LedgerCopies, tmp_path: Path
) -> None:
    with EmbeddedPostgres(ledger_copies.put(tmp_path / "other"), settings=_FAST) as other:
        role, password = make_url(own.url).username, make_url(own.url).password
        assert role is not None
        assert password is not None
        with psycopg.connect(other.url, autocommit=True) as connection:
            connection.execute("CREATE TABLE kept (number int)")
            connection.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(
                    sql.Identifier(role), sql.Literal(password)
                )
            )
        (other.data_dir / "postgres.password").write_text(password)
        make_read_only(other)
        url = make_url(own.url)
        both = url.set(
            host=None,
            port=None,
            query={"host": (f"{url.host}:{own.port}", f"{url.host}:{other.port}")},
        )
        address = SecretStr(both.render_as_string(hide_password=False))
        database = Database.connect(Settings(database_url=address))
        try:
            # All connections of the pool are open.
            await asyncio.gather(*(write(database) for _ in range(20)))
            make_read_only(own)
            make_read_only(other, False)
            assert await until_written(database, 5) <= 2
            await asyncio.gather(*(write(database) for _ in range(20)))
        finally:
            make_read_only(own, False)
            await database.close()


async def test_a_frozen_server_is_left_in_time_and_used_again(own: EmbeddedPostgres) -> None:
    database = Database.connect(Settings(database_url=SecretStr(own.url)), _BRIEF)
    await write(database)
    with frozen(own):
        started = time.monotonic()
        with pytest.raises(DBAPIError) as caught:
            await write(database)
        assert is_away(caught.value)
        assert time.monotonic() - started < 3
    await until_written(database, 10)
    await database.close()


async def test_a_commit_that_nobody_confirms_is_unknown(own: EmbeddedPostgres) -> None:
    database = Database.connect(Settings(database_url=SecretStr(own.url)), _BRIEF)
    with standby_away(own):
        started = time.monotonic()
        with pytest.raises(CommitUnknown) as caught:
            await write(database)
        assert is_away(caught.value)
        assert time.monotonic() - started < 3
    await until_written(database, 10)
    await database.close()


async def test_half_open_connections_end_within_seconds(own: EmbeddedPostgres) -> None:
    database = Database.connect(Settings(database_url=SecretStr(own.url)))
    async with database.transaction() as connection:
        assert await connection.scalar(text("SHOW tcp_user_timeout")) is not None
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        chosen = driver.info.get_parameters()
    await database.close()
    assert chosen["tcp_user_timeout"] == "5000"
    assert int(chosen["keepalives_idle"]) + 3 * int(chosen["keepalives_interval"]) <= 5
