"""Whoever reaches Redis cannot stop a worker, or keep it from its work.

A real worker, on a Redis of its own.
"""

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import redis.asyncio
from celery import Celery
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from tests import factories
from tests.worker.entries import WORKER, command, environment
from tests.worker.waiting import until_logged
from uplift.cli.local.child_process import ChildProcess
from uplift.cli.local.embedded import EmbeddedRedis
from uplift.cli.local.ports import free_port
from uplift.ledger.database import Database
from uplift.lifecycle import State
from uplift.queues import DELIVER, UPLOADS
from uplift.settings import Settings
from uplift.wiring import Relay, open_relay
from uplift.worker.remote_control import ANSWERED

_SECONDS = 20.0


@dataclass(frozen=True)
class _Running:
    worker: ChildProcess
    relay: Relay
    redis: "redis.asyncio.Redis"
    celery: Celery
    metrics: str

    async def delivers(self, record: str) -> None:
        """A new record is delivered within seconds, while the sweep does its work."""
        accepted = await factories.accepted(self.relay, id=record)
        until = time.monotonic() + _SECONDS
        while (await factories.status(self.relay, accepted)).state is not State.DELIVERED:
            assert self.worker.running, self.worker.tail(200)
            assert time.monotonic() < until, self.worker.tail(200)
            await self.relay.sweeper.sweep()
            await asyncio.sleep(0.5)

    async def dropped(self, kind: str) -> float:
        """How many things of that kind the worker has dropped."""
        async with httpx.AsyncClient() as client:
            text = (await client.get(self.metrics)).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "uplift_redis_foreign_total" and sample.labels["kind"] == kind
        )


@asynccontextmanager
async def _running(settings: Settings, folder: Path) -> AsyncIterator[_Running]:
    with EmbeddedRedis(folder / "own") as server:
        settings = settings.model_copy(update={"redis_url": SecretStr(server.url)})
        port = str(free_port())
        worker = ChildProcess(
            "worker",
            command(WORKER),
            log=folder / "worker.log",
            env=environment(settings, UPLIFT_ADMIN_PORT=port),
        )
        worker.start()
        try:
            await until_logged(worker, "ready.")
            celery = Celery("stranger", broker=server.url, set_as_current=False)
            async with open_relay(settings) as relay, redis.asyncio.from_url(server.url) as client:
                await factories.user(relay)
                metrics = f"http://127.0.0.1:{port}/metrics"
                with celery:
                    yield _Running(worker, relay, client, celery, metrics)
            celery.close()
        finally:
            await asyncio.to_thread(worker.stop)
        assert worker.returncode == 0, worker.tail(200)


async def test_a_worker_answers_flower_and_obeys_nobody(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    orders: list[tuple[str, dict[str, Any]]] = [
        ("shutdown", {}),
        ("cancel_consumer", {"queue": UPLOADS}),
        ("add_consumer", {"queue": "foreign"}),
        ("pool_shrink", {"n": 100}),
        ("pool_grow", {"n": 100_000}),
        ("pool_restart", {"modules": ["os"], "reload": True}),
        ("autoscale", {"max": 1, "min": 0}),
        ("rate_limit", {"task_name": DELIVER, "rate_limit": "1/h"}),
        ("time_limit", {"task_name": DELIVER, "hard": 1, "soft": 1}),
        ("revoke", {"task_id": ["1"], "terminate": True}),
        ("terminate", {"signal": "KILL", "task_id": "1"}),
        ("revoke_by_stamped_headers", {"headers": {"a": "b"}}),
        ("disable_events", {}),
        ("objgraph", {}),
        ("memdump", {}),
        ("hello", {"from_node": "x", "revoked": {"1": 1}}),
        ("nothing", {}),
    ]
    async with _running(settings, tmp_path) as running:

        def ask(name: str, arguments: dict[str, Any] | None = None) -> list[dict[str, Any]]:
            told = running.celery.control.broadcast(name, arguments, reply=True, timeout=2, limit=1)
            return list(told or [])

        for order, arguments in orders:
            replies = await asyncio.to_thread(ask, order, arguments)
            assert [list(each.values()) for each in replies] == [
                [{"error": "not a command of Uplift's workers"}]
            ], order
        assert await running.dropped("command") == len(orders)
        # What is no command at all.
        for body in (b"garbage", b"[1]", b"{}", b'{"method": [1], "arguments": 5, "reply_to": 7}'):
            await running.redis.publish("/0.celery.pidbox", body)
        for question in sorted(ANSWERED):
            replies = await asyncio.to_thread(ask, question)
            assert len(replies) == 1, question
            assert not any("error" in (each or {}) for each in replies[0].values()), question
        await running.delivers("after")
        [reply] = await asyncio.to_thread(ask, "active_queues")
        [queues] = reply.values()
        assert [each["name"] for each in queues] == [UPLOADS]


def _message(body: object = None, **headers: Any) -> bytes:
    """A message of the task, with another body or other headers."""
    content = [[["1"]], {}, {}] if body is None else body
    return orjson.dumps({
        "body": base64.b64encode(orjson.dumps(content)).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": DELIVER, "id": "1", "root_id": "1", **headers},
        "properties": {
            "body_encoding": "base64",
            "delivery_tag": "1",
            "delivery_info": {"exchange": UPLOADS, "routing_key": UPLOADS},
            "delivery_mode": 2,
            "priority": 0,
        },
    })  # fmt: skip


_GARBAGE = [
    b"",
    b"garbage",
    b"\xff\xfe",
    b"[]",
    b"{}",
    b"[" * 100_000,
    b'{"body": 1, "properties": {}}',
    _message(eta="2036-01-01T00:00:00+00:00"),
    _message(compression="application/x-gzip"),
    _message([]),
    _message("garbage"),
    _message([["not ids"], {}, {}]),
    _message([[["not an id"]], {}, {}]),
    _message([[[str(factories.new_id())] * 101], {}, {}]),
    _message([[], {"more": 1}, {}]),
    _message([[[]], {}, {"chord": {"task": "x"}, "callbacks": [1], "chain": 5}]),
    _message(expires="garbage"),
    _message(retries="many", timelimit="garbage", id=["1"]),
]


async def test_garbage_in_a_queue_is_dropped_and_the_worker_works_on(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    async with _running(settings, tmp_path) as running:
        for _ in range(20):
            await running.redis.lpush(UPLOADS, *_GARBAGE)
        await running.redis.lpush(f"{UPLOADS}\x06\x163", *_GARBAGE)
        await running.delivers("after")
        until = time.monotonic() + _SECONDS
        while left := await running.redis.llen(UPLOADS):
            assert time.monotonic() < until, left
            await asyncio.sleep(0.1)
        # The first nine are not even messages.
        assert await running.dropped("message") >= 9 * 21


async def _wrong_types(client: "redis.asyncio.Redis") -> None:
    keys = [UPLOADS, "unacked", "unacked_index", f"_kombu.binding.{UPLOADS}"]
    await client.delete(*keys)
    for key in keys:
        await client.set(key, "garbage")


async def _foreign_bindings(client: "redis.asyncio.Redis") -> None:
    await client.sadd(f"_kombu.binding.{UPLOADS}", "garbage", "uploads\x06\x16\x06\x16elsewhere")
    await client.sadd("_kombu.binding.reply.celery.pidbox", "garbage", b"\xff")


async def _no_binding_of_ours(client: "redis.asyncio.Redis") -> None:
    await client.delete(f"_kombu.binding.{UPLOADS}")
    await client.sadd(f"_kombu.binding.{UPLOADS}", "uploads\x06\x16\x06\x16elsewhere")


async def _unacknowledged(client: "redis.asyncio.Redis") -> None:
    await client.set("unacked_mutex", "held for ever")
    for number, value in enumerate((b"garbage", b"[]", b"[1, 2]", b"[5, 6, 7]", b"\xff", b"null")):
        await client.hset("unacked", f"garbage {number}", value)
        await client.zadd("unacked_index", {f"garbage {number}": number})


async def test_poisoned_keys_are_replaced_and_the_worker_works_on(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    async with _running(settings, tmp_path) as running:
        client = running.redis
        await running.delivers("before")
        for poison in (_wrong_types, _foreign_bindings, _no_binding_of_ours, _unacknowledged):
            await poison(client)
            await running.delivers(poison.__name__.replace("_", "-"))
            bindings = await client.smembers(f"_kombu.binding.{UPLOADS}")
            assert bindings == {b"uploads\x06\x16\x06\x16uploads"}, poison
        assert await client.get("unacked_mutex") != b"held for ever"
        until = time.monotonic() + 30  # Celery looks for messages of dead workers every 10 s
        while await client.zcard("unacked_index"):
            assert time.monotonic() < until, await client.zrange("unacked_index", 0, -1)
            await asyncio.sleep(0.5)
        assert await client.hlen("unacked") == 0
