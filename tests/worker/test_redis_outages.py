"""Nothing that Redis does ends a worker, or leaves it idle when Redis is well again."""

import asyncio
import os
import signal
import time
from pathlib import Path

from pydantic import SecretStr

from chaos.redis_faults import FAULTS, Fault
from tests import factories
from tests.worker.entries import WORKER, command, environment
from tests.worker.waiting import until_logged
from uplift.cli.local.child_process import ChildProcess
from uplift.cli.local.embedded import EmbeddedRedis
from uplift.ledger.database import Database
from uplift.lifecycle import State
from uplift.settings import Settings
from uplift.wiring import Relay, open_relay

_FAULT_SECONDS = 2.0
_WELL_SECONDS = 15.0


async def test_a_worker_outlives_a_redis_that_refuses_and_works_when_it_does_not(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    with EmbeddedRedis(tmp_path / "own") as server:
        settings = settings.model_copy(update={"redis_url": SecretStr(server.url)})
        worker = ChildProcess(
            "worker", command(WORKER), log=tmp_path / "worker.log", env=environment(settings)
        )
        worker.start()
        try:
            await until_logged(worker, "ready.")
            async with open_relay(settings) as relay:
                await factories.user(relay)
                for fault in FAULTS:
                    await _outlive(fault, server, worker, relay)
        finally:
            await asyncio.to_thread(worker.stop)
        assert worker.returncode == 0, worker.tail(200)


async def _outlive(fault: Fault, server: EmbeddedRedis, worker: ChildProcess, relay: Relay) -> None:
    name = fault.__name__.replace("_", "-")  # in ids
    # While it is stopped, two messages come: Redis hands it one of them at once, and refuses what
    # the worker then wants to write about it.
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGSTOP)
    number = 0
    while not await relay.dispatcher.waiting("uploads"):
        number += 1
        await factories.accepted(relay, id=f"{name}-{number}")
    with fault(server):
        os.kill(worker.pid, signal.SIGCONT)
        await asyncio.sleep(_FAULT_SECONDS)
        assert worker.running, (name, worker.tail(200))
    accepted = await factories.accepted(relay, id=f"{name}-after")
    ended = time.monotonic()
    while (await factories.status(relay, accepted)).state is not State.DELIVERED:
        assert worker.running, (name, worker.tail(200))
        assert time.monotonic() - ended < _WELL_SECONDS, (name, worker.tail(200))
        relay.dispatcher.dispatch("uploads", [accepted.upload.id])
        await asyncio.sleep(0.2)
