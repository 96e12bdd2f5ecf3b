"""The testbed of a benchmark: servers, the stand-in for 1upHealth, and Uplift's own processes.

Users, their grants and the API key are written into the ledger, with tokens that do not expire: no
benchmark measures token calls.
"""

import asyncio
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString
from uuid import UUID

import psutil
import psycopg
from pydantic import SecretStr

from bench.resources import bodies
from bench.upstream import Counts, Upstream, rate
from uplift.cli.local.child_process import ChildProcess
from uplift.cli.local.ports import HOST, free_port
from uplift.cli.local.processes import Processes
from uplift.cli.local.system import System, command
from uplift.destinations.configured import ONEUP
from uplift.destinations.derived_ids import read_id_key
from uplift.dispatch import Dispatcher
from uplift.intake.labels import Labels
from uplift.intake.sealed import sealed
from uplift.intake.submission import parse
from uplift.ledger import accepting, credentials, grants, users
from uplift.ledger.credentials import BACKEND, Scope
from uplift.ledger.database import Database
from uplift.ledger.new_uploads import NewUpload
from uplift.ledger.token_pair import TokenPair
from uplift.queues import UPLOADS
from uplift.sealing import KeyRing
from uplift.settings import Settings

API = "api"
USERS = 50
_TOKEN_SECONDS = 365 * 24 * 3600.0
_GROUP = 500
_READY_SECONDS = 60.0

Resource = tuple[str, str, bytes]
"""FHIR version, type, bytes."""

Person = tuple[UUID, str]
"""A user's id, and the backend's name for them."""


@dataclass(frozen=True, slots=True)
class Drained:
    """How a backlog was delivered: records a second, and milliseconds of CPU a record."""

    rate: float
    worker_ms: float
    postgres_ms: float


def cpu_of(rounds: Sequence[Drained]) -> dict[str, list[float]]:
    """The milliseconds of CPU a record, round by round, as a figure has them beside it."""
    return {
        "worker_cpu_ms": [each.worker_ms for each in rounds],
        "postgres_cpu_ms": [each.postgres_ms for each in rounds],
    }


class Testbed:
    """A running Uplift with one ledger."""

    def __init__(self, system: System, upstream: Upstream) -> None:
        self.system = system
        self.upstream = upstream
        environment = system.environment
        self.settings = Settings(
            database_url=SecretStr(environment["UPLIFT_DATABASE_URL"]),
            redis_url=SecretStr(environment["UPLIFT_REDIS_URL"]),
            master_keys=SecretStr(environment["UPLIFT_MASTER_KEYS"]),
            max_queued_messages=1_000_000,
        )
        self._destination = environment.get("UPLIFT_DESTINATION", ONEUP)
        id_key = Settings(id_key=SecretStr(environment["UPLIFT_ID_KEY"]))
        self._id_key = read_id_key(id_key) if self._destination != ONEUP else None
        self.superuser_url = (
            system.postgres.url if system.postgres else environment["UPLIFT_DATABASE_URL"]
        )
        self.ledger = psycopg.connect(self.superuser_url, autocommit=True)
        self._key_ring = KeyRing.parse(environment["UPLIFT_MASTER_KEYS"])
        self.key = asyncio.run(self._add_key())
        self._people = 0
        self._users = self.add_people(USERS)
        self._labels = 0

    @property
    def port(self) -> int:
        """The port of the API."""
        return int(self.system.environment["UPLIFT_API_PORT"])

    def label(self) -> str:
        """The prefix of the ids in one round."""
        self._labels += 1
        return f"r{self._labels:04}"

    async def _add_key(self) -> str:
        database = Database.connect(self.settings)
        try:
            async with database.transaction() as connection:
                _, key = await credentials.add_api_key(
                    connection, self._key_ring, "bench", BACKEND | {Scope.OPERATOR}
                )
        finally:
            await database.close()
        return key

    def add_people(self, count: int) -> list[Person]:
        """That many users with grants."""
        first, self._people = self._people, self._people + count
        return asyncio.run(self._add_people(first, count))

    async def _add_people(self, first: int, count: int) -> list[Person]:
        database = Database.connect(self.settings)
        try:
            async with database.transaction() as connection:
                people = []
                for number in range(first, first + count):
                    user = await users.add_user(
                        connection,
                        f"user-{number}",
                        self._key_ring,
                        destination=self._destination,
                    )
                    await grants.put_grant(
                        connection,
                        user.id,
                        user.key(self._key_ring),
                        TokenPair(f"token-{number}", f"refresh-{number}", _TOKEN_SECONDS),
                        "backend",
                    )
                    people.append((user.id, user.app_user_id))
            return people
        finally:
            await database.close()

    def seal(
        self,
        resources: Iterable[Resource],
        *,
        queue: str = UPLOADS,
        people: Sequence[Person] | None = None,
    ) -> list[NewUpload]:
        """The resources as new rows of the ledger, for the users in turn."""
        return asyncio.run(self._seal(resources, queue, people or self._users))

    async def _seal(
        self, resources: Iterable[Resource], queue: str, people: Sequence[Person]
    ) -> list[NewUpload]:
        database = Database.connect(self.settings)
        try:
            async with database.transaction() as connection:
                rows = [await users.get_user(connection, user_id) for user_id, _ in people]
            keys = [(row, row.key(self._key_ring)) for row in rows if row is not None]
        finally:
            await database.close()
        new = []
        for number, (version, _, body) in enumerate(resources):
            user, key = keys[number % len(keys)]
            submission = parse(body, Labels(fhir_version=version, source="bench"))
            new.append(sealed(submission, user, key, queue=queue, id_key=self._id_key))
        return new

    def put_in(
        self,
        resources: Iterable[Resource],
        *,
        queue: str = UPLOADS,
        people: Sequence[Person] | None = None,
    ) -> list[UUID]:
        """Commit uploads as if they were accepted. The next sweep dispatches them."""
        return asyncio.run(self._put_in(self.seal(resources, queue=queue, people=people)))

    def trickle(self, new: Sequence[NewUpload], seconds: float) -> list[UUID]:
        """Commit and dispatch these one by one, evenly over so many seconds."""
        return asyncio.run(self._trickle(new, seconds))

    async def _trickle(self, new: Sequence[NewUpload], seconds: float) -> list[UUID]:
        database, dispatcher = Database.connect(self.settings), Dispatcher(self.settings)
        dispatcher.start()
        began = time.monotonic()
        try:
            for number, each in enumerate(new):
                await asyncio.sleep(began + seconds * number / len(new) - time.monotonic())
                async with database.transaction() as connection:
                    await accepting.keep(connection, [each])
                dispatcher.dispatch(each.queue, [each.id])
        finally:
            await dispatcher.close()
            await database.close()
        return [upload.id for upload in new]

    async def _put_in(self, new: Sequence[NewUpload]) -> list[UUID]:
        database = Database.connect(self.settings)
        try:
            for start in range(0, len(new), _GROUP):
                async with database.transaction() as connection:
                    await accepting.keep(connection, new[start : start + _GROUP])
        finally:
            await database.close()
        return [upload.id for upload in new]

    def dispatch(self, ids: Sequence[UUID], *, queue: str = UPLOADS) -> None:
        """Dispatch uploads, as the API does."""

        async def dispatch() -> None:
            dispatcher = Dispatcher(self.settings)
            dispatcher.start()
            dispatcher.dispatch(queue, ids)
            await dispatcher.close()

        asyncio.run(dispatch())

    def deliver(
        self, count: int, *, resources: Iterable[Resource] | None = None, seconds: float = 120.0
    ) -> Counts:
        """`put_in_waiting` and `drain`."""
        return self.drain(self.put_in_waiting(count, resources=resources), seconds=seconds)

    def put_in_waiting(
        self, count: int, *, resources: Iterable[Resource] | None = None
    ) -> list[UUID]:
        """Put in a backlog of `count` uploads. Nothing is claimed before `drain`."""
        label = self.label()
        if resources is None:
            resources = (("R4", type_, body) for type_, body in bodies(label, count))
        self.ledger.execute("INSERT INTO pauses (id) VALUES (gen_random_uuid())")
        return self.put_in(resources)

    def drain(self, ids: Sequence[UUID], *, seconds: float = 120.0) -> Counts:
        """Drain that backlog; what the stand-in counted.

        Raises TimeoutError unless each is delivered at its first attempt, AssertionError if the
        stand-in got other requests.
        """
        self.upstream.reset(self.upstream_ms, self.entry_ms)
        self.ledger.execute("DELETE FROM pauses")
        self.dispatch(ids)
        counts = self.upstream.wait(len(ids), seconds)
        self.wait_recorded(ids, seconds)
        sent = self.upstream.counts()
        if sent.arrived != len(ids) or sent.other_requests:
            raise AssertionError(f"{sent.arrived} creates came for {len(ids)} uploads.")
        return counts

    def measure(self, count: int, name: str = "worker") -> Drained:
        """Drain a backlog of `count` uploads by the worker process of that name."""
        ids = self.put_in_waiting(count)
        worker, postgres = self.cpu_seconds(name), self.cpu_seconds("postgres")
        counts = self.drain(ids)
        return Drained(
            rate(counts),
            worker_ms=(self.cpu_seconds(name) - worker) / count * 1000,
            postgres_ms=(self.cpu_seconds("postgres") - postgres) / count * 1000,
        )

    upstream_ms: float = 0.0
    """The latency of the stand-in in milliseconds, from the next round on."""
    entry_ms: float = 0.0
    """What each record adds to it."""

    def wait_recorded(self, ids: Sequence[UUID], seconds: float) -> None:
        """Return once all are delivered, at their first attempt. Raises TimeoutError."""
        self._wait(
            "SELECT count(*) FROM uploads WHERE id = ANY(%s) AND state = 'delivered'"
            " AND attempts = 1",
            ids,
            seconds,
        )

    def wait_delivered(self, ids: Sequence[UUID], seconds: float) -> None:
        """The same, whatever attempts they took."""
        self._wait(
            "SELECT count(*) FROM uploads WHERE id = ANY(%s) AND state = 'delivered'", ids, seconds
        )

    def _wait(self, statement: LiteralString, ids: Sequence[UUID], seconds: float) -> None:
        ends = time.monotonic() + seconds
        while (done := self.one(statement, [list(ids)])) < len(ids):
            if time.monotonic() > ends:
                raise TimeoutError(f"{done} of {len(ids)} are recorded as delivered.")
            time.sleep(0.1)

    def one(self, statement: LiteralString, parameters: Sequence[object] = ()) -> int:
        """The one number that a statement returns."""
        row = self.ledger.execute(statement, parameters).fetchone()
        assert row is not None  # noqa: S101
        return int(row[0])

    def start_worker(
        self,
        name: str,
        *,
        max_in_flight: int,
        queue: str = "worker",
        settings: Mapping[str, str] | None = None,
    ) -> ChildProcess:
        """Start a worker as `uplift up` does, with `settings` of its own, and wait for it.

        `queue`: or `bulk`.
        """
        child = self.system.processes.start(
            name,
            command(queue, "--name", name),
            env={
                **self.system.environment,
                "UPLIFT_MAX_IN_FLIGHT": str(max_in_flight),
                **(settings or {}),
            },
        )
        await_line(child, " ready.")
        return child

    def cpu_seconds(self, *names: str) -> float:
        """The CPU time of these processes so far; `postgres` and `redis` are the servers."""
        return sum(cpu_seconds(self.pid(name)) for name in names)

    def pss(self, name: str) -> int:
        """The memory of a process, in bytes."""
        return pss(self.pid(name))

    def pid(self, name: str) -> int:
        """The number of a process; `postgres` and `redis` are the servers."""
        servers = {"postgres": self.system.postgres, "redis": self.system.redis}
        server = servers.get(name)
        pid = server.pid if server is not None else self.system.processes[name].pid
        assert pid is not None  # noqa: S101
        return pid


def await_line(child: ChildProcess, text: str) -> None:
    """Return once the child has logged the text. Raises TimeoutError."""
    ends = time.monotonic() + _READY_SECONDS
    while text not in child.log.read_text(errors="replace"):
        if child.returncode is not None or time.monotonic() > ends:
            raise TimeoutError(f"{child.name} did not start. See its log:\n{child.tail()}")
        time.sleep(0.05)


def cpu_seconds(pid: int) -> float:
    """The CPU time so far of a process with its children, also of those that have ended."""
    root = psutil.Process(pid)
    total = 0.0
    for process in [root, *root.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # a connection of PostgreSQL that just closed
            times = process.cpu_times()
            total += times.user + times.system
    # With the children that have ended: PostgreSQL's closed connections.
    ended = root.cpu_times()
    return total + getattr(ended, "children_user", 0.0) + getattr(ended, "children_system", 0.0)


def pss(pid: int) -> int:
    """The proportional set size of a process and its children: each shared page counts once.

    Only Linux has it. Elsewhere the resident set size, which counts shared pages in each process.
    """
    root = psutil.Process(pid)
    total = 0
    for process in [root, *root.children(recursive=True)]:
        memory = process.memory_full_info()
        total += getattr(memory, "pss", memory.rss)
    return total


@contextmanager
def upstream(folder: Path) -> Iterator[Upstream]:
    """Start the stand-in for 1upHealth."""
    port = free_port(None)
    with Processes(folder / "upstream") as processes:
        (folder / "upstream").mkdir(parents=True, exist_ok=True)
        processes.start("upstream", [sys.executable, "-m", "bench.upstream", "--port", str(port)])
        await_port(port)
        yield Upstream(f"http://{HOST}:{port}")


def await_port(port: int) -> None:
    """Return once something listens there. Raises TimeoutError."""

    async def connect() -> None:
        while True:
            try:
                _, writer = await asyncio.open_connection(HOST, port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return

    asyncio.run(asyncio.wait_for(connect(), _READY_SECONDS))


def destination(stand_in: Upstream) -> dict[str, str]:
    """Uplift's settings to deliver to the stand-in."""
    return {
        "UPLIFT_ONEUP_FHIR_URL": stand_in.url,
        "UPLIFT_ONEUP_TOKEN_URL": f"{stand_in.url}/oauth2/token",
        "UPLIFT_ONEUP_USERS_URL": f"{stand_in.url}/user-management/v1/user",
        "UPLIFT_ONEUP_CLIENT_ID": "bench",
        "UPLIFT_ONEUP_CLIENT_SECRET": "bench",
    }


@contextmanager
def open_testbed(
    folder: Path,
    stand_in: Upstream,
    *,
    processes: tuple[str, ...] = (API, "beat"),
    settings: Mapping[str, str] | None = None,
) -> Iterator[Testbed]:
    """Start servers and these processes of Uplift. Workers are started by `start_worker`."""
    environment = {**destination(stand_in), **(settings or {})}
    with System(folder, environment, processes=processes, any_port=True) as system:
        testbed = Testbed(system, stand_in)
        try:
            yield testbed
        finally:
            testbed.ledger.close()
