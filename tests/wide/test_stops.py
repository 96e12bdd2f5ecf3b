"""A stop ends in time while PostgreSQL and Redis are frozen."""

import asyncio
import time
from pathlib import Path

import psutil
from pydantic import SecretStr

from chaos.postgres_faults import frozen
from tests import factories
from tests.worker.entries import BEAT, WORKER, command, environment
from tests.worker.waiting import until_logged
from uplift.cli.local.child_process import ChildProcess
from uplift.cli.local.embedded import EmbeddedPostgres, EmbeddedRedis
from uplift.cli.local.ports import free_port
from uplift.ledger import migrate
from uplift.ledger.database import Database
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings
from uplift.wiring import open_relay

_API = "from uplift.api.process import main; main()"
_MAX_SECONDS = 30


async def test_every_process_ends_in_time_while_postgresql_and_redis_are_frozen(
    settings: Settings, upstream: SandboxServer, tmp_path: Path
) -> None:
    with (
        EmbeddedPostgres(tmp_path, settings={"fsync": "off"}) as postgres,
        EmbeddedRedis(tmp_path) as redis_server,
    ):
        settings = settings.model_copy(
            update={
                "database_url": SecretStr(postgres.url),
                "redis_url": SecretStr(redis_server.url),
            }
        )
        database = Database.connect(settings)
        await migrate.upgrade(database)
        await database.close()
        processes = [
            ChildProcess(
                name,
                command(code),
                log=tmp_path / f"{name}.log",
                env=environment(settings, UPLIFT_API_PORT=str(free_port())),
            )
            for name, code in (("worker", WORKER), ("beat", BEAT), ("api", _API))
        ]
        try:
            for process, word in zip(
                processes, ("ready.", "beat_started", "startup complete"), strict=True
            ):
                process.start()
                await until_logged(process, word)
            # An attempt is under way when the ledger freezes.
            upstream.faults({"kind": "slow", "seconds": 2})
            async with open_relay(settings) as relay:
                await factories.user(relay)
                await factories.accepted(relay)
            while not upstream.requests():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            assert redis_server.pid is not None
            redis_process = psutil.Process(redis_server.pid)
            redis_process.suspend()
            try:
                with frozen(postgres):
                    await asyncio.sleep(1)  # so that a sweep waits for it, too
                    started = time.monotonic()
                    await asyncio.gather(
                        *(asyncio.to_thread(process.stop, 60) for process in processes)
                    )
                    took = time.monotonic() - started
            finally:
                redis_process.resume()
        finally:
            for process in processes:
                process.kill()
    assert took <= _MAX_SECONDS
    assert [process.running for process in processes] == [False, False, False]
