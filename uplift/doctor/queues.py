"""Can Redis carry the queues, and does a worker consume each of them?"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import redis.asyncio
from celery import Celery
from redis.backoff import NoBackoff
from redis.retry import Retry

from uplift.clocks import MAX_APART_SECONDS
from uplift.doctor.findings import Finding, fail, ok, warn
from uplift.queues import BULK, SWEPT_KEY, UPLOADS
from uplift.redis_connection import refusal

REDIS = "redis"
WORKERS = "workers"

# Which process of the Procfile and of docker-compose.yml consumes which queue.
CONSUMERS = {UPLOADS: "worker", BULK: "bulk"}

_MIN_VERSION = 7
_FULL = 0.8
_REPLY_SECONDS = 3.0
_MAX_NAME = 255
_MAX_NOTE_SECONDS = 24 * 3600
FAST: dict[str, Any] = {"socket_connect_timeout": 2.0, "socket_timeout": 5.0}


async def redis_info(url: str) -> Mapping[str, Any]:
    """Redis' INFO. Managed services allow it, but often not CONFIG."""
    client = redis.asyncio.from_url(url, **FAST, retry=Retry(NoBackoff(), 0))
    try:
        info: Mapping[str, Any] = await client.info()
        return info
    finally:
        await client.aclose()


def judge_redis(info: Mapping[str, Any]) -> list[Finding]:
    """Its version, eviction policy and persistence."""
    return list(_judged(info))


def _judged(info: Mapping[str, Any]) -> Iterator[Finding]:
    # Valkey puts the version of Redis that it is compatible with here, and its own elsewhere.
    version = str(info.get("redis_version", "0"))
    name = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {version}"
    if int(version.split(".")[0]) < _MIN_VERSION:
        yield fail(
            REDIS, f"version {name}", f"Upgrade to Redis {_MIN_VERSION} or newer, or Valkey."
        )
    else:
        yield ok(REDIS, f"version {name}")
    policy = info.get("maxmemory_policy")
    if policy == "noeviction":
        yield ok(REDIS, "maxmemory-policy noeviction")
    else:
        yield fail(
            REDIS,
            f"maxmemory-policy {policy}: when Redis is full, it drops queues and the quota's count",
            "Set maxmemory-policy noeviction. Give Uplift a Redis of its own.",
        )
    if info.get("aof_enabled"):
        yield ok(REDIS, "append-only file on")
    else:
        yield warn(
            REDIS,
            "append-only file off: after a restart, queues and the quota's count are gone",
            "Set appendonly yes. Without it no upload is lost, but delivered later: the sweep"
            " dispatches it again.",
        )
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if limit and used > _FULL * limit:
        yield warn(
            REDIS,
            f"{used / limit:.0%} of maxmemory is used",
            "Raise maxmemory, or find out what else uses this Redis. When it is full, it takes no"
            " messages.",
        )


def judge_clock(info: Mapping[str, Any], machine: float) -> list[Finding]:
    """Whether Redis' clock is that of this `machine`, in seconds since 1970; nothing if it does
    not say."""
    if "server_time_usec" not in info:
        return []
    ahead = int(info["server_time_usec"]) / 1e6 - machine
    if abs(ahead) <= MAX_APART_SECONDS:
        return []
    way = "ahead of" if ahead > 0 else "behind"
    return [
        fail(
            REDIS,
            f"its clock is {abs(ahead):.0f} s {way} this machine's",
            "Run NTP on both. While they differ, nothing expires.",
        )
    ]


_REFUSED: Mapping[str, tuple[str, str]] = {
    "READONLY": (
        "a replica",
        "Promote it, or let UPLIFT_REDIS_URL name the master.",
    ),
    "MASTERDOWN": (
        "a replica without its master",
        "Promote it, or bring its master back.",
    ),
    "OOM": (
        "full",
        "Raise maxmemory, or find out what else uses this Redis.",
    ),
    "MISCONF": (
        "not able to write to its disk",
        "Make room on its disk; its log says where. It goes on by itself.",
    ),
    "LOADING": (
        "still loading its data",
        "Wait: it goes on by itself.",
    ),
    "NOPERM": (
        "not permitting its account to write",
        "Give the account of UPLIFT_REDIS_URL all commands: ACL SETUSER … +@all ~*.",
    ),
    "NOAUTH": (
        "asking for another password",
        "Correct the password in UPLIFT_REDIS_URL.",
    ),
}


async def write_refusal(url: str) -> str | None:
    """Why Redis takes no message: its own word for it; None if it takes some."""
    client = redis.asyncio.from_url(url, **FAST, retry=Retry(NoBackoff(), 0))
    try:
        return await refusal(client)
    finally:
        await client.aclose()


def judge_refusal(word: str) -> Finding:
    """What that word means, and what to do."""
    what, do = _REFUSED.get(word, ("not taking messages", "Its log says why."))
    return fail(
        REDIS,
        f"Redis is {what} ({word})",
        f"{do} Meanwhile uploads are accepted. They are delivered when Redis is back.",
    )


async def is_swept(url: str) -> bool:
    """Whether a sweep ended lately: `uplift beat` notes each in Redis, for a minute or longer."""
    client = redis.asyncio.from_url(url, **FAST, retry=Retry(NoBackoff(), 0))
    try:
        # One that lasts for longer is no note of a sweep.
        return 0 < await client.ttl(SWEPT_KEY) <= _MAX_NOTE_SECONDS
    finally:
        await client.aclose()


def judge_sweeps(*, swept: bool) -> Finding:
    """Whether `uplift beat` works."""
    if swept:
        return ok(WORKERS, "beat: a sweep ended lately")
    return fail(
        WORKERS,
        "beat: no sweep has ended for a minute",
        "Start the process `beat`. If it runs, read its log.",
    )


async def queue_consumers(url: str) -> dict[str, list[str]]:
    """The names of the workers that consume each queue, by queue. Asks them over the broker."""

    def ask() -> object:
        app = Celery("doctor", broker=url, set_as_current=False)
        app.conf.update(
            result_backend=None,
            broker_connection_max_retries=1,
            broker_transport_options={**FAST, "max_retries": 1},
        )
        with app:
            # Not with `inspect`: it shows two workers of the same name as one.
            return app.control.broadcast("active_queues", reply=True, timeout=_REPLY_SECONDS)

    return consumers_in(await asyncio.to_thread(ask))


def consumers_in(replies: object) -> dict[str, list[str]]:
    """The names of the workers that consume each queue of ours, by queue.

    Whoever reaches Redis can reply: what is no reply of a worker is left out.
    """
    consumers: dict[str, list[str]] = {}
    for reply in replies if isinstance(replies, list) else ():
        for worker, consumed in reply.items() if isinstance(reply, dict) else ():
            for queue in consumed if isinstance(consumed, list) else ():
                match queue:
                    case {"name": str(name)} if name in CONSUMERS and len(worker) <= _MAX_NAME:
                        consumers.setdefault(name, []).append(worker)
    return consumers


def judge_consumers(consumers: Mapping[str, list[str]]) -> list[Finding]:
    """Whether every queue has a worker, and every worker a name of its own."""
    found = [
        ok(WORKERS, f"queue {queue}: {len(consumers[queue])} worker(s)")
        if consumers.get(queue)
        else fail(
            WORKERS,
            f"queue {queue}: no worker replies within {_REPLY_SECONDS:.0f} s",
            f"Start the process `{process}`. If it runs, read its log.",
        )
        for queue, process in CONSUMERS.items()
    ]
    # Count each queue for itself: one worker may consume several.
    counts = [Counter(consumers.get(queue, [])) for queue in CONSUMERS]
    shared = sorted({name for each in counts for name, number in each.items() if number > 1})
    found += [
        warn(
            WORKERS,
            f"several workers have the name {name}",
            "Give each its own name: `uplift worker --name NAME`. They work, but Flower shows"
            " them as one.",
        )
        for name in shared
    ]
    return found
