"""Real servers for every test that needs one, started once; a clean ledger for each test."""

import os
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import hypothesis
import psycopg
import pytest
import redis
from pydantic import SecretStr
from sqlalchemy import text

from tests.keys import ID_KEY, MASTER_KEYS
from tests.ledger_copies import LedgerCopies
from uplift.cli.local.embedded import EmbeddedPostgres, EmbeddedRedis
from uplift.ledger.database import Database
from uplift.ledger.tables import Table
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.testing import SandboxServer
from uplift.sealing import KeyRing
from uplift.settings import Settings
from uplift.wiring import Relay, open_relay

pytest_plugins = ["tests.skips", "tests.shares"]

# How fast a machine is, and whether it has Unicode's tables already, is no behaviour of ours.
hypothesis.settings.register_profile(
    "uplift", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("uplift")

# A shell without job control ignores SIGINT in what it starts in the background, and children
# inherit that. Tests stop processes by SIGINT.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_TABLES = [table.name for table in Table.metadata.sorted_tables]

_MANY = 500
"""To delete fewer rows takes a sixth of the time that it takes to truncate."""

_COUNT = "SELECT '{0}', count(*) FROM (SELECT FROM {0} LIMIT {1}) AS found HAVING count(*) > 0"
_FILLED = " UNION ALL ".join(_COUNT.format(name, _MANY) for name in _TABLES).encode()

# No test is about a crash of the whole machine.
_FAST = {"fsync": "off", "synchronous_commit": "off"}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables that tests recorded: pytest-xdist shows nothing that a test prints."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "table":
                terminalreporter.write_line(f"\n{value}")


@pytest.fixture(scope="session")
def ledger_copies(tmp_path_factory: pytest.TempPathFactory) -> LedgerCopies:
    """Migrated ledgers for servers that a test starts itself."""
    folder = tmp_path_factory.getbasetemp()
    in_parts = "PYTEST_XDIST_WORKER" in os.environ
    return LedgerCopies(folder.parent if in_parts else folder)


@pytest.fixture(scope="session")
def postgres(
    tmp_path_factory: pytest.TempPathFactory, ledger_copies: LedgerCopies
) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL for the whole run, with a migrated ledger."""
    folder = ledger_copies.put(tmp_path_factory.mktemp("postgres"))
    with EmbeddedPostgres(folder, settings=_FAST) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """A Redis for the whole run."""
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def master_keys() -> str:
    """A key ring for the whole run."""
    return MASTER_KEYS


@pytest.fixture(scope="session")
def migrated(postgres: EmbeddedPostgres) -> str:
    """The URL of a migrated ledger, of the superuser: tests do what processes may not."""
    return postgres.url


@pytest.fixture(scope="session")
def ledger_settings(migrated: str) -> Settings:
    """Settings with nothing but the ledger. To read all settings takes some 10 ms."""
    return Settings(database_url=SecretStr(migrated))


class _Emptying:
    """A connection that empties the ledger: most of the time that takes is to connect."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connect()

    def __call__(self) -> None:
        """Empty it."""
        try:
            self._empty()
        except psycopg.OperationalError:  # the test before has ended all connections
            self.close()
            self._connect()
            self._empty()

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def _connect(self) -> None:
        self._connection = psycopg.connect(self._url, autocommit=True)
        # Otherwise the trigger that protects the audit trail refuses it.
        self._connection.execute("SET session_replication_role = replica")

    def _empty(self) -> None:
        execute = self._connection.execute
        filled: dict[str, int] = dict(execute(_FILLED, prepare=True).fetchall())
        if _MANY in filled.values():
            execute(f"TRUNCATE {', '.join(_TABLES)} CASCADE".encode())
        else:
            for name in filled:
                execute(f"DELETE FROM {name}".encode())  # noqa: S608


@pytest.fixture(scope="session")
def emptying(migrated: str) -> Iterator[_Emptying]:
    """Empties the ledger."""
    with closing(_Emptying(migrated)) as made:
        yield made


@pytest.fixture
async def database(ledger_settings: Settings, emptying: _Emptying) -> AsyncIterator[Database]:
    """The ledger, empty."""
    emptying()
    opened = Database.connect(ledger_settings)
    yield opened
    await opened.close()


@pytest.fixture
async def no_users_left(database: Database) -> AsyncIterator[None]:
    """For a test with its own master keys: a relay without these keys refuses to open over them."""
    yield
    async with database.transaction() as connection:
        await connection.execute(text("TRUNCATE users, credentials, deployment_keys CASCADE"))


@pytest.fixture
def key_ring(master_keys: str) -> KeyRing:
    """The key ring of `settings`."""
    return KeyRing.parse(master_keys)


@pytest.fixture(scope="session")
def shared_upstream() -> Iterator[SandboxServer]:
    """One simulated 1upHealth for the whole run: it starts and ends in a tenth of a second."""
    with SandboxServer(SandboxConfig(client_secret=secrets.token_urlsafe(8))) as server:
        yield server


@pytest.fixture
def upstream(shared_upstream: SandboxServer) -> SandboxServer:
    """A simulated 1upHealth over real HTTP, without users."""
    shared_upstream.reset()
    return shared_upstream


@pytest.fixture(scope="session")
def server_settings(
    migrated: str, postgres: EmbeddedPostgres, redis_server: EmbeddedRedis, master_keys: str
) -> Settings:
    """Settings for the servers of this run, with the role of the processes; waits are short."""
    return Settings(
        database_url=SecretStr(postgres.app_url),
        redis_url=SecretStr(redis_server.url),
        master_keys=SecretStr(master_keys),
        id_key=SecretStr(ID_KEY),
        oneup_keeps_ids=True,
        attempt_seconds=5,
        lease_seconds=10,
        settle_seconds=0.2,
        index_lag_seconds=0.2,
        backoff_first_seconds=0.1,
        max_backoff_seconds=1,
        hold_seconds=0.5,
        sweep_seconds=0.5,
        second_opinion=0.0,  # to import its models takes a second of each process
    )


@pytest.fixture(scope="session")
def flushing(redis_server: EmbeddedRedis) -> Iterator[redis.Redis]:
    """A connection that flushes Redis."""
    with redis.Redis.from_url(redis_server.url) as connection:
        yield connection


@pytest.fixture
def settings(
    server_settings: Settings, flushing: redis.Redis, upstream: SandboxServer, tmp_path: Path
) -> Settings:
    """Settings for the servers of this test; waits are short."""
    flushing.flushdb()  # the quota and the limits of the test before
    return server_settings.model_copy(
        update={
            "data_dir": tmp_path,
            "oneup_fhir_url": upstream.fhir_url,
            "oneup_token_url": upstream.token_url,
            "oneup_users_url": upstream.users_url,
            "oneup_client_id": upstream.config.client_id,
            "oneup_client_secret": SecretStr(upstream.config.client_secret),
        }
    )


@pytest.fixture
async def relay(database: Database, settings: Settings) -> AsyncIterator[Relay]:
    """A relay on the servers of this test, with an empty ledger."""
    async with open_relay(settings) as opened:
        yield opened
