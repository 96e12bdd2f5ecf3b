"""What the doctor's tests change on the servers themselves."""

from collections.abc import AsyncIterator

import pytest
import redis.asyncio

from uplift.cli.local.embedded import EmbeddedRedis


@pytest.fixture
async def client_of_redis(redis_server: EmbeddedRedis) -> AsyncIterator["redis.asyncio.Redis"]:
    """The Redis of the run."""
    opened = redis.asyncio.from_url(redis_server.url)
    yield opened
    await opened.aclose()
