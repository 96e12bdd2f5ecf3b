"""The whole system in real processes, one for all tests here."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import httpx
import pytest
from pydantic import SecretStr

from tests.ledger_copies import LedgerCopies
from uplift.cli.local.system import System
from uplift.ledger import credentials
from uplift.ledger.credentials import BACKEND, Scope
from uplift.ledger.database import Database
from uplift.sandbox.testing import SandboxControl
from uplift.sealing import KeyRing
from uplift.settings import Settings

Result = TypeVar("Result")

BRISK = {
    "UPLIFT_ATTEMPT_SECONDS": "3",
    "UPLIFT_LEASE_SECONDS": "6",
    "UPLIFT_SETTLE_SECONDS": "1",
    "UPLIFT_SWEEP_SECONDS": "0.5",
    "UPLIFT_BACKOFF_FIRST_SECONDS": "0.5",
    "UPLIFT_MAX_BACKOFF_SECONDS": "2",
    "UPLIFT_MAX_IN_FLIGHT": "20",
    "UPLIFT_ONEUP_KEEPS_IDS": "true",
    # To import its models takes a second of each process.
    "UPLIFT_SECOND_OPINION": "0",
}


class Running:
    """A running system, and what a test needs to speak with it."""

    def __init__(self, system: System, data_dir: Path) -> None:
        self.system = system
        self.data_dir = data_dir
        key_ring = KeyRing.parse(system.environment["UPLIFT_MASTER_KEYS"])
        self.key = self.on_ledger(lambda database: _add_key(database, key_ring))
        assert system.sandbox_url is not None
        self.sandbox = SandboxControl(system.sandbox_url, system.sandbox_token)
        self.api = httpx.Client(
            base_url=system.api_url,
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=60,
            trust_env=False,
        )

    def on_ledger(self, use: Callable[[Database], Awaitable[Result]]) -> Result:
        """Run something on the system's own ledger."""

        async def opened() -> Result:
            url = SecretStr(self.system.environment["UPLIFT_DATABASE_URL"])
            database = Database.connect(Settings(database_url=url))
            try:
                return await use(database)
            finally:
                await database.close()

        return asyncio.run(opened())

    def add_user(self, name: str) -> None:
        """A user with a grant at the sandbox."""
        self.api.post("/v1/users", json={"appUserId": name}).raise_for_status()

    def close(self) -> None:
        """Close the connections."""
        self.api.close()
        self.sandbox.close()


async def _add_key(database: Database, key_ring: KeyRing) -> str:
    async with database.transaction() as connection:
        scopes = BACKEND | {Scope.OPERATOR}
        return (await credentials.add_api_key(connection, key_ring, "system test", scopes))[1]


@contextmanager
def run_system(data_dir: Path) -> Iterator[Running]:
    """The system, all processes of it, for one `with` block."""
    with System(data_dir, BRISK, any_port=True, sandbox_options=("--show-bytes",)) as system:
        opened = Running(system, data_dir)
        yield opened
        opened.close()


@pytest.fixture(scope="package")
def running(
    tmp_path_factory: pytest.TempPathFactory, ledger_copies: LedgerCopies
) -> Iterator[Running]:
    """The system of all tests here."""
    with run_system(ledger_copies.put(tmp_path_factory.mktemp("system"))) as system:
        yield system
