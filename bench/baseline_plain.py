"""Runs the plain way beside Uplift: `bench.baseline_plain_api` and `bench.baseline_celery` on the same servers."""

import hashlib
import os
import sys
import time
from collections.abc import Iterable
from uuid import uuid4

import psycopg
import redis
from celery import Celery
from psycopg import sql
from sqlalchemy import create_engine, make_url

from bench import testbed
from bench.baseline_plain_tables import Base
from bench.resources import bodies
from bench.testbed import USERS, Resource, Testbed, await_line, await_port
from bench.upstream import Counts
from uplift.cli.local.child_process import ChildProcess
from uplift.cli.local.ports import free_port

QUEUE = "textbook"
_HELD = "textbook.held"


class Plain:
    """A database and a Redis database of its own; processes are started apart."""

    def __init__(self, stood: Testbed) -> None:
        environment = stood.system.environment
        self._stood = stood
        self._url = beside(environment["UPLIFT_DATABASE_URL"], "plain")
        self._redis_url = environment["UPLIFT_REDIS_URL"].rpartition("/")[0] + "/2"
        self.environment = {
            **os.environ,
            "BENCH_DATABASE_URL": self._url,
            "BENCH_REDIS_URL": self._redis_url,
            "BENCH_UPSTREAM_URL": stood.upstream.url,
        }
        engine = create_engine(self._url.replace("postgresql://", "postgresql+psycopg://"))
        Base.metadata.create_all(engine)
        engine.dispose()
        self.tables = psycopg.connect(self._url, autocommit=True)
        self._users = [uuid4() for _ in range(USERS)]
        self.tables.cursor().executemany(
            "INSERT INTO users (id, name, access_token) VALUES (%s, %s, %s)",
            [(id_, f"user-{number}", f"token-{number}") for number, id_ in enumerate(self._users)],
        )
        self.tables.execute(
            "INSERT INTO api_keys (key_hash) VALUES (%s)",
            [hashlib.sha256(stood.key.encode()).digest()],
        )
        self._celery = Celery("bench", broker=self._redis_url, set_as_current=False)
        self._worker: tuple[int, ChildProcess] | None = None

    def close(self) -> None:
        """Close its connections; the processes end with the ground's."""
        self.tables.close()
        self._celery.close()

    def start_api(self, *, in_threads: bool) -> int:
        """Serve `bench.baseline_plain_api`; its port. `in_threads`: call `.delay()` off the event loop."""
        port = free_port(None)
        self._stood.system.processes.start(
            f"plain-{port}",
            [
                *(
                    sys.executable,
                    "-m",
                    "uvicorn",
                    "bench.baseline_plain_api:app",
                    "--port",
                    str(port),
                ),
                *("--loop", "uvloop", "--http", "httptools", "--no-access-log"),
            ],
            env={**self.environment, "BENCH_ENQUEUE": "threads" if in_threads else ""},
        )
        await_port(port)
        return port

    def start_worker(self, processes: int) -> ChildProcess:
        """The textbook worker with so many processes; the one before it, if it had others, ends."""
        if self._worker is not None:
            if self._worker[0] == processes:
                return self._worker[1]
            self._worker[1].stop()
        child = self._stood.system.processes.start(
            f"textbook-{processes}-{free_port(None)}",
            [
                *(sys.executable, "-m", "celery", "-A", "bench.baseline_celery", "worker"),
                *("-Q", QUEUE, "-P", "prefork", "-c", str(processes), "-l", "info"),
                *("-n", f"textbook-{processes}@%h", "--without-mingle", "--without-gossip"),
            ],
            env=self.environment,
        )
        await_line(child, " ready.")
        self._worker = (processes, child)
        return child

    def pss(self) -> int:
        """What the textbook worker's processes hold in memory together, in bytes."""
        assert self._worker is not None  # noqa: S101
        assert self._worker[1].pid is not None  # noqa: S101
        return testbed.pss(self._worker[1].pid)

    def deliver(self, count: int, *, seconds: float = 120.0) -> Counts:
        """Drain a backlog of so many; what the stand-in counted.

        All messages are in the queue before the first is taken, so that putting them there does
        not slow the worker. Raises AssertionError unless each upload is noted as delivered.
        """
        label = self._stood.label()
        ids = self._put_in(("R4", type_, body) for type_, body in bodies(label, count))
        with self._celery.producer_pool.acquire(block=True) as producer:
            for id_ in ids:
                self._celery.send_task(
                    "textbook.deliver", args=[id_], queue=_HELD, producer=producer
                )
        upstream = self._stood.upstream
        upstream.reset(self._stood.upstream_ms)
        with redis.Redis.from_url(self._redis_url) as server:
            server.rename(_HELD, QUEUE)
        upstream.wait(count, seconds)
        self._wait_noted(seconds)
        counts = upstream.counts()
        if counts.arrived != count:
            raise AssertionError(f"{counts.arrived} creates came for {count} uploads.")
        return counts

    def _wait_noted(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while left := self._count_queued():
            if time.monotonic() > ends:
                raise TimeoutError(f"{left} uploads are not noted as delivered.")
            time.sleep(0.05)

    def _count_queued(self) -> int:
        row = self.tables.execute("SELECT count(*) FROM uploads WHERE state = 'queued'").fetchone()
        assert row is not None  # noqa: S101
        return int(row[0])

    def _put_in(self, resources: Iterable[Resource]) -> list[str]:
        ids = []
        with self.tables.cursor().copy(
            "COPY uploads (id, user_id, fhir_version, resource_type, digest, body, state)"
            " FROM STDIN"
        ) as copy:
            for number, (version, type_, body) in enumerate(resources):
                ids.append(str(uuid4()))
                digest = hashlib.sha256(body).digest()
                user_id = self._users[number % USERS]
                copy.write_row((ids[-1], user_id, version, type_, digest, body, "queued"))
        return ids

    def clear(self) -> None:
        """Forget the uploads and the messages of a round of intake."""
        self.tables.execute("TRUNCATE uploads")
        with redis.Redis.from_url(self._redis_url) as server:
            server.flushdb()


def beside(url: str, name: str) -> str:
    """The address of a new database on the same server."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return make_url(url).set(database=name).render_as_string(hide_password=False)
