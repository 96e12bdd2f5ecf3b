"""A task of a newer version is left to its workers, told once, and holds up nothing."""

import asyncio
import time
from pathlib import Path

from pydantic import SecretStr
from structlog.testing import capture_logs

from tests import factories
from tests.worker.entries import WORKER, command, environment
from tests.worker.waiting import SECONDS, until_logged
from uplift.cli.local.child_process import ChildProcess
from uplift.cli.local.embedded import EmbeddedRedis
from uplift.ledger.database import Database
from uplift.lifecycle import State
from uplift.queues import UPLOADS
from uplift.redis_connection import celery_app
from uplift.settings import Settings
from uplift.wiring import open_relay
from uplift.worker.app import create_app
from uplift.worker.newer_tasks import HOLD_SECONDS, KEEP_SECONDS, NewerTasks


async def test_a_real_worker_gives_them_back_and_works_on(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    with EmbeddedRedis(tmp_path / "own") as server:
        settings = settings.model_copy(update={"redis_url": SecretStr(server.url)})
        newer = celery_app("newer", server.url)
        # More than the worker has threads for.
        for number in range(20):
            newer.send_task("uplift.newer", [number], queue=UPLOADS)
        worker = ChildProcess(
            "worker", command(WORKER), log=tmp_path / "worker.log", env=environment(settings)
        )
        worker.start()
        try:
            await until_logged(worker, "task_left_to_newer_workers")
            async with open_relay(settings) as relay:
                await factories.user(relay)
                accepted = await factories.accepted(relay)
                until = time.monotonic() + SECONDS
                while (await factories.status(relay, accepted)).state is not State.DELIVERED:
                    assert time.monotonic() < until, worker.tail(200)
                    await asyncio.sleep(0.1)
            # It gave them back, and got them again.
            await asyncio.sleep(2 * HOLD_SECONDS)
            assert worker.running
        finally:
            await asyncio.to_thread(worker.stop)
        log = worker.log.read_text()
        assert log.count("task_left_to_newer_workers") == 1
        assert "Traceback" not in log
        # As the newer worker: it gets all of them.
        done: set[int] = set()
        app = create_app(settings)
        with app.connection() as connection:
            consumed = connection.SimpleQueue(UPLOADS)
            while len(done) < 20:
                message = await asyncio.to_thread(consumed.get, timeout=SECONDS)
                if message.headers["task"] == "uplift.newer":
                    done.add(message.payload[0][0])
                message.ack()
            consumed.close()
        assert done == set(range(20))


def test_each_name_is_told_once_and_what_nobody_takes_is_dropped_in_the_end() -> None:
    now = 0.0
    tasks = NewerTasks(lambda: now)
    with capture_logs() as logs:
        assert tasks.is_kept("newer", "1")
        assert tasks.is_kept("newer", "2")
        assert tasks.is_kept("another", "3")
        now = KEEP_SECONDS
        assert not tasks.is_kept("newer", "1")
        assert tasks.is_kept("newer", "4")
    assert [entry["task"] for entry in logs] == ["newer", "another"]


def test_no_more_are_kept_than_a_dispatch_may_have_sent() -> None:
    tasks = NewerTasks(lambda: 0.0)
    kept = [tasks.is_kept("newer", f"{number}") for number in range(1000)]
    assert sum(kept) == 500
