"""In which databases the ledger can be. tests/wide/test_pgbouncer.py has the pooler."""

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import make_url, text

from uplift.cli.local.embedded import EmbeddedPostgres
from uplift.doctor import ledger
from uplift.doctor.examine import examine
from uplift.doctor.findings import Verdict
from uplift.errors import ConfigurationError
from uplift.ledger import migrate
from uplift.ledger.database import Database
from uplift.ledger.suitable import check_at_start, check_suitable
from uplift.settings import Settings


@pytest.fixture(params=["SQL_ASCII", "LATIN1"])
def other_encoding(
    request: pytest.FixtureRequest, postgres: EmbeddedPostgres, server_settings: Settings
) -> Iterator[Settings]:
    """The settings of a database with another encoding."""
    name = f"other_{secrets.token_hex(4)}"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(
            f"CREATE DATABASE {name} ENCODING '{request.param}' TEMPLATE template0 LOCALE 'C'"
        )
        url = make_url(postgres.url).set(database=name).render_as_string(hide_password=False)
        yield server_settings.model_copy(update={"database_url": SecretStr(url)})
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def test_a_database_in_utf8_whose_sessions_are_our_own_is_suitable(
    ledger_settings: Settings,
) -> None:
    await check_suitable(ledger_settings.model_copy(update={"database_connections": 1}))


async def test_another_encoding_is_refused_by_its_name_at_the_start_and_by_doctor(
    other_encoding: Settings, request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.params["other_encoding"]
    with pytest.raises(ConfigurationError, match=f"encoding {name}, and Uplift needs UTF8"):
        await check_at_start(other_encoding)
    found = [each async for each in examine(other_encoding) if each.part == ledger.PART]
    assert [each.verdict for each in found] == [Verdict.FAIL]
    assert name in found[0].what


async def test_a_ledger_that_is_away_is_not_judged_at_the_start() -> None:
    await check_at_start(Settings(database_url=SecretStr("postgresql://u:p@127.0.0.1:1/u")))


async def test_options_of_the_address_stay_and_ours_are_set_beside_them(
    ledger_settings: Settings,
) -> None:
    assert ledger_settings.database_url is not None
    url = ledger_settings.database_url.get_secret_value()
    chosen = SecretStr(f"{url}?options=-c%20work_mem%3D5MB%20-c%20statement_timeout%3D60000")
    database = Database.connect(Settings(database_url=chosen))
    try:
        names = (
            "work_mem",
            "TimeZone",
            "statement_timeout",
            "idle_in_transaction_session_timeout",
        )
        for _ in range(2):  # a session keeps them after a rollback, too
            async with database.transaction() as connection:
                found = [
                    await connection.scalar(text(f"SELECT current_setting('{name}')"))
                    for name in names
                ]
                await connection.rollback()
            assert found == ["5MB", "UTC", "27s", "27s"]
    finally:
        await database.close()


def test_a_percent_sign_in_the_path_of_the_installation_is_no_reference(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "100%" / "ledger"
    folder.parent.mkdir()
    folder.symlink_to(Path(migrate.__file__).parent)
    before = migrate.head()
    monkeypatch.setattr(migrate, "__file__", str(folder / "migrate.py"))
    assert asyncio.run(asyncio.to_thread(migrate.head)) == before
