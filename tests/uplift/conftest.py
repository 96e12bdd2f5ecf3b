"""What tests of single use cases need of the servers besides a simulated 1upHealth."""

from collections.abc import AsyncIterator, Iterator

import pytest
import redis.asyncio
from pydantic import SecretStr

from uplift.cli.local.embedded import EmbeddedRedis
from uplift.dispatch import Dispatcher
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings


@pytest.fixture
async def client(redis_server: EmbeddedRedis) -> AsyncIterator["redis.asyncio.Redis"]:
    """The Redis of the run, empty."""
    opened = redis.asyncio.from_url(redis_server.url)
    await opened.flushall()
    yield opened
    await opened.aclose()


@pytest.fixture
def own_settings(migrated: str, redis_server: EmbeddedRedis, master_keys: str) -> Settings:
    """Settings for the ledger and the Redis of the run."""
    return Settings(
        database_url=SecretStr(migrated),
        redis_url=SecretStr(redis_server.url),
        master_keys=SecretStr(master_keys),
    )


@pytest.fixture
async def dispatcher(
    client: "redis.asyncio.Redis", own_settings: Settings
) -> AsyncIterator[Dispatcher]:
    """Over the empty Redis. It publishes when it is started or closed."""
    opened = Dispatcher(own_settings)
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
def shared_assigning() -> Iterator[SandboxServer]:
    with SandboxServer(SandboxConfig(ids="assigned")) as server:
        yield server


@pytest.fixture
def assigning(shared_assigning: SandboxServer) -> SandboxServer:
    """A 1upHealth that gives resources ids of its own, without users."""
    shared_assigning.reset()
    return shared_assigning


@pytest.fixture(scope="session")
def shared_hapi() -> Iterator[SandboxServer]:
    with SandboxServer(SandboxConfig(like="hapi")) as server:
        yield server


@pytest.fixture
def hapi(shared_hapi: SandboxServer) -> SandboxServer:
    """A HAPI server without a resource, without integrity of what is not Uplift's."""
    shared_hapi.reset()
    return shared_hapi


@pytest.fixture
def at_hapi(settings: Settings, hapi: SandboxServer) -> Settings:
    """Settings of a deployment whose only destination is that server."""
    return settings.model_copy(
        update={
            "destination": "hapi",
            "destination_r4": f"{hapi.url}/r4",
            "destination_dstu2": f"{hapi.url}/dstu2",
            "oneup_client_id": "",
        }
    )
