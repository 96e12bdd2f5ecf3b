"""A worker process: it starts anywhere, and with a wrong setting it refuses to start or to work."""

import asyncio
import subprocess
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from pydantic import SecretStr

from tests import factories
from tests.ledger_copies import LedgerCopies
from tests.worker.entries import BEAT, BULK, FLOWER, WORKER, command, environment
from tests.worker.waiting import SECONDS, until_logged
from uplift.cli.local.child_process import ChildProcess
from uplift.cli.local.embedded import EmbeddedPostgres
from uplift.cli.local.ports import free_port
from uplift.ledger.database import Database
from uplift.sealing import KeyRing
from uplift.settings import Settings
from uplift.wiring import open_relay

WRONG = KeyRing.new_entry("test")  # the id of the key in the tests, with another key

RAISES = "raise RuntimeError('imported from the current folder')"

# Ends the process at the first import while the current folder is on sys.path.
GUARD = """
import os, sys
def guard(event, args):
    if event == "import" and not {"", os.getcwd()}.isdisjoint(args[2] or ()):
        os.write(2, b"the current folder is on sys.path\\n")
        os._exit(99)
sys.addaudithook(guard)
"""


def all_of(url: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return [
            row
            for table in ("users", "grants", "uploads", "attempts", "records")
            for row in connection.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608
        ]


async def with_an_upload(settings: Settings) -> str:
    async with open_relay(settings) as relay:
        await factories.user(relay)
        return str((await factories.accepted(relay)).upload.id)


async def test_a_worker_with_a_wrong_key_does_not_start_and_touches_nothing(
    database: Database, settings: Settings
) -> None:
    await with_an_upload(settings)
    assert settings.database_url is not None
    url = settings.database_url.get_secret_value()
    before = all_of(url)

    for keys, said in (
        (WRONG, "holds another key under the id 'test'"),
        (
            KeyRing.new_entry("new"),
            "does not hold the master key 'test', which wraps the data keys of 1",
        ),
    ):
        ended = await asyncio.to_thread(
            subprocess.run,
            command(WORKER),
            env=environment(settings, UPLIFT_MASTER_KEYS=keys),
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert ended.returncode == 1
        assert f"The worker does not start: UPLIFT_MASTER_KEYS {said}" in ended.stderr
        assert keys.partition(":")[2] not in ended.stdout + ended.stderr

    assert all_of(url) == before


async def test_a_worker_that_could_not_check_its_keys_at_start_claims_nothing_with_wrong_ones(
    settings: Settings, ledger_copies: LedgerCopies, tmp_path: Path
) -> None:
    with EmbeddedPostgres(ledger_copies.put(tmp_path / "own"), settings={"fsync": "off"}) as own:
        settings = settings.model_copy(update={"database_url": SecretStr(own.url)})
        url = own.url
        upload = await with_an_upload(settings)
        before = all_of(url)
        own.kill()
        worker = ChildProcess(
            "worker",
            command(WORKER),
            log=tmp_path / "worker.log",
            env=environment(settings, UPLIFT_MASTER_KEYS=WRONG),
        )
        worker.start()
        try:
            await until_logged(worker, "keys_not_checked_yet")
            await until_logged(worker, "ready.")
            own.restart()
            async with open_relay(settings) as relay:
                relay.dispatcher.dispatch("uploads", [UUID(upload)])
            await until_logged(worker, "keys_do_not_fit")
            assert worker.running
        finally:
            worker.stop()
        assert all_of(url) == before


async def test_no_process_imports_anything_from_the_folder_it_starts_in(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    folder = tmp_path / "hostile"
    for package in ("api", "worker", "uplift", "celery"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text(RAISES)
    for module in ("redis", "structlog", "kombu", "celeryconfig", "flowerconfig", "json"):
        (folder / f"{module}.py").write_text(RAISES)
    processes = [
        ChildProcess(
            name,
            command(GUARD + code),
            log=tmp_path / f"{name}.log",
            cwd=folder,
            env=environment(
                settings,
                # Celery's own command line would take these.
                APP="celeryconfig",
                CELERY_CONFIG_MODULE="celeryconfig",
                CELERY_LOADER="celeryconfig:Loader",
                FLOWER_BASIC_AUTH="uplift:test",
                FLOWER_PORT=str(free_port()),
            ),
        )
        for name, code in (("worker", WORKER), ("bulk", BULK), ("beat", BEAT), ("flower", FLOWER))
    ]
    for process in processes:
        process.start()
    try:
        for process, word in zip(
            processes, ("ready.", "ready.", "beat_started", "Visit me at"), strict=True
        ):
            await until_logged(process, word)
    finally:
        for process in processes:
            await asyncio.to_thread(process.stop)
    for process in processes:
        assert process.returncode == 0, process.tail()
        assert "current folder" not in process.log.read_text()


@pytest.mark.parametrize(
    ("code", "name", "value", "word"),
    [
        (
            WORKER,
            "UPLIFT_DATABASE_URL",
            "postgresql://uplift:canary@host:port/uplift",
            "UPLIFT_DATABASE_URL is not an address",
        ),
        (
            BEAT,
            "UPLIFT_REDIS_URL",
            "redis://:canary@host:port/0",
            "UPLIFT_REDIS_URL is not an address",
        ),
        (WORKER, "SSL_CERT_FILE", "/canary.pem", "does not start: SSL_CERT_FILE"),
        (BEAT, "SSL_CERT_FILE", "/canary.pem", "does not start: SSL_CERT_FILE"),
    ],
)
async def test_a_process_with_a_wrong_setting_does_not_start_and_does_not_show_it(
    settings: Settings, database: Database, code: str, name: str, value: str, word: str
) -> None:
    ended = await asyncio.to_thread(
        subprocess.run,
        command(code),
        env=environment(settings, **{name: value}),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert ended.returncode == 1
    assert word in ended.stderr
    assert "canary" not in ended.stdout + ended.stderr
