"""A PostgreSQL that is there and does not work: answers come in time, and say what is so."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager

import httpx
import orjson
import pytest
from pydantic import SecretStr

from chaos.postgres_faults import frozen, make_read_only, standby_away
from tests import factories
from tests.api.calls import assert_problem, bearer, make_keys
from tests.factories import resource
from tests.ledger_copies import LedgerCopies
from uplift.api.app import create_app
from uplift.cli.local.embedded import EmbeddedPostgres
from uplift.ledger import users
from uplift.ledger.database import Database
from uplift.settings import Settings
from uplift.wiring import open_relay

_HEADERS = {"Content-Type": "application/fhir+json"}
_LABELS = {"user": "alice", "fhirVersion": "R4", "source": "hospital-a"}


@pytest.fixture(scope="module")
def own(
    tmp_path_factory: pytest.TempPathFactory, ledger_copies: LedgerCopies
) -> Iterator[EmbeddedPostgres]:
    folder = ledger_copies.put(tmp_path_factory.mktemp("own"))
    with EmbeddedPostgres(folder, settings={"fsync": "off"}) as server:
        yield server


@pytest.fixture
async def client(own: EmbeddedPostgres, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    settings = settings.model_copy(update={"database_url": SecretStr(own.url)})
    database = Database.connect(settings)
    key = (await make_keys(database)).backend
    await database.close()
    async with open_relay(settings) as relay:
        async with relay.database.transaction() as connection:
            known = await users.find_user(connection, "alice")
        if known is None:
            await factories.user_without_grant(relay)
    async with _serving(settings, key) as serving:
        yield serving


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


async def _submit(client: httpx.AsyncClient, id_: str) -> httpx.Response:
    return await client.post(
        "/v1/uploads", params=_LABELS, content=orjson.dumps(resource(id=id_)), headers=_HEADERS
    )


@contextmanager
def read_only(server: EmbeddedPostgres) -> Iterator[None]:
    make_read_only(server)
    try:
        yield
    finally:
        make_read_only(server, False)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (frozen, "database_unavailable"),
        (standby_away, "commit_unknown"),
        (read_only, "database_unavailable"),
    ],
)
async def test_answers_come_within_seconds_and_readiness_within_one(
    client: httpx.AsyncClient,
    own: EmbeddedPostgres,
    fault: Callable[[EmbeddedPostgres], AbstractContextManager[None]],
    code: str,
) -> None:
    assert (await _submit(client, "before")).status_code == 202
    with fault(own):
        await asyncio.sleep(1)  # what readiness remembers
        started = time.monotonic()
        ready = await client.get("/readyz")
        assert time.monotonic() - started < 1
        assert_problem(ready, 503)
        started = time.monotonic()
        answers = await asyncio.gather(*(_submit(client, f"during-{n}") for n in range(20)))
        assert time.monotonic() - started < 6  # 5 s, and what this machine is busy with
        for answer in answers:
            assert_problem(answer, 503)
            assert answer.headers["Retry-After"]
        assert code in {answer.json()["code"] for answer in answers}
    async with asyncio.timeout(10):
        while (await _submit(client, "after")).status_code != 202:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        while (await client.get("/readyz")).status_code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
