"""The API with master keys that do not fit the ledger: it says so, and writes nothing."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import httpx
import orjson
from pydantic import SecretStr
from sqlalchemy import text

from tests import factories
from tests.api.calls import assert_problem, bearer, make_keys
from tests.factories import resource
from tests.ledger_copies import LedgerCopies
from uplift.api.app import create_app
from uplift.cli.local.embedded import EmbeddedPostgres
from uplift.ledger.database import Database
from uplift.sealing import KeyRing
from uplift.settings import Settings
from uplift.wiring import open_relay

WRONG = KeyRing.new_entry("test")  # the id of the test key ring, with another key


async def count(database: Database, table: str) -> int:
    async with database.transaction() as connection:
        return int(await connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0)  # noqa: S608


async def test_the_process_does_not_start_and_says_why(settings: Settings, alice: str) -> None:
    assert settings.database_url is not None
    assert settings.redis_url is not None
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", "from uplift.api.process import main; main()"],
        env={
            **os.environ,
            "UPLIFT_DATABASE_URL": settings.database_url.get_secret_value(),
            "UPLIFT_REDIS_URL": settings.redis_url.get_secret_value(),
            "UPLIFT_MASTER_KEYS": WRONG,
            "UPLIFT_API_PORT": "0",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    assert "The API does not start: UPLIFT_MASTER_KEYS holds another key" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert WRONG.partition(":")[2] not in ended.stdout + ended.stderr


async def test_when_postgres_was_away_at_start_it_is_not_ready_and_writes_nothing(
    settings: Settings, ledger_copies: LedgerCopies, tmp_path: Path
) -> None:
    with EmbeddedPostgres(ledger_copies.put(tmp_path / "own"), settings={"fsync": "off"}) as own:
        settings = settings.model_copy(update={"database_url": SecretStr(own.url)})
        database = Database.connect(settings)
        key = (await make_keys(database)).backend
        async with open_relay(settings) as relay:
            await factories.user_without_grant(relay, "alice")
        own.kill()
        app = create_app(settings.model_copy(update={"master_keys": SecretStr(WRONG)}))
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://uplift", headers=bearer(key)
            ) as client,
        ):
            assert (await client.get("/healthz")).status_code == 200
            assert_problem(await client.get("/readyz"), 503)
            own.restart()
            await asyncio.sleep(1.1)  # readiness is remembered for a second
            ready = assert_problem(await client.get("/readyz"), 503)
            assert "The master keys do not fit the database" in ready["detail"]
            assert "uplift doctor" in ready["detail"]
            assert "test" not in orjson.dumps(ready).decode()  # key ids are for operators
            for request in (
                client.build_request("POST", "/v1/users", json={"appUserId": "bob"}),
                client.build_request(
                    "PUT", "/v1/users/bob/grant", json={"accessToken": "a", "expiresIn": 60}
                ),
                client.build_request(
                    "POST", "/v1/uploads?user=alice&fhirVersion=R4", json=resource()
                ),
            ):
                response = await client.send(request)
                assert "master keys" in assert_problem(response, 503)["detail"]
                assert int(response.headers["retry-after"]) >= 1
        assert await count(database, "users") == 1
        assert await count(database, "grants") == await count(database, "uploads") == 0
        await database.close()
