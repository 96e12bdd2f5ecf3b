"""One side: Uplift as its own tree starts it, with a database and a Redis database of its own."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import redis

from bench.against.layouts import API_KEY, MASTER_KEY, MIGRATE
from bench.against.work_tree import WorkTree
from bench.baseline_plain import beside
from bench.testbed import USERS, await_line, await_port, destination
from bench.upstream import Upstream
from uplift.cli.local.child_process import ChildProcess
from uplift.cli.local.embedded import EmbeddedPostgres, EmbeddedRedis
from uplift.cli.local.ports import HOST, free_port
from uplift.cli.local.processes import Processes

_TOKEN_SECONDS = 365 * 24 * 3600


class Side:
    """A running API with its users, and workers on demand."""

    def __init__(
        self,
        name: str,
        tree: WorkTree,
        folder: Path,
        processes: Processes,
        environment: dict[str, str],
    ) -> None:
        self.name = name
        self._tree = tree
        self._folder = folder
        self._processes = processes
        self._environment = environment
        self._labels = 0
        self._environment["UPLIFT_MASTER_KEYS"] = self._printed(MASTER_KEY)
        self._printed(MIGRATE)
        self.key = self._printed(API_KEY)
        self.ledger = psycopg.connect(environment["UPLIFT_DATABASE_URL"], autocommit=True)
        self.port = free_port()
        self.api_url = f"http://{HOST}:{self.port}"
        self._start("api", tree.layout.api, {"UPLIFT_API_PORT": str(self.port)})
        await_port(self.port)
        self._add_users()

    @property
    def python(self) -> tuple[str, ...]:
        """The interpreter of its tree, which imports nothing from beside a script."""
        return (*self._tree.command(("python",)), "-P")

    @property
    def environment(self) -> dict[str, str]:
        """What its processes get."""
        return dict(self._environment)

    def label(self) -> str:
        """The prefix of the ids in one round."""
        self._labels += 1
        return f"r{self._labels:04}"

    @contextmanager
    def working(self, queue: str, *, max_in_flight: int) -> Iterator[None]:
        """A ready worker for this queue, `uploads` or `bulk`, and beat."""
        layout = self._tree.layout
        command = layout.bulk if queue == "bulk" else layout.worker
        # Beat's sweep dispatches again what the API could not dispatch on a busy machine.
        beat = self._start(f"beat-{queue}", layout.beat, {})
        worker = self._start(queue, command, {layout.max_in_flight: str(max_in_flight)})
        try:
            await_line(worker, " ready.")
            yield
        finally:
            worker.stop()
            beat.stop()

    @contextmanager
    def frozen(self, queue: str) -> Iterator[None]:
        """The worker of this queue takes nothing until the end of the block."""
        pid = self._processes[f"{self.name}-{queue}"].pid
        assert pid is not None  # noqa: S101
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def clear(self) -> None:
        """Delete uploads and messages, while neither workers nor beat run."""
        self.ledger.execute("TRUNCATE uploads, records CASCADE")
        with redis.Redis.from_url(self._environment["UPLIFT_REDIS_URL"]) as server:
            server.flushdb()

    def delivered(self) -> int:
        """The number of uploads that the ledger has as delivered."""
        statement = "SELECT count(*) FROM uploads WHERE state = 'delivered'"
        row = self.ledger.execute(statement).fetchone()
        assert row is not None  # noqa: S101
        return int(row[0])

    def wait_delivered(self, count: int, seconds: float) -> None:
        """Return once this many uploads are delivered. Raises TimeoutError."""
        ends = time.monotonic() + seconds
        while (delivered := self.delivered()) < count:
            if time.monotonic() > ends:
                raise TimeoutError(f"{self.name}: {delivered} of {count} are delivered.")
            time.sleep(0.05)

    def _start(self, name: str, command: tuple[str, ...], settings: dict[str, str]) -> ChildProcess:
        layout = self._tree.layout
        return self._processes.start(
            f"{self.name}-{name}",
            self._tree.command(command),
            env={**self._environment, layout.admin_port: str(free_port()), **settings},
            cwd=self._folder,
        )

    def _printed(self, command: tuple[str, ...]) -> str:
        done = subprocess.run(
            self._tree.command(command),
            env={**os.environ, **self._environment},
            cwd=self._folder,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        return done.stdout.strip()

    def _add_users(self) -> None:
        """Users who bring their own tokens: no call to 1upHealth is made for them."""
        with httpx.Client(headers={"Authorization": f"Bearer {self.key}"}, timeout=30) as api:
            for number in range(USERS):
                api.put(
                    f"{self.api_url}/v1/users/user-{number}/grant",
                    json={
                        "accessToken": f"token-{number}",
                        "refreshToken": f"refresh-{number}",
                        "expiresIn": _TOKEN_SECONDS,
                    },
                ).raise_for_status()


@contextmanager
def open_sides(
    trees: dict[str, WorkTree], folder: Path, stand_in: Upstream
) -> Iterator[list[Side]]:
    """The named sides, on one PostgreSQL and one Redis."""
    with (
        EmbeddedPostgres(folder / "servers") as postgres,
        EmbeddedRedis(folder / "servers") as server,
        Processes(folder / "logs") as processes,
    ):
        sides = []
        for number, (name, tree) in enumerate(trees.items(), start=1):
            place = folder / name
            place.mkdir()
            environment = {
                **destination(stand_in),
                "UPLIFT_DATABASE_URL": beside(postgres.url, name),
                "UPLIFT_REDIS_URL": f"{server.url.rpartition('/')[0]}/{number}",
                "UPLIFT_DATA_DIR": str(place),
            }
            sides.append(Side(name, tree, place, processes, environment))
        try:
            yield sides
        finally:
            for side in sides:
                side.ledger.close()
