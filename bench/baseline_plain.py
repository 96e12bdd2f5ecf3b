"""Runs the baselines beside Uplift, on the same PostgreSQL and Redis.

`bench.baseline_plain_api` accepts uploads, `bench.baseline_celery` delivers them.
"""

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

from bench.baseline_plain_tables import BATCHES, Base
from bench.resources import bodies
from bench.testbed import USERS, Resource, Testbed, await_line, await_port, pss
from bench.upstream import Counts
from uplift.cli.local.child_process import ChildProcess
from uplift.cli.local.ports import free_port

QUEUE = "baseline_celery"
BATCHES_API = "baseline_batches_api"
_PREPARED = "baseline_celery.prepared"


class Baseline:
    """Both baselines, with a database and a Redis database of their own."""

    def __init__(self, testbed: Testbed) -> None:
        environment = testbed.system.environment
        self._testbed = testbed
        self._url = beside(testbed.superuser_url, "baseline")
        self._redis_url = environment["UPLIFT_REDIS_URL"].rpartition("/")[0] + "/2"
        self.environment = {
            **os.environ,
            "BENCH_DATABASE_URL": self._url,
            "BENCH_REDIS_URL": self._redis_url,
            "BENCH_UPSTREAM_URL": testbed.upstream.url,
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
            [hashlib.sha256(testbed.key.encode()).digest()],
        )
        self._celery = Celery("bench", broker=self._redis_url, set_as_current=False)
        self._worker: tuple[int, ChildProcess] | None = None
        self._storing: ChildProcess | None = None

    def close(self) -> None:
        """Close its connections; its processes end with those of the testbed."""
        self.tables.close()
        self._celery.close()

    def start_api(self, *, in_threads: bool) -> int:
        """Serve `bench.baseline_plain_api`; its port. `in_threads`: `.delay()` runs in threads."""
        return self._serve(
            "baseline_plain",
            "bench.baseline_plain_api:app",
            BENCH_ENQUEUE="threads" if in_threads else "",
        )

    def start_batches_api(self) -> int:
        """Serve the door of `bench.baseline_batches`; its port."""
        return self._serve(BATCHES_API, "bench.baseline_batches:api")

    def _serve(self, name: str, app: str, **environment: str) -> int:
        port = free_port(None)
        self._testbed.system.processes.start(
            f"{name}-{port}",
            [
                *(sys.executable, "-m", "uvicorn", app, "--port", str(port)),
                *("--loop", "uvloop", "--http", "httptools", "--no-access-log"),
            ],
            env={**self.environment, **environment},
        )
        await_port(port)
        return port

    def start_batches_worker(self, processes: int) -> str:
        """Start the worker of `bench.baseline_batches`; its name. One that ran before ends."""
        if self._storing is not None:
            self._storing.stop()
        name = f"{BATCHES}-{processes}-{free_port(None)}"
        self._storing = self._testbed.system.processes.start(
            name,
            [
                *(sys.executable, "-m", "celery", "-A", "bench.baseline_batches", "worker"),
                *("-Q", BATCHES, "-P", "prefork", "-c", str(processes), "-l", "info"),
                *("-n", f"{BATCHES}-{processes}@%h", "--without-mingle", "--without-gossip"),
            ],
            env=self.environment,
        )
        await_line(self._storing, " ready.")
        return name

    def start_worker(self, processes: int) -> ChildProcess:
        """Start the Celery worker with this many processes; one with another number ends."""
        if self._worker is not None:
            if self._worker[0] == processes:
                return self._worker[1]
            self._worker[1].stop()
        child = self._testbed.system.processes.start(
            f"baseline_celery-{processes}-{free_port(None)}",
            [
                *(sys.executable, "-m", "celery", "-A", "bench.baseline_celery", "worker"),
                *("-Q", QUEUE, "-P", "prefork", "-c", str(processes), "-l", "info"),
                *("-n", f"baseline_celery-{processes}@%h", "--without-mingle", "--without-gossip"),
            ],
            env=self.environment,
        )
        await_line(child, " ready.")
        self._worker = (processes, child)
        return child

    def pss(self) -> int:
        """The memory of all processes of the Celery worker together, in bytes."""
        assert self._worker is not None  # noqa: S101
        assert self._worker[1].pid is not None  # noqa: S101
        return pss(self._worker[1].pid)

    def deliver(self, count: int, *, seconds: float = 120.0) -> Counts:
        """Drain a backlog of `count` uploads; what the stand-in counted.

        All messages are in the queue before the worker gets the first, so that enqueuing does not
        slow the worker. Raises AssertionError unless each upload is recorded as delivered.
        """
        label = self._testbed.label()
        ids = self._put_in(("R4", type_, body) for type_, body in bodies(label, count))
        with self._celery.producer_pool.acquire(block=True) as producer:
            for id_ in ids:
                self._celery.send_task(
                    "baseline_celery.deliver", args=[id_], queue=_PREPARED, producer=producer
                )
        upstream = self._testbed.upstream
        upstream.reset(self._testbed.upstream_ms)
        with redis.Redis.from_url(self._redis_url) as server:
            server.rename(_PREPARED, QUEUE)
        upstream.wait(count, seconds)
        self._wait_recorded(seconds)
        counts = upstream.counts()
        if counts.arrived != count:
            raise AssertionError(f"{counts.arrived} creates came for {count} uploads.")
        return counts

    def _wait_recorded(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while left := self._count_queued():
            if time.monotonic() > ends:
                raise TimeoutError(f"{left} uploads are not recorded as delivered.")
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
        """Delete the uploads and the messages of a round of intake."""
        self.tables.execute("TRUNCATE uploads")
        with redis.Redis.from_url(self._redis_url) as server:
            server.flushdb()


def beside(url: str, name: str) -> str:
    """The address of a new database on the same server."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return make_url(url).set(database=name).render_as_string(hide_password=False)
