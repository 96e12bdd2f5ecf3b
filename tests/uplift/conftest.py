"""What tests of single use cases need of the servers, without a simulated 1upHealth."""

from collections.abc import AsyncIterator

import pytest
import redis.asyncio
from pydantic import SecretStr

from uplift.cli.local.embedded import EmbeddedRedis
from uplift.dispatch import Dispatcher
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
