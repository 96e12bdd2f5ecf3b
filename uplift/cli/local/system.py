"""The whole of Uplift on one machine: embedded servers, the sandbox and every process.

`uplift up`, `uplift demo` and the system tests run this; a deployment runs the same processes from
the Procfile or docker-compose.yml. Only the URLs differ.
"""

import asyncio
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from pydantic import SecretStr

from uplift.cli.local.embedded import EmbeddedPostgres, EmbeddedRedis
from uplift.cli.local.ports import HOST, free_port
from uplift.cli.local.processes import Processes
from uplift.errors import UpliftError
from uplift.ledger import migrate
from uplift.ledger.database import Database
from uplift.sealing import KeyRing
from uplift.settings import Settings

_READY_SECONDS = 60

# The processes of a deployment, as arguments of `python -m`; the Procfile has the same.
_CELERY = ["celery", "-A", "uplift.worker.app"]
# Mingle and gossip are for workers that share revoked tasks and clocks; ours share nothing.
_THREADS = ["-P", "threads", "--without-mingle", "--without-gossip"]
PROCESSES: Mapping[str, list[str]] = {
    "web": ["uplift.api"],
    "worker": [*_CELERY, "worker", "-Q", "uploads", "-n", "uploads@%h", "-c", "4", *_THREADS],
    "bulk": [*_CELERY, "worker", "-Q", "bulk", "-n", "bulk@%h", "-c", "4", *_THREADS],
    "beat": [*_CELERY, "worker", "-B", "-Q", "control", "-n", "control@%h", "-c", "2", *_THREADS],
    "flower": ["uplift.worker.flower"],
}

# Where each is counted and asked whether it is alive; the Procfile has the same.
ADMIN_PORTS: Mapping[str, int] = {"web": 9801, "worker": 9802, "bulk": 9803, "beat": 9804}


class NotReady(UpliftError):
    """A process did not begin to answer in time."""


def make_folder(path: Path) -> None:
    """Make a folder for this user alone. Raises UpliftError if that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UpliftError(
            f"{path} cannot be made a folder ({error.strerror}). Choose another with"
            " UPLIFT_DATA_DIR."
        ) from None


class System:
    """All of it, started in order on entering the block and stopped in reverse on leaving.

    `settings` are environment variables for every process, such as UPLIFT_SWEEP_SECONDS. Where
    they hold no UPLIFT_DATABASE_URL, UPLIFT_REDIS_URL or UPLIFT_ONEUP_FHIR_URL, an embedded
    server or the sandbox is started.
    """

    def __init__(
        self,
        data_dir: Path,
        settings: Mapping[str, str] | None = None,
        *,
        say: Callable[[str], None] = lambda _: None,
        echo: Callable[[str, str], None] | None = None,
        processes: tuple[str, ...] = tuple(PROCESSES),
        sandbox_options: tuple[str, ...] = (),
        any_port: bool = False,
    ) -> None:
        self._data_dir = data_dir.absolute()
        self._say = say
        self._wanted = processes
        self._sandbox_options = sandbox_options
        self._any_port = any_port
        self._stack = ExitStack()
        self.processes = Processes(self._data_dir / "logs", echo=echo)
        self.postgres: EmbeddedPostgres | None = None
        self.redis: EmbeddedRedis | None = None
        self.sandbox_url: str | None = None
        self.environment: dict[str, str] = dict(settings or {})
        self.admin_urls: dict[str, str] = {}

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def api_url(self) -> str:
        """Where the API answers."""
        return f"http://{HOST}:{self.environment['UPLIFT_API_PORT']}"

    @property
    def flower_url(self) -> str:
        """Where Flower answers."""
        return f"http://{HOST}:{self.environment['FLOWER_PORT']}"

    @property
    def flower_login(self) -> str:
        """Flower's user:password."""
        return self.environment["FLOWER_BASIC_AUTH"]

    def tend(self) -> list[str]:
        """Start again what has ended by itself; its names. Servers go before their users."""
        ended = []
        for server in (self.postgres, self.redis):
            if server is not None and server.pid is None:
                server.start()
                ended.append(server.title)
        for name in self._wanted:
            if self.processes[name].returncode is not None:
                self.processes.restart(name)
                ended.append(name)
        return ended

    def _start(self) -> None:
        environment = self.environment
        environment["UPLIFT_DATA_DIR"] = str(self._data_dir)
        make_folder(self._data_dir)
        if "UPLIFT_DATABASE_URL" not in environment:
            self._say("Starting PostgreSQL")
            self.postgres = self._stack.enter_context(EmbeddedPostgres(self._data_dir))
            environment["UPLIFT_DATABASE_URL"] = self.postgres.url
        if "UPLIFT_REDIS_URL" not in environment:
            self._say("Starting Redis")
            self.redis = self._stack.enter_context(EmbeddedRedis(self._data_dir))
            environment["UPLIFT_REDIS_URL"] = self.redis.url
        environment.setdefault("UPLIFT_MASTER_KEYS", self._master_keys())
        self._stack.enter_context(self.processes)
        if "UPLIFT_ONEUP_FHIR_URL" not in environment:
            self._start_sandbox()
        self._migrate()
        environment.setdefault("UPLIFT_API_PORT", str(self._port(8080)))
        environment.setdefault("FLOWER_ADDRESS", HOST)
        environment.setdefault("FLOWER_PORT", str(self._port(5555)))
        environment.setdefault("FLOWER_BASIC_AUTH", f"uplift:{secrets.token_urlsafe(16)}")
        for name in self._wanted:
            if name != "flower":
                self._start_one(name)
        if "web" in self._wanted:
            self._await(f"{self.api_url}/readyz", "web")
        if "flower" in self._wanted:
            # Last: it asks workers for their queues once, and complains of those not up yet.
            self._start_one("flower")
            # Without a login: that it asks for one is what is awaited.
            self._await(f"{self.flower_url}/", "flower", status=httpx.codes.UNAUTHORIZED)

    def _start_one(self, name: str) -> None:
        self._say(f"Starting {name}")
        self._run(name, PROCESSES[name])

    def _run(self, name: str, arguments: list[str]) -> None:
        extra: list[str] = []
        environment = self.environment
        if name in ADMIN_PORTS:
            port = self._port(ADMIN_PORTS[name])
            self.admin_urls[name] = f"http://{HOST}:{port}"
            environment = {**environment, "UPLIFT_ADMIN_PORT": str(port)}
        if name == "beat":
            extra = ["-s", str(self._data_dir / "celerybeat-schedule")]
        self.processes.start(name, [sys.executable, "-m", *arguments, *extra], env=environment)

    def _start_sandbox(self) -> None:
        self._say("Starting the sandbox, a simulated 1upHealth")
        port = self._port(8090)
        self.sandbox_url = url = f"http://{HOST}:{port}"
        self.environment |= {
            "UPLIFT_ONEUP_FHIR_URL": url,
            "UPLIFT_ONEUP_TOKEN_URL": f"{url}/oauth2/token",
            "UPLIFT_ONEUP_USERS_URL": f"{url}/user-management/v1/user",
            "UPLIFT_ONEUP_CLIENT_ID": "sandbox-client",
            "UPLIFT_ONEUP_CLIENT_SECRET": secrets.token_urlsafe(16),
        }
        # By the environment: every user of the machine sees the arguments of a process.
        self.environment["SANDBOX_CLIENT_SECRET"] = self.environment["UPLIFT_ONEUP_CLIENT_SECRET"]
        self._run(
            "sandbox",
            [
                *("uplift.sandbox", "--port", str(port)),
                *("--client-id", self.environment["UPLIFT_ONEUP_CLIENT_ID"]),
                *self._sandbox_options,
            ],
        )
        self._await(f"{url}/_sandbox/health", "sandbox")

    def _migrate(self) -> None:
        self._say("Migrating the ledger")

        async def upgrade() -> None:
            url = SecretStr(self.environment["UPLIFT_DATABASE_URL"])
            database = Database.connect(Settings(database_url=url))
            try:
                await migrate.upgrade(database)
            finally:
                await database.close()

        asyncio.run(upgrade())

    def _await(self, url: str, name: str, *, status: int = httpx.codes.OK) -> None:
        for _ in range(_READY_SECONDS * 10):
            self.processes.check()
            try:
                if httpx.get(url, timeout=2).status_code == status:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise NotReady(
            f"{name} does not answer at {url} after {_READY_SECONDS} seconds."
            f" See {self.processes[name].log}."
        )

    def _port(self, usual: int) -> int:
        return free_port(None if self._any_port else usual)

    def _master_keys(self) -> str:
        """The key ring of the embedded system, made at its first start."""
        file = self._data_dir / "master_keys"
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(KeyRing.new_entry("embedded"))
        return file.read_text()
