"""Each fault of PostgreSQL and Redis: what readiness, health and the doctor say while it lasts.

The table is in docs/operations.md.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy.exc import SQLAlchemyError

from chaos import postgres_faults, redis_faults
from tests.ledger_copies import LedgerCopies
from uplift.api.app import create_app
from uplift.cli.local.embedded import EmbeddedPostgres, EmbeddedRedis
from uplift.cli.local.embedded.server import Server
from uplift.doctor.examine import examine
from uplift.doctor.findings import Verdict
from uplift.metrics import ledger_gauges
from uplift.settings import Settings
from uplift.wiring import Relay

_PAGE = Path(__file__).parents[2] / "docs" / "operations.md"

Fault = Callable[[Any], AbstractContextManager[None]]


@contextmanager
def away(server: Server) -> Iterator[None]:
    """The server died."""
    server.kill()
    try:
        yield
    finally:
        server.start()


@contextmanager
def read_only(server: EmbeddedPostgres) -> Iterator[None]:
    """A primary that became a standby."""
    postgres_faults.make_read_only(server)
    try:
        yield
    finally:
        postgres_faults.make_read_only(server, False)


_POSTGRES: dict[str, Fault] = {
    "PostgreSQL is away": away,
    "PostgreSQL is frozen": postgres_faults.frozen,
    "PostgreSQL is a standby": read_only,
    "PostgreSQL's synchronous standby is away": postgres_faults.standby_away,
    "Somebody locks a table of PostgreSQL": postgres_faults.locked,
}
_REDIS: dict[str, Fault] = {
    "Redis is away": away,
    "Redis is a replica (READONLY)": redis_faults.read_only,
    "Redis is a replica without its master (MASTERDOWN)": redis_faults.master_down,
    "Redis is full (OOM)": redis_faults.full,
    "Redis cannot write to its disk (MISCONF)": redis_faults.disk_full,
    "Redis does not permit its account to write (NOPERM)": redis_faults.not_permitted,
}


@pytest.fixture(scope="module")
def servers(
    tmp_path_factory: pytest.TempPathFactory, ledger_copies: LedgerCopies
) -> Iterator[tuple[EmbeddedPostgres, EmbeddedRedis]]:
    folder = ledger_copies.put(tmp_path_factory.mktemp("own"))
    with (
        EmbeddedPostgres(folder, settings={"fsync": "off"}) as postgres,
        EmbeddedRedis(folder) as redis_server,
    ):
        yield postgres, redis_server


@pytest.mark.parametrize("name", [*_POSTGRES, *_REDIS])
async def test_a_fault_is_told_as_the_page_says(
    name: str, servers: tuple[EmbeddedPostgres, EmbeddedRedis], settings: Settings
) -> None:
    postgres, redis_server = servers
    settings = settings.model_copy(
        update={
            "database_url": SecretStr(postgres.url),
            "redis_url": SecretStr(redis_server.url),
        }
    )
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        relay: Relay = app.state.relay
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://uplift"
        ) as client:
            assert (await client.get("/readyz")).json()["status"] == "ready"
            fault = _POSTGRES[name](postgres) if name in _POSTGRES else _REDIS[name](redis_server)
            with fault:
                await asyncio.sleep(1)  # what readiness remembers
                row = [name, await _readyz(client), await _healthz(client)]
                row += await asyncio.gather(_doctor(settings), _alert(relay))
            async with asyncio.timeout(20):
                while (await client.get("/readyz")).json()["status"] != "ready":  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
    line = f"| {' | '.join(row)} |"
    assert line in _PAGE.read_text(), line


async def _readyz(client: httpx.AsyncClient) -> str:
    answer = await client.get("/readyz")
    return f"{answer.status_code} `{answer.json().get('code') or answer.json()['status']}`"


async def _healthz(client: httpx.AsyncClient) -> str:
    answer = await client.get("/healthz")
    return f"{answer.status_code}"


async def _doctor(settings: Settings) -> str:
    """The first finding that fails and is of PostgreSQL or Redis."""
    async for finding in examine(settings):
        fails = finding.verdict is Verdict.FAIL and finding.part in ("postgres", "redis")
        if fails and not finding.what.startswith("fsync = off"):
            return finding.what
    return "nothing"


async def _alert(relay: Relay) -> str:
    """The alert whose metric shows it."""
    try:
        await relay.sweeper.sweep()
    except SQLAlchemyError:
        return "UpliftSweepStalled"
    await relay.measurer.measure()
    up = [
        sample.value
        for family in ledger_gauges.collect()
        for sample in family.samples
        if sample.name == "uplift_redis_up"
    ]
    return "UpliftRedisDown" if up == [0.0] else "none"
