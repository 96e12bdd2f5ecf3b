"""All of Uplift on one machine: embedded servers, the sandbox and every process.

`uplift up`, `uplift demo` and the system tests run this. A deployment runs the same commands from
the Procfile or docker-compose.yml.
"""

import asyncio
import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from uuid import UUID

import httpx
from pydantic import SecretStr
from sqlalchemy.exc import SQLAlchemyError

from uplift.cli.environment import HOME, is_ours
from uplift.cli.local.embedded import EmbeddedPostgres, EmbeddedRedis
from uplift.cli.local.embedded.account import NOBODY, account_exists, find_account
from uplift.cli.local.embedded.lock import FolderLock
from uplift.cli.local.embedded.programs import make_open_folder
from uplift.cli.local.needs import only_needed
from uplift.cli.local.ports import HOST, free_port
from uplift.cli.local.processes import Processes
from uplift.destinations.configured import configured_destinations
from uplift.destinations.derived_ids import new_id_key
from uplift.errors import UpliftError
from uplift.ledger import destinations, migrate, processes
from uplift.ledger.audit import SYSTEM
from uplift.ledger.database import FOR_A_CALLER, Database
from uplift.sandbox.servers.profiles import PROFILES
from uplift.sealing import KeyRing
from uplift.settings import Settings

_READY_SECONDS = 60

PROCESSES = ("api", "worker", "bulk", "beat", "flower")
"""The processes of a deployment: each is the command `uplift NAME`. The Procfile has the same."""

CLAIMING = ("worker", "bulk")
"""Those that claim uploads, and so have heartbeats in the ledger."""

ADMIN_PORTS: Mapping[str, int] = {"api": 9801, "worker": 9802, "bulk": 9803, "beat": 9804}
"""The port of each for metrics and health checks. The Procfile has the same."""


Like = Literal["oneup", "hapi", "azure", "google", "healthlake", "aidbox", "firely", "medplum"]
"""What the sandbox is like: 1upHealth, or one of `PROFILES`."""


def name_of(like: Like) -> str:
    """What it is called."""
    return "1upHealth" if like == "oneup" else PROFILES[like].title


class NotReady(UpliftError):
    """A process did not begin to answer in time."""


def command(*words: str) -> list[str]:
    """The command `uplift` with these words, of the environment that runs this program.

    Unlike `python -m`, it never imports from the current folder.
    """
    return [str(Path(sys.executable).with_name("uplift")), *words]


def make_folder(path: Path) -> None:
    """Make a folder for this user alone. Raises UpliftError if it cannot be made."""
    try:
        if os.geteuid() == 0 and HOME in (path, *path.parents):
            make_open_folder(HOME)
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = path.stat()
    except OSError as error:
        raise UpliftError(
            f"The folder {path} cannot be made ({error.strerror}). Choose another with"
            " UPLIFT_DATA_DIR."
        ) from None
    if not is_ours(found):
        raise UpliftError(
            f"The folder {path} belongs to another account, or others may write there, so what is"
            " in it cannot be trusted. Choose another with UPLIFT_DATA_DIR."
        )


class System:
    """All of it: started in order when the block is entered, stopped in reverse when it is left.

    `settings` are environment variables for every process, such as UPLIFT_SWEEP_SECONDS. Where
    they hold no UPLIFT_DATABASE_URL, no UPLIFT_REDIS_URL or no destination, an embedded server or
    the sandbox is started. What the sandbox is `like` then is the destination of new users.
    Root runs PostgreSQL under `account`. `server_environments` are more variables of the embedded
    servers, by their names.
    """

    def __init__(
        self,
        data_dir: Path,
        settings: Mapping[str, str] | None = None,
        *,
        say: Callable[[str], None] = lambda _: None,
        echo: Callable[[str, str], None] | None = None,
        processes: tuple[str, ...] = PROCESSES,
        like: Like = "oneup",
        sandbox_options: tuple[str, ...] = (),
        any_port: bool = False,
        account: str = NOBODY,
        server_environments: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self._data_dir = data_dir.absolute()
        self._say = say
        self._wanted = processes
        self._like = like
        self._sandbox_options = sandbox_options
        self._any_port = any_port
        self._account = account
        self._server_environments = server_environments or {}
        self._stack = ExitStack()
        self._lock = FolderLock(self._data_dir / "system.lock")
        self.processes = Processes(self._data_dir / "logs", echo=echo)
        self.postgres: EmbeddedPostgres | None = None
        self.redis: EmbeddedRedis | None = None
        self.sandbox_url: str | None = None
        self.sandbox_token = secrets.token_urlsafe(32)
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
        """Start again all that has ended by itself, servers first. Returns the names."""
        ended = []
        for server in (self.postgres, self.redis):
            if server is not None and server.pid is None:
                server.start()
                ended.append(server.title)
        for name in self._wanted:
            if self.processes[name].returncode is not None:
                self.restart(name)
                ended.append(name)
        return ended

    def restart(self, name: str) -> None:
        """Stop a process, if it runs, and start it again. The ledger is told that it has ended."""
        process = self.processes[name]
        process.stop()
        ended = process.process_id
        process.start()
        if ended is not None and name in CLAIMING:
            self._note_end(ended)

    def _note_end(self, process_id: UUID) -> None:
        """Without it, what the process had waits as if it only stood still."""

        async def note() -> None:
            url = SecretStr(self.environment["UPLIFT_DATABASE_URL"])
            database = Database.connect(Settings(database_url=url), FOR_A_CALLER)
            try:
                async with database.transaction() as connection:
                    await processes.note_end(connection, process_id, crashed=True)
            finally:
                await database.close()

        with suppress(SQLAlchemyError):
            asyncio.run(note())

    def _start(self) -> None:
        environment = self.environment
        environment["UPLIFT_DATA_DIR"] = str(self._data_dir)
        make_folder(self._data_dir)
        # The children inherit it: the next start finds and ends those that were left behind.
        self._lock.acquire()
        self._stack.callback(self._lock.release)
        if "UPLIFT_DATABASE_URL" not in environment:
            self._start_postgres()
        if "UPLIFT_REDIS_URL" not in environment:
            self._say("Starting Redis")
            self.redis = self._stack.enter_context(
                EmbeddedRedis(self._data_dir, environment=self._server_environments.get("redis"))
            )
            environment["UPLIFT_REDIS_URL"] = self.redis.url
        if "UPLIFT_MASTER_KEYS_DIR" not in environment:
            environment.setdefault(
                "UPLIFT_MASTER_KEYS",
                self._kept("master_keys", partial(KeyRing.new_entry, "embedded")),
            )
        environment.setdefault("UPLIFT_ID_KEY", self._kept("id_key", new_id_key))
        environment.setdefault("UPLIFT_DRAIN_SECONDS", "0")  # there is no load balancer
        self._stack.enter_context(self.processes)
        if not self._has_destination():
            self._start_sandbox()
        self._migrate()
        environment.setdefault("UPLIFT_API_PORT", str(self._port(8080)))
        environment.setdefault("FLOWER_ADDRESS", HOST)
        environment.setdefault("FLOWER_PORT", str(self._port(5555)))
        environment.setdefault("FLOWER_BASIC_AUTH", f"uplift:{secrets.token_urlsafe(16)}")
        for name in self._wanted:
            if name != "flower":
                self._start_one(name)
        if "api" in self._wanted:
            self._await(f"{self.api_url}/readyz", "api")
        if "flower" in self._wanted:
            # Last: it asks workers for their queues once, and warns about those not up yet.
            self._start_one("flower")
            # Without a login: it is ready once it asks for one.
            self._await(f"{self.flower_url}/", "flower", status=httpx.codes.UNAUTHORIZED)

    def _start_postgres(self) -> None:
        if os.geteuid() == 0:
            is_new = not account_exists(self._account)
            find_account(self._account)
            if is_new:
                self._say(f"Created the system account {self._account}")
            self._say(f"Starting PostgreSQL under the account {self._account}: it refuses root")
        else:
            self._say("Starting PostgreSQL")
        self.postgres = self._stack.enter_context(
            EmbeddedPostgres(
                self._data_dir,
                account=self._account,
                environment=self._server_environments.get("postgres"),
            )
        )
        self.environment["UPLIFT_DATABASE_URL"] = self.postgres.app_url
        self.environment["UPLIFT_MIGRATION_DATABASE_URL"] = self.postgres.owner_url

    def _start_one(self, name: str) -> None:
        self._say(f"Starting {name}")
        self._run(name, [name])

    def _run(self, name: str, words: list[str], **more: str) -> None:
        environment = only_needed(name, {**self.environment, **more})
        if name in ADMIN_PORTS:
            port = self._port(ADMIN_PORTS[name])
            self.admin_urls[name] = f"http://{HOST}:{port}"
            environment["UPLIFT_ADMIN_PORT"] = str(port)
        self.processes.start(name, command(*words), env=environment, pass_fds=(self._lock.fd,))

    def _has_destination(self) -> bool:
        named = ("UPLIFT_ONEUP_FHIR_URL", "UPLIFT_DESTINATION", "UPLIFT_DESTINATIONS_FILE")
        return any(name in self.environment for name in named)

    def _start_sandbox(self) -> None:
        self._say(f"Starting the sandbox, a simulated {name_of(self._like)}")
        port = self._port(8090)
        self.sandbox_url = url = f"http://{HOST}:{port}"
        # In the environment, because every user of the machine can see the arguments of a process.
        secret = self.environment["SANDBOX_CLIENT_SECRET"] = secrets.token_urlsafe(16)
        # What the person who starts it has set stays, such as a limit of their own.
        for name, value in self._addresses(url).items():
            self.environment.setdefault(name, value)
        if self._like == "oneup":
            self.environment |= {
                "UPLIFT_ONEUP_TOKEN_URL": f"{url}/oauth2/token",
                "UPLIFT_ONEUP_USERS_URL": f"{url}/user-management/v1/user",
                "UPLIFT_ONEUP_CLIENT_ID": "sandbox-client",
                "UPLIFT_ONEUP_CLIENT_SECRET": secret,
            }
        self._run(
            "sandbox",
            [
                *("sandbox", "--port", str(port)),
                # The ledger goes on with what it delivered, so the sandbox must as well.
                *("--state", str(self._data_dir / "sandbox_state")),
                *(("--like", self._like) if self._like != "oneup" else ()),
                *("--service-account", str(self._service_account)),
                *self._sandbox_options,
            ],
            SANDBOX_CONTROL_TOKEN=self.sandbox_token,
            SANDBOX_STATE_KEY=self._kept("sandbox_key", partial(secrets.token_hex, 32)),
        )
        self._await(f"{url}/_sandbox/health", "sandbox")

    def _migrate(self) -> None:
        self._say("Migrating the ledger")

        async def upgrade() -> None:
            url = self.environment.get("UPLIFT_MIGRATION_DATABASE_URL")
            url = url or self.environment["UPLIFT_DATABASE_URL"]
            database = Database.connect(Settings(database_url=SecretStr(url)))
            try:
                await migrate.upgrade(database)
                if self.sandbox_url is not None:
                    await self._note_sandbox(database, self.sandbox_url)
            finally:
                await database.close()

        asyncio.run(upgrade())

    async def _note_sandbox(self, database: Database, url: str) -> None:
        """Note where the sandbox is now: its port may be another one, and what it has is the same.

        Without this, nothing is sent to it until a person decides.
        """
        given = {"UPLIFT_ID_KEY": self.environment["UPLIFT_ID_KEY"], **self._addresses(url)}
        named = {name.removeprefix("UPLIFT_").lower(): value for name, value in given.items()}
        found = configured_destinations(Settings.model_validate(named)).get(self._like)
        if found is None:
            return
        async with database.transaction() as connection:
            await destinations.change_address(connection, found.name, found.address, by=SYSTEM)

    def _addresses(self, url: str) -> dict[str, str]:
        """The settings that say where the sandbox is, and how it is logged in to."""
        if self._like == "oneup":
            return {"UPLIFT_ONEUP_FHIR_URL": url}
        profile = PROFILES[self._like]
        # A token of Azure's is good for one base.
        versions = profile.versions[:1] if self._like == "azure" else profile.versions
        bases = {f"UPLIFT_DESTINATION_{each.upper()}": f"{url}/{each}" for each in versions}
        login = {"UPLIFT_DESTINATION_TOKEN_URL": f"{url}/oauth2/token"}
        match profile.auth:
            case "client_credentials":
                login["UPLIFT_DESTINATION_CLIENT_ID"] = "sandbox-client"
                secret = self.environment["SANDBOX_CLIENT_SECRET"]
                login["UPLIFT_DESTINATION_CLIENT_SECRET"] = secret
            case "jwt_bearer":
                login["UPLIFT_DESTINATION_SERVICE_ACCOUNT_FILE"] = str(self._service_account)
            case _:
                login = {}
        return {"UPLIFT_DESTINATION": self._like, **bases, **login}

    @property
    def _service_account(self) -> Path:
        return self._data_dir / "service_account.json"

    def _await(self, url: str, name: str, *, status: int = httpx.codes.OK) -> None:
        # No proxy of the environment is asked about this machine.
        with httpx.Client(timeout=2, trust_env=False) as client:
            for _ in range(_READY_SECONDS * 10):
                self.processes.check()
                try:
                    if client.get(url).status_code == status:
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

    def _kept(self, name: str, make: Callable[[], str]) -> str:
        """A secret of the embedded system, made at its first start and kept in a file."""
        file = self._data_dir / name
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(make())
        return file.read_text()
