"""The faults of a Redis that still answers, each for one `with` block."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import redis

from uplift.cli.local.embedded import EmbeddedRedis

Fault = Callable[[EmbeddedRedis], AbstractContextManager[None]]


@contextmanager
def _configured(server: EmbeddedRedis, **during: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        before = {name: client.config_get(name)[name] for name in during}
        for name, value in during.items():
            client.config_set(name, value)
        try:
            yield client
        finally:
            for name, value in before.items():
                client.config_set(name, value)


@contextmanager
def read_only(server: EmbeddedRedis) -> Iterator[None]:
    """READONLY: a master that became a replica, as in a failover."""
    with redis.Redis.from_url(server.url) as client:
        client.replicaof("127.0.0.1", "1")
        try:
            yield
        finally:
            client.replicaof("NO", "ONE")


@contextmanager
def master_down(server: EmbeddedRedis) -> Iterator[None]:
    """MASTERDOWN: a replica that serves nothing without its master."""
    with _configured(server, **{"replica-serve-stale-data": "no"}), read_only(server):
        yield


@contextmanager
def full(server: EmbeddedRedis) -> Iterator[None]:
    """OOM: more memory is used than maxmemory."""
    with _configured(server, maxmemory="1"):
        yield


@contextmanager
def disk_full(server: EmbeddedRedis) -> Iterator[None]:
    """MISCONF: a snapshot cannot be written."""
    in_the_way = server.folder / "dump.rdb"
    in_the_way.mkdir()
    try:
        with _configured(server, save="3600 1") as client:
            client.set("changed", 1)
            client.bgsave()
            while client.info("persistence")["rdb_bgsave_in_progress"]:
                pass
            yield
    finally:
        shutil.rmtree(in_the_way)


@contextmanager
def not_permitted(server: EmbeddedRedis) -> Iterator[None]:
    """NOPERM: the account may not write."""
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", "default", "-@write")
        try:
            yield
        finally:
            client.execute_command("ACL", "SETUSER", "default", "+@all")


@contextmanager
def restarting(server: EmbeddedRedis) -> Iterator[None]:
    """It dies ten times, each time as soon as it is there again."""
    for _ in range(10):
        server.kill()
        server.start()
    yield


FAULTS: tuple[Fault, ...] = (read_only, master_down, full, disk_full, not_permitted, restarting)
