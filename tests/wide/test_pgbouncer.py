"""Behind PgBouncer: in session mode all works, transaction mode is refused with its reason."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import make_url

from tests import factories
from tests.worker.entries import BEAT, WORKER, command, environment
from uplift.cli.local.ports import HOST, free_port
from uplift.cli.local.system import command as console
from uplift.doctor import ledger
from uplift.doctor.examine import examine
from uplift.doctor.findings import Verdict
from uplift.errors import ConfigurationError
from uplift.ledger.database import Database
from uplift.ledger.suitable import check_suitable
from uplift.queues import UPLOADS
from uplift.settings import Settings
from uplift.wiring import open_relay

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed")

REASON = "pooler that gives each transaction another session"


@contextmanager
def pgbouncer(settings: Settings, folder: Path, mode: str, pool: int = 20) -> Iterator[Settings]:
    """PgBouncer, in that mode, before the ledger of these settings. Yields the settings for it."""
    assert settings.database_url is not None
    url = make_url(settings.database_url.get_secret_value())
    port = free_port()
    config = folder / "pgbouncer.ini"
    config.write_text(
        "[databases]\n"
        f"uplift = host={url.host} port={url.port} dbname={url.database} user={url.username}"
        f" password={url.password}\n"
        "[pgbouncer]\n"
        f"listen_addr = {HOST}\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"pool_mode = {mode}\ndefault_pool_size = {pool}\n"
    )
    assert PROGRAM is not None
    as_another = ["-u", "nobody"] if os.geteuid() == 0 else []
    with (folder / "pgbouncer.log").open("wb") as log:
        process = subprocess.Popen([PROGRAM, *as_another, config], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while True:
            with socket.socket() as probe:
                if probe.connect_ex((HOST, port)) == 0:
                    break
            assert process.poll() is None, (folder / "pgbouncer.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        behind = f"postgresql://uplift:x@{HOST}:{port}/uplift"
        yield settings.model_copy(update={"database_url": SecretStr(behind)})
    finally:
        process.kill()
        process.wait()


async def test_in_session_mode_uploads_are_accepted_and_delivered(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    with pgbouncer(settings, tmp_path, "session") as behind:
        async with open_relay(behind) as relay:
            await factories.user(relay)
            uploads = [await factories.accepted(relay, id=f"obs-{n}") for n in range(10)]
            await relay.deliverer.deliver(UPLOADS)
            rows = [await factories.status(relay, each) for each in uploads]
            assert [row.state for row in rows] == ["delivered"] * 10
        found = [each.what async for each in examine(behind) if each.part == ledger.PART]
        # The server of the tests is not durable, whatever leads to it.
        assert found == [each.what async for each in examine(settings) if each.part == ledger.PART]


@pytest.mark.parametrize("pool", [1, 20])
async def test_transaction_mode_is_refused_at_the_start_and_by_doctor_with_the_reason(
    database: Database, settings: Settings, tmp_path: Path, pool: int
) -> None:
    with pgbouncer(settings, tmp_path, "transaction", pool) as behind:
        with pytest.raises(ConfigurationError, match=REASON):
            await check_suitable(behind)
        found = [each async for each in examine(behind) if each.part == ledger.PART]
        assert [each.verdict for each in found] == [Verdict.FAIL]
        assert REASON in found[0].what


@pytest.mark.parametrize("words", [command(WORKER), command(BEAT), console("api")])
def test_no_process_starts_in_transaction_mode(
    ledger_settings: Settings, settings: Settings, tmp_path: Path, words: list[str]
) -> None:
    with pgbouncer(settings, tmp_path, "transaction") as behind:
        done = subprocess.run(
            words, env=environment(behind), capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 1
    assert REASON in done.stderr
    assert "Traceback" not in done.stderr
