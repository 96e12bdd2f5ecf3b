"""A worker process with a wrong setting: it refuses to start, or refuses to work."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from pydantic import SecretStr

from tests import factories
from uplift.cli.local.child_process import ChildProcess
from uplift.cli.local.embedded import EmbeddedPostgres
from uplift.cli.local.system import PROCESSES
from uplift.ledger import migrate
from uplift.ledger.database import Database
from uplift.sealing import KeyRing
from uplift.settings import Settings
from uplift.wiring import open_relay

WRONG = KeyRing.new_entry("test")  # the id of the test ring, with another key
SECONDS = 60


def environment(settings: Settings, keys: str) -> dict[str, str]:
    assert settings.database_url is not None
    assert settings.redis_url is not None
    return {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "UPLIFT_DATABASE_URL": settings.database_url.get_secret_value(),
        "UPLIFT_REDIS_URL": settings.redis_url.get_secret_value(),
        "UPLIFT_MASTER_KEYS": keys,
        "UPLIFT_ONEUP_FHIR_URL": settings.oneup_fhir_url,
        "UPLIFT_ONEUP_TOKEN_URL": settings.oneup_token_url,
        "UPLIFT_ONEUP_USERS_URL": settings.oneup_users_url,
    }


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
        (KeyRing.new_entry("new"), "does not hold the master key 'test', which wraps the data keys of 1"),
    ):
        ended = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", *PROCESSES["worker"]],
            env=environment(settings, keys),
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert ended.returncode == 1
        assert f"The worker does not start: UPLIFT_MASTER_KEYS {said}" in ended.stderr
        assert keys.partition(":")[2] not in ended.stdout + ended.stderr

    assert all_of(url) == before


async def test_a_worker_that_could_not_check_its_keys_at_start_claims_nothing_with_wrong_ones(
    settings: Settings, tmp_path: Path
) -> None:
    with EmbeddedPostgres(tmp_path / "own", settings={"fsync": "off"}) as own:
        settings = settings.model_copy(update={"database_url": SecretStr(own.url)})
        url = own.url
        opened = Database.connect(settings)
        await migrate.upgrade(opened)
        await opened.close()
        upload = await with_an_upload(settings)
        before = all_of(url)
        own.kill()
        worker = ChildProcess(
            "worker",
            [sys.executable, "-m", *PROCESSES["worker"]],
            log=tmp_path / "worker.log",
            env=environment(settings, WRONG),
        )
        worker.start()
        try:
            await said(worker, "keys_not_checked_yet")
            await said(worker, "ready.")
            own.restart()
            async with open_relay(settings) as relay:
                relay.dispatcher.dispatch("uploads", [UUID(upload)])
            await said(worker, "keys_do_not_fit")
            assert worker.running
        finally:
            worker.stop()
        assert all_of(url) == before


async def said(worker: ChildProcess, word: str) -> None:
    """Wait until it is in the worker's log."""
    until = time.monotonic() + SECONDS
    while word not in worker.log.read_text():
        assert worker.running, worker.tail()
        assert time.monotonic() < until, worker.tail()
        await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("UPLIFT_DATABASE_URL", "canary", "UPLIFT_DATABASE_URL is not an address"),
        (
            "UPLIFT_DATABASE_URL",
            "postgresql://uplift:canary@host:port/uplift",
            "UPLIFT_DATABASE_URL is not an address",
        ),
        (
            "UPLIFT_REDIS_URL",
            "redis://:canary@host:port/0",
            "UPLIFT_REDIS_URL is not an address",
        ),
        # Nobody expects this one, so only its type is told.
        ("SSL_CERT_FILE", "/canary.pem", "The worker does not start: FileNotFoundError"),
    ],
)
async def test_a_worker_with_a_wrong_setting_does_not_start_and_does_not_show_it(
    settings: Settings, database: Database, name: str, value: str, word: str
) -> None:
    assert settings.master_keys is not None
    keys = settings.master_keys.get_secret_value()
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", *PROCESSES["worker"]],
        env={**environment(settings, keys), name: value},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert ended.returncode in (1, 2)  # 2 is Celery's, for an application that does not load
    assert word in ended.stderr
    assert "canary" not in ended.stdout + ended.stderr
