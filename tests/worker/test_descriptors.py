"""A process without file descriptors works again as soon as it has some."""

import asyncio
import resource
import sys
import time
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests import factories
from tests.worker.entries import BEAT, WORKER, command, environment
from tests.worker.waiting import until_logged
from uplift.cli.local.child_process import ChildProcess
from uplift.cli.local.embedded import EmbeddedRedis
from uplift.ledger.database import Database
from uplift.lifecycle import State
from uplift.settings import Settings
from uplift.wiring import open_relay

_WITHOUT_SECONDS = 6.0
_WELL_SECONDS = 20.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")


async def test_a_worker_and_beat_without_descriptors_work_on_when_they_have_some(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    with EmbeddedRedis(tmp_path / "own") as server:
        settings = settings.model_copy(update={"redis_url": SecretStr(server.url)})
        processes = [
            ChildProcess(
                name, command(code), log=tmp_path / f"{name}.log", env=environment(settings)
            )
            for name, code in (("worker", WORKER), ("beat", BEAT))
        ]
        try:
            for process, word in zip(processes, ("ready.", "beat_started"), strict=True):
                process.start()
                await until_logged(process, word)
            async with open_relay(settings) as relay:
                await factories.user(relay)
                before = [limit_of(process, 3) for process in processes]
                server.kill()  # each wants new connections now
                server.start()
                # The upstream, too: no connection to it is open.
                accepted = await factories.accepted(relay)
                relay.dispatcher.dispatch("uploads", [accepted.upload.id])
                await asyncio.sleep(_WITHOUT_SECONDS)
                for process, limit in zip(processes, before, strict=True):
                    assert process.running, process.tail(200)
                    limit_of(process, limit)
                ended = time.monotonic()
                # beat dispatches it.
                while (await factories.status(relay, accepted)).state is not State.DELIVERED:
                    for process in processes:
                        assert process.running, process.tail(200)
                    assert time.monotonic() - ended < _WELL_SECONDS, [
                        process.tail(200) for process in processes
                    ]
                    await asyncio.sleep(0.2)
        finally:
            for process in processes:
                await asyncio.to_thread(process.stop)


def limit_of(process: ChildProcess, files: int) -> int:
    """Let the process open no descriptor from this number on. Returns the limit before."""
    assert process.pid is not None
    soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (files, hard))
    return soft
