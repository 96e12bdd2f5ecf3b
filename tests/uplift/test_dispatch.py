"""What a dispatch puts into Redis, and what happens without Redis."""

import asyncio
import base64
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import orjson
import pytest
import redis.asyncio
from pydantic import SecretStr
from uuid_utils.compat import uuid4

from uplift.cli.local.embedded import EmbeddedRedis
from uplift.dispatch import MAX_PENDING, Dispatcher
from uplift.queues import BULK, DELIVER, UPLOADS
from uplift.settings import Settings


@asynccontextmanager
async def dispatcher_at(url: str, *, start: bool = True) -> AsyncIterator[Dispatcher]:
    dispatcher = Dispatcher(Settings(redis_url=SecretStr(url)))
    if start:
        dispatcher.start()
    yield dispatcher
    await dispatcher.close()


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address at which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"redis://127.0.0.1:{bound.getsockname()[1]}/0"


async def messages(client: "redis.asyncio.Redis", queue: str = UPLOADS) -> list[dict[str, Any]]:
    """The messages in a queue, the oldest first."""
    found = await client.lrange(queue, 0, -1)
    return [orjson.loads(message) for message in reversed(found)]


def ids_in(message: dict[str, Any]) -> list[UUID]:
    args, kwargs, _ = orjson.loads(base64.b64decode(message["body"]))
    assert kwargs == {}
    (ids,) = args
    return [UUID(id_) for id_ in ids]


async def all_ids(client: "redis.asyncio.Redis", queue: str = UPLOADS) -> list[UUID]:
    return [id_ for message in await messages(client, queue) for id_ in ids_in(message)]


async def until_published(client: "redis.asyncio.Redis", queue: str, count: int) -> list[UUID]:
    async with asyncio.timeout(20):
        while len(found := await all_ids(client, queue)) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return found


async def published(dispatcher: Dispatcher) -> None:
    async with asyncio.timeout(20):
        while dispatcher.pending(UPLOADS):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_dispatched_id_arrives_in_its_queue_as_a_call_of_the_task(
    redis_server: EmbeddedRedis, client: "redis.asyncio.Redis"
) -> None:
    id_ = uuid4()
    async with dispatcher_at(redis_server.url) as dispatcher:
        dispatcher.dispatch(UPLOADS, [id_])
        assert await until_published(client, UPLOADS, 1) == [id_]
    (message,) = await messages(client)
    assert message["headers"]["task"] == DELIVER
    assert message["content-type"] == "application/json"
    assert await all_ids(client, BULK) == []


async def test_many_ids_arrive_once_each_in_messages_of_at_most_a_hundred(
    redis_server: EmbeddedRedis, client: "redis.asyncio.Redis"
) -> None:
    ids = [uuid4() for _ in range(250)]
    async with dispatcher_at(redis_server.url) as dispatcher:
        for id_ in ids:
            dispatcher.dispatch(UPLOADS, [id_])
            dispatcher.dispatch(UPLOADS, [id_])
        assert await until_published(client, UPLOADS, 250) == ids
    assert [len(ids_in(message)) for message in await messages(client)] == [100, 100, 50]


async def test_a_queue_that_gets_its_first_id_while_another_is_published_is_not_lost(
    redis_server: EmbeddedRedis, client: "redis.asyncio.Redis"
) -> None:
    async with dispatcher_at(redis_server.url) as dispatcher:
        dispatcher.dispatch(UPLOADS, [uuid4() for _ in range(1000)])
        await until_published(client, UPLOADS, 1)
        dispatcher.dispatch(BULK, [uuid4()])
        await until_published(client, BULK, 1)
        await until_published(client, UPLOADS, 1000)
        dispatcher.dispatch(UPLOADS, [uuid4()])
        await until_published(client, UPLOADS, 1001)


async def test_nothing_but_ids_goes_into_redis(
    redis_server: EmbeddedRedis, client: "redis.asyncio.Redis"
) -> None:
    ids = [uuid4(), uuid4()]
    async with dispatcher_at(redis_server.url) as dispatcher:
        dispatcher.dispatch(UPLOADS, ids)
        await until_published(client, UPLOADS, 2)
    (message,) = await messages(client)
    assert message["headers"]["argsrepr"] == repr([[str(id_) for id_ in ids]])
    assert message["headers"]["kwargsrepr"] == "{}"
    keys = set(await client.keys("*"))
    assert keys <= {b"uploads", b"_kombu.binding.uploads", b"_kombu.binding.celery"}


async def test_ids_that_are_pending_at_the_end_are_published(
    redis_server: EmbeddedRedis, client: "redis.asyncio.Redis"
) -> None:
    ids = [uuid4() for _ in range(300)]
    async with dispatcher_at(redis_server.url) as dispatcher:
        dispatcher.dispatch(UPLOADS, ids)
    assert await all_ids(client) == ids


async def test_a_message_that_is_being_published_at_the_end_is_not_cut_off(
    redis_server: EmbeddedRedis, client: "redis.asyncio.Redis"
) -> None:
    for _ in range(20):
        await client.flushall()
        id_ = uuid4()
        async with dispatcher_at(redis_server.url) as dispatcher:
            dispatcher.dispatch(UPLOADS, [id_])
            await asyncio.sleep(0)  # the publisher has taken it
        assert await all_ids(client) == [id_]


async def test_a_dispatch_of_no_ids_publishes_nothing(
    redis_server: EmbeddedRedis, client: "redis.asyncio.Redis"
) -> None:
    async with dispatcher_at(redis_server.url) as dispatcher:
        dispatcher.dispatch(UPLOADS, [])
        dispatcher.dispatch(BULK, [uuid4()])
        await until_published(client, BULK, 1)
    assert await messages(client) == []


async def test_waiting_counts_the_messages_that_no_worker_has_taken(
    redis_server: EmbeddedRedis, client: "redis.asyncio.Redis"
) -> None:
    async with dispatcher_at(redis_server.url) as dispatcher:
        assert await dispatcher.waiting(UPLOADS) == 0
        dispatcher.dispatch(UPLOADS, [uuid4() for _ in range(201)])
        await until_published(client, UPLOADS, 201)
        assert await dispatcher.waiting(UPLOADS) == 3
        assert await dispatcher.waiting(BULK) == 0


async def test_without_redis_a_dispatch_does_not_raise_and_pending_ids_are_dropped(
    nowhere: str,
) -> None:
    async with asyncio.timeout(60), dispatcher_at(nowhere) as dispatcher:
        dispatcher.dispatch(UPLOADS, [uuid4() for _ in range(1000)])
        assert await dispatcher.waiting(UPLOADS) is None
        await published(dispatcher)


async def test_dispatches_go_on_when_redis_was_full_and_is_not_any_more(
    redis_server: EmbeddedRedis, client: "redis.asyncio.Redis"
) -> None:
    lost, id_ = uuid4(), uuid4()
    await client.config_resetstat()
    async with asyncio.timeout(30), dispatcher_at(redis_server.url) as dispatcher:
        await client.config_set("maxmemory", 1)  # and noeviction: it takes nothing more
        try:
            dispatcher.dispatch(UPLOADS, [lost])
            while "errorstat_OOM" not in await client.info("errorstats"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        finally:
            await client.config_set("maxmemory", 0)
        while id_ not in await all_ids(client):
            dispatcher.dispatch(UPLOADS, [id_])
            await asyncio.sleep(0.01)
    assert lost not in await all_ids(client)


async def test_dispatches_go_on_when_connections_are_cut(
    redis_server: EmbeddedRedis, client: "redis.asyncio.Redis"
) -> None:
    async with asyncio.timeout(30), dispatcher_at(redis_server.url) as dispatcher:
        dispatcher.dispatch(UPLOADS, [uuid4()])
        await until_published(client, UPLOADS, 1)
        await client.client_kill_filter(_type="normal", skipme=True)
        id_ = uuid4()
        while id_ not in await all_ids(client):
            dispatcher.dispatch(UPLOADS, [id_])  # at worst the first is lost with its connection
            await asyncio.sleep(0.05)


async def test_a_dispatch_does_not_wait_for_a_redis_that_never_answers() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        async with asyncio.timeout(30), dispatcher_at(url, start=False) as dispatcher:
            dispatcher.dispatch(UPLOADS, [uuid4()])
            assert await dispatcher.waiting(UPLOADS) is None


async def test_the_number_of_pending_ids_has_a_limit(nowhere: str) -> None:
    async with dispatcher_at(nowhere, start=False) as dispatcher:
        for _ in range(1200):
            dispatcher.dispatch(UPLOADS, [uuid4() for _ in range(100)])
        dispatcher.dispatch(BULK, [uuid4()])
        assert dispatcher.pending(UPLOADS) == MAX_PENDING
        assert dispatcher.pending(BULK) == 1


async def test_no_more_messages_are_published_than_the_setting_says_while_nobody_takes_them(
    redis_server: EmbeddedRedis, client: "redis.asyncio.Redis"
) -> None:
    settings = Settings(redis_url=SecretStr(redis_server.url), max_queued_messages=3)
    dispatcher = Dispatcher(settings)
    dispatcher.start()
    for _ in range(10):
        dispatcher.dispatch(UPLOADS, [uuid4()])
        await published(dispatcher)
    dispatcher.dispatch(UPLOADS, [uuid4() for _ in range(1000)])
    dispatcher.dispatch(BULK, [uuid4()])
    await dispatcher.close()
    assert len(await messages(client)) == 3
    assert len(await messages(client, BULK)) == 1


async def test_workers_that_keep_up_get_every_message(
    redis_server: EmbeddedRedis, client: "redis.asyncio.Redis"
) -> None:
    settings = Settings(redis_url=SecretStr(redis_server.url), max_queued_messages=3)
    dispatcher = Dispatcher(settings)
    dispatcher.start()
    ids = [uuid4() for _ in range(20)]
    for id_ in ids:
        dispatcher.dispatch(UPLOADS, [id_])
        assert await until_published(client, UPLOADS, 1) == [id_]
        await client.delete(UPLOADS)
    await dispatcher.close()


async def test_a_full_queue_gets_messages_again_when_it_was_emptied(
    redis_server: EmbeddedRedis, client: "redis.asyncio.Redis"
) -> None:
    settings = Settings(redis_url=SecretStr(redis_server.url), max_queued_messages=1)
    dispatcher = Dispatcher(settings)
    dispatcher.start()
    await client.lpush(UPLOADS, b"message")
    dispatcher.dispatch(UPLOADS, [uuid4()])
    await published(dispatcher)
    await client.delete(UPLOADS)
    async with asyncio.timeout(20):
        while not await messages(client):
            dispatcher.dispatch(UPLOADS, [uuid4()])
            await asyncio.sleep(0.05)
    await dispatcher.close()
