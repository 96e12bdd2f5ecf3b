"""`honcho start`: the whole system from the Procfile, against servers that are there already."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.factories import resource
from tests.keys import KEY_RING
from uplift.cli.local.ports import HOST, free_port
from uplift.cli.local.system import ADMIN_PORTS
from uplift.ledger import credentials
from uplift.ledger.credentials import BACKEND
from uplift.ledger.database import Database
from uplift.settings import Settings

ROOT = Path(__file__).parents[4]
BIN = Path(sys.executable).parent
SECONDS = 60


def environment(settings: Settings, ports: dict[str, int], data_dir: Path) -> dict[str, str]:
    assert settings.database_url is not None
    assert settings.redis_url is not None
    assert settings.master_keys is not None
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("UPLIFT_")},
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "UPLIFT_DATABASE_URL": settings.database_url.get_secret_value(),
        "UPLIFT_REDIS_URL": settings.redis_url.get_secret_value(),
        "UPLIFT_MASTER_KEYS": settings.master_keys.get_secret_value(),
        "UPLIFT_ONEUP_FHIR_URL": settings.oneup_fhir_url,
        "UPLIFT_ONEUP_TOKEN_URL": settings.oneup_token_url,
        "UPLIFT_ONEUP_USERS_URL": settings.oneup_users_url,
        "UPLIFT_ONEUP_CLIENT_ID": settings.oneup_client_id,
        "UPLIFT_ONEUP_CLIENT_SECRET": settings.oneup_client_secret.get_secret_value(),
        "UPLIFT_DATA_DIR": str(data_dir),
        "UPLIFT_API_PORT": str(ports["api"]),
        "UPLIFT_DRAIN_SECONDS": "1",  # honcho kills after 5 seconds
        "FLOWER_PORT": str(ports["flower"]),
        "FLOWER_BASIC_AUTH": "user:password",
    }


def runs(process: psutil.Process) -> bool:
    """Whether it has not ended; whoever should collect it may be slow to."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Honcho:
    """It runs, and where its processes answer."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", ports: dict[str, int], log: Path
    ) -> None:
        self.process = process
        self.ports = ports
        self.log = log

    async def until(self, name: str, path: str, status: int) -> None:
        """Wait until one of them answers so."""
        deadline = time.monotonic() + SECONDS
        async with httpx.AsyncClient(trust_env=False) as client:
            while True:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, self.log.read_text()
                try:
                    url = f"http://{HOST}:{self.ports[name]}{path}"
                    if (await client.get(url)).status_code == status:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.1)


@pytest.fixture
def honcho(database: Database, settings: Settings, tmp_path: Path) -> Iterator[Honcho]:
    """`honcho start` on a copy of the Procfile with free ports."""
    ports = {
        name: free_port()
        for name in ("api", "flower", *(f"admin of {each}" for each in ADMIN_PORTS))
    }
    procfile = (ROOT / "Procfile").read_text()
    for name, port in ADMIN_PORTS.items():
        procfile = procfile.replace(f"_PORT={port} ", f"_PORT={ports[f'admin of {name}']} ")
    (tmp_path / "Procfile").write_text(procfile)
    log = tmp_path / "honcho.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [BIN / "honcho", "-d", ROOT, "-f", tmp_path / "Procfile", "start"],
            env=environment(settings, ports, tmp_path / "data"),
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    yield Honcho(process, ports, log)
    if process.poll() is None:
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for each in family:
            each.kill()
        process.wait()


async def test_honcho_runs_the_whole_system_and_stops_it_cleanly(
    honcho: Honcho, database: Database
) -> None:
    await honcho.until("api", "/readyz", 200)
    await honcho.until("flower", "/", 401)
    for name in ADMIN_PORTS:
        await honcho.until(f"admin of {name}", "/healthz", 200)
    async with database.transaction() as connection:
        scopes = BACKEND
        _, key = await credentials.add_api_key(connection, KEY_RING, "test", scopes)
    async with httpx.AsyncClient(
        base_url=f"http://{HOST}:{honcho.ports['api']}",
        headers={"Authorization": f"Bearer {key}"},
        trust_env=False,
        timeout=60,
    ) as api:
        (await api.post("/v1/users", json={"appUserId": "alice"})).raise_for_status()
        sent = await api.post(
            "/v1/uploads", params={"user": "alice", "fhirVersion": "R4"}, json=resource()
        )
        settled = await api.get(sent.headers["Location"], params={"wait": 30})
    assert settled.json()["status"] == "delivered"

    family = psutil.Process(honcho.process.pid).children(recursive=True)
    assert len(family) >= 5
    honcho.process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(honcho.process.wait, SECONDS)
    said = honcho.log.read_text()
    assert "SIGKILL" not in said, said
    assert [child for child in family if runs(child)] == []
    assert not re.search("Traceback|CRITICAL", said), said
