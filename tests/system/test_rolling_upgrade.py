"""The version before works on a ledger that a newer one migrated, while uploads come in."""

import asyncio
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from tests.factories import resource
from tests.ledger_copies import LedgerCopies
from uplift.cli.local.system import System, command
from uplift.cli.local.up import add_api_key
from uplift.ledger import migrate
from uplift.ledger.database import Database
from uplift.settings import Settings

SECONDS = 60.0

HEAD = int(migrate.head() or 0)
KNOWN, EXPANDED, CONTRACTED = (f"{HEAD + number:04}" for number in range(3))

EXPAND = f"""
from alembic import op
revision, down_revision, branch_labels, depends_on = "{EXPANDED}", "{KNOWN}", None, None


def upgrade() -> None:
    op.execute("ALTER TABLE uploads ADD COLUMN made_up text NOT NULL DEFAULT 'new'")
    op.execute("ALTER TABLE users ADD COLUMN made_up bigint")
    op.execute("CREATE TABLE made_up (id bigint PRIMARY KEY)")
    op.execute("CREATE INDEX made_up_index ON uploads (made_up)")
"""
CONTRACT = f"""
from alembic import op
revision, down_revision, branch_labels, depends_on = "{CONTRACTED}", "{EXPANDED}", None, None


def upgrade() -> None:
    op.execute("UPDATE alembic_version SET oldest_revision = '{EXPANDED}'")
"""  # noqa: S608  names of ours


class Load:
    """Sends an upload after the other, and asks /readyz, until it is stopped."""

    def __init__(self, url: str, key: str) -> None:
        self.client = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=False
        )
        self.accepted: list[str] = []
        self.others: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within, it sends."""
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()

    def more(self, count: int) -> None:
        """Wait until so many more are accepted."""
        wanted, until = len(self.accepted) + count, time.monotonic() + SECONDS
        while len(self.accepted) < wanted:
            assert time.monotonic() < until, self.others[-3:]
            time.sleep(0.05)

    def _send(self) -> None:
        number = 0
        while not self._over.is_set():
            number += 1
            sent = self.client.post(
                "/v1/uploads",
                params={"user": "alice", "fhirVersion": "R4"},
                json=resource(id=f"obs-{number}"),
            )
            ready = self.client.get("/readyz")
            if sent.status_code == 202:
                self.accepted.append(sent.headers["Location"])
            self.others += [
                f"{each.request.url.path} {each.status_code} {each.text}"
                for each in (sent, ready)
                if each.status_code not in (200, 202)
            ]


def newer_version(folder: Path, monkeypatch: pytest.MonkeyPatch, *migrations: str) -> None:
    """Let this process, and no other, have further migrations."""
    shutil.copytree(Path(migrate.__file__).parent / "migrations", folder / "migrations")
    for number, source in enumerate(migrations, start=HEAD + 1):
        (folder / "migrations" / "versions" / f"{number:04}_made_up.py").write_text(source)
    monkeypatch.setattr(migrate, "__file__", str(folder / "migrate.py"))


def upgrade(url: str, revision: str) -> None:
    async def run() -> None:
        database = Database.connect(Settings(database_url=SecretStr(url)))
        await migrate.upgrade(database, revision)
        await database.close()

    asyncio.run(run())


def uplift(system: System, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(*words), env={"PATH": "", **system.environment}, capture_output=True, text=True
    )


def test_the_version_before_works_while_the_ledger_is_newer(
    tmp_path: Path, ledger_copies: LedgerCopies, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {
        "UPLIFT_ONEUP_KEEPS_IDS": "true",
        "UPLIFT_SWEEP_SECONDS": "0.5",
        "UPLIFT_SECOND_OPINION": "0",
    }
    data = ledger_copies.put(tmp_path / "data")
    with System(data, chosen, processes=("api", "worker", "beat"), any_port=True) as system:
        load = Load(system.api_url, add_api_key(system))
        load.client.post("/v1/users", json={"appUserId": "alice"}).raise_for_status()
        owner = system.environment["UPLIFT_MIGRATION_DATABASE_URL"]
        newer_version(tmp_path / "newer", monkeypatch, EXPAND, CONTRACT)
        with load.running():
            load.more(5)
            upgrade(owner, EXPANDED)
            load.more(20)
            # A process that starts, or starts again, works on it as well.
            system.processes.restart("worker")
            load.more(20)
        assert load.others == [], load.others
        for location in load.accepted:
            settled = load.client.get(location, params={"wait": 30}).json()
            assert settled["status"] == "delivered", settled
        again = uplift(system, "migrate")
        assert (again.returncode, again.stderr) == (0, "")
        assert f"at revision {EXPANDED}" in again.stdout
        assert "works on it" in again.stdout
        assert "a newer version of Uplift migrated the ledger" in uplift(system, "doctor").stdout

        upgrade(owner, CONTRACTED)
        until = time.monotonic() + SECONDS
        while (ready := load.client.get("/readyz")).status_code != 503:
            assert time.monotonic() < until
            time.sleep(0.1)
        assert "deploy the newer version" in ready.json()["detail"]
        refused = uplift(system, "migrate")
        assert refused.returncode == 2
        assert "Traceback" not in refused.stderr
        assert f"this one knows {KNOWN}: deploy the newer version" in refused.stderr
        load.client.close()
