"""PostgreSQL or Redis away: nothing is lost, the answers are true, and it works again later."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import orjson
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from tests import factories
from tests.api.calls import NOBODYS_ID, Keys, assert_problem, bearer, make_keys, submit
from tests.factories import resource
from tests.ledger_copies import LedgerCopies
from uplift.api.app import create_app
from uplift.cli.local.embedded import EmbeddedPostgres
from uplift.ledger.database import Database
from uplift.ledger.users import add_user
from uplift.sealing import KeyRing
from uplift.settings import Settings
from uplift.wiring import open_relay

_ALICE = {"user": "alice", "fhirVersion": "R4"}
_NOWHERE = "127.0.0.1:1"  # nothing listens on port 1


@asynccontextmanager
async def _serving(settings: Settings, key: str) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://uplift", headers=bearer(key)
        ) as client,
    ):
        yield client


def _requests(client: httpx.AsyncClient) -> list[httpx.Request]:
    return [
        client.build_request("POST", "/v1/uploads", json={"resource": resource()}),
        client.build_request("GET", "/v1/uploads"),
        client.build_request("GET", f"/v1/uploads/{NOBODYS_ID}"),
        client.build_request("GET", f"/v1/uploads/{NOBODYS_ID}", params={"wait": 5}),
        client.build_request("POST", "/v1/users", json={"appUserId": "alice"}),
        client.build_request("GET", "/v1/users/alice"),
        client.build_request(
            "PUT", "/v1/users/alice/grant", json={"accessToken": "a", "expiresIn": 60}
        ),
        client.build_request("POST", "/v1/users/alice/device-tokens", json={"expiresIn": 60}),
        client.build_request("GET", "/readyz"),
    ]


async def test_without_postgres_every_route_answers_503_and_when_to_come_back(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    url = SecretStr(f"postgresql://canary-user:canary-password@{_NOWHERE}/canary-name")
    away = settings.model_copy(update={"database_url": url})
    async with _serving(away, "uplift_key_" + "canary".ljust(43, "x")) as client:
        for request in _requests(client):
            response = await client.send(request)
            assert_problem(response, 503)
            assert int(response.headers["retry-after"]) >= 1
            assert "canary" not in response.text
            # A poll must not read as if the upload were lost.
            assert ("Nothing was accepted" in response.text) == (request.method == "POST")
        assert (await client.get("/healthz")).status_code == 200
    shown = capfd.readouterr()
    assert "database_unavailable" in shown.err
    assert "canary" not in shown.out + shown.err


async def test_an_empty_database_is_not_ready_and_says_what_to_do(
    settings: Settings, postgres: EmbeddedPostgres, database: Database, keys: Keys
) -> None:
    """The database `postgres` is always there, and never migrated."""
    url = SecretStr(postgres.url.rpartition("/")[0] + "/postgres")
    async with _serving(settings.model_copy(update={"database_url": url}), keys.backend) as client:
        response = await client.get("/readyz")
        assert "uplift migrate" in assert_problem(response, 503)["detail"]
        assert_problem(await client.get("/v1/uploads"), 503)


async def test_a_restart_of_postgres_fails_only_the_requests_during_it(
    settings: Settings, ledger_copies: LedgerCopies, tmp_path: Path
) -> None:
    with EmbeddedPostgres(ledger_copies.put(tmp_path / "own"), settings={"fsync": "off"}) as own:
        settings = settings.model_copy(update={"database_url": SecretStr(own.url)})
        database = Database.connect(settings)
        key = (await make_keys(database)).backend
        await database.close()
        async with _serving(settings, key) as client:
            async with open_relay(settings) as relay:
                await factories.user_without_grant(relay)
            before = await submit(client, id="before")
            polling = asyncio.create_task(client.get(before["statusUrl"], params={"wait": 20}))
            accepted = [before["id"]]

            async def submit_until_refused(sender: int) -> None:
                for number in range(10_000):
                    request = {"resource": resource(id=f"{sender}-{number}"), **_ALICE}
                    response = await client.post("/v1/uploads", json=request)
                    if response.status_code != 202:
                        assert_problem(response, 503)
                        return
                    accepted.append(response.json()["id"])

            senders = [asyncio.create_task(submit_until_refused(n)) for n in range(8)]
            while len(accepted) < 20:  # noqa: ASYNC110  until the senders are under way
                await asyncio.sleep(0.01)
            own.kill()
            await asyncio.gather(*senders)
            for request in _requests(client):
                assert_problem(await client.send(request), 503)
            own.restart()
            # Every pooled connection is dead; none of them costs a request.
            responses = await asyncio.gather(*(client.get(before["statusUrl"]) for _ in range(12)))
            assert {response.status_code for response in responses} == {200}
            after = await submit(client, id="after")
            ledger = Database.connect(settings)
            async with ledger.transaction() as connection:
                kept = set(await connection.scalars(text("SELECT id::text FROM uploads")))
            await ledger.close()
            assert {*accepted, after["id"]} <= kept
            # Readiness is remembered for a second.
            async with asyncio.timeout(10):
                while (await client.get("/readyz")).json()["status"] != "ready":  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            assert not polling.done()  # a long poll survives the outage
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)


async def test_without_redis_uploads_are_accepted_and_readiness_says_degraded(
    settings: Settings, database: Database, keys: Keys
) -> None:
    url = SecretStr(f"redis://:canary-password@{_NOWHERE}/0")
    settings = settings.model_copy(update={"redis_url": url})
    async with _serving(settings, keys.backend) as client:
        async with open_relay(settings) as relay:
            await factories.user_without_grant(relay)
        async with asyncio.timeout(10):
            for number in range(20):
                await submit(client, id=f"o{number}")
        response = await client.get("/readyz")
    assert response.status_code == 200
    assert response.json().items() >= {"status": "degraded", "redis": False, "keys": "fit"}.items()


async def test_a_silent_redis_delays_no_upload(
    settings: Settings, database: Database, keys: Keys
) -> None:
    """It accepts connections and stays silent. That is worse than no Redis."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = SecretStr(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        settings = settings.model_copy(update={"redis_url": url})
        async with _serving(settings, keys.backend) as client:
            async with database.transaction() as connection:
                await add_user(connection, "alice", KeyRing.parse(_keys_of(settings)))
            # One try to dispatch takes two seconds. No upload may wait for it.
            async with asyncio.timeout(10):
                for number in range(20):
                    await submit(client, id=f"o{number}")
            silent.close()  # so that the end of the block does not wait for it


def _keys_of(settings: Settings) -> str:
    assert settings.master_keys is not None
    return settings.master_keys.get_secret_value()


async def test_when_every_connection_is_taken_the_answer_is_503_not_a_crash(
    settings: Settings, database: Database, keys: Keys, alice: str
) -> None:
    """One connection, and it waits for a lock: the pool's time-out is met."""
    settings = settings.model_copy(update={"database_connections": 1})
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        app.state.relay.database._engine.sync_engine.pool._timeout = 0.2
        async with (
            app.state.relay.database.transaction(),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://uplift"
            ) as client,
        ):
            response = await client.post(
                "/v1/uploads", content=orjson.dumps(resource()), headers=bearer(keys.backend)
            )
    assert_problem(response, 503)
