"""Worker processes that stand still, and a PostgreSQL that does: what is taken from whom."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import text

from chaos import postgres_faults
from tests.factories import resource
from tests.system.conftest import Running
from uplift.cli.local.system import System, command
from uplift.ledger.database import Database

_CREATE = {"api": "fhir", "method": "POST"}
_UPLOADS = 12


@dataclass(frozen=True)
class Times:
    """In seconds: the silence that counts, how long something is frozen, and an attempt."""

    silence: float
    frozen: float
    attempt: float


@contextmanager
def _running(folder: Path, times: Times) -> Iterator[Running]:
    """A system with one worker, and users alice and bob."""
    settings = {
        "UPLIFT_MAX_SILENCE_SECONDS": f"{times.silence}",
        "UPLIFT_ATTEMPT_SECONDS": f"{times.attempt}",
        "UPLIFT_LEASE_SECONDS": f"{10 * times.attempt}",
        "UPLIFT_SETTLE_SECONDS": "1",
        "UPLIFT_SWEEP_SECONDS": "0.3",
        "UPLIFT_BACKOFF_FIRST_SECONDS": "0.5",
        "UPLIFT_MAX_BACKOFF_SECONDS": "1",
        "UPLIFT_ONEUP_KEEPS_IDS": "true",
    }
    with System(folder, settings, processes=("api", "worker", "beat"), any_port=True) as system:
        running = Running(system, folder)
        try:
            for name in ("alice", "bob"):
                running.add_user(name)
            yield running
        finally:
            running.close()


def _send(running: Running, user: str, count: int) -> None:
    for number in range(count):
        running.api.post(
            "/v1/uploads",
            params={"user": user, "fhirVersion": "R4", "source": "hospital-a"},
            json=resource(
                id=f"{user}-{number}",
                valueQuantity={"value": number, "unit": user},
            ),
        ).raise_for_status()


def _ask(running: Running, question: str) -> Any:
    async def ask(database: Database) -> Any:
        async with database.reading() as connection:
            return await connection.scalar(text(question))

    return running.on_ledger(ask)


def _until(reached: Callable[[], bool], seconds: float, what: str) -> None:
    until = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < until, what
        time.sleep(0.05)


def _writes(running: Running) -> int:
    return sum(each["method"] == "POST" for each in running.sandbox.requests(api="fhir"))


def _is_unfinished(running: Running) -> bool:
    return bool(_ask(running, "SELECT count(*) FROM uploads WHERE state <> 'delivered'"))


def _holds_each_once(running: Running, count: int) -> None:
    total = running.sandbox.counts()["total"]
    stored = {name: total[name] for name in ("resources", "versions", "duplicates")}
    assert stored == {"resources": count, "versions": count, "duplicates": 0}


def a_worker_stands_still(folder: Path, times: Times) -> None:
    """It has sent some uploads, and is about to send one. It goes on before its deadlines."""
    with _running(folder, times) as running:
        worker = running.system.processes["worker"]
        # Stored at once, answered while the worker is frozen; bob's token comes then as well.
        slow = times.frozen
        running.sandbox.faults(
            {"kind": "slow", "seconds": slow, "commit_first": True, "match": _CREATE},
            {"kind": "slow", "seconds": slow, "match": {"api": "token"}},
        )
        running.on_ledger(_end_tokens_of_bob)
        _send(running, "bob", 1)
        _send(running, "alice", _UPLOADS)
        _until(lambda: _writes(running) == _UPLOADS, 30, "alice's uploads are not sent")
        claimed_at = time.monotonic()
        sending = "SELECT count(*) FROM uploads WHERE state = 'sending'"
        _until(lambda: _ask(running, sending) > _UPLOADS, 5, "bob's upload is not claimed")
        assert worker.pid is not None
        os.killpg(worker.pid, signal.SIGSTOP)
        try:
            running.sandbox.clear_faults()
            running.system.processes.start(
                "worker-2", command("worker", "--name", "two"), env=running.system.environment
            )
            taken = "SELECT count(*) FROM uploads WHERE reason = 'lease_expired'"
            _until(
                lambda: _ask(running, taken) == _UPLOADS + 1,
                times.frozen - 1,
                "its claims are not taken",
            )
            time.sleep(max(0.0, claimed_at + times.frozen - time.monotonic()))
        finally:
            os.killpg(worker.pid, signal.SIGCONT)
        # Its deadlines have not passed. But bob's upload is not its own any more.
        while time.monotonic() < claimed_at + times.attempt - 1:
            assert _writes(running) == _UPLOADS
            time.sleep(0.2)
        _until(lambda: not _is_unfinished(running), times.attempt + 30, "some are not delivered")
        time.sleep(2)
        _holds_each_once(running, _UPLOADS + 1)
        assert worker.running


async def _end_tokens_of_bob(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(
            text(
                "UPDATE grants SET expires_at = now()"
                " WHERE user_id = (SELECT id FROM users WHERE app_user_id = 'bob')"
            )
        )


def postgresql_stands_still(folder: Path, times: Times) -> None:
    """Nobody can write a heartbeat meanwhile. Two workers have uploads in flight."""
    with _running(folder, times) as running:
        running.system.processes.start(
            "worker-2", command("worker", "--name", "two"), env=running.system.environment
        )
        running.sandbox.faults(
            {"kind": "slow", "seconds": times.frozen / 4, "commit_first": True, "match": _CREATE}
        )
        _send(running, "alice", _UPLOADS)
        _until(lambda: _writes(running) >= _UPLOADS, 30, "the uploads are not sent")
        # Silence counts by now: beat has written the ledger for that long.
        time.sleep(times.silence / 2)
        server = running.system.postgres
        assert server is not None
        with postgres_faults.frozen(server):
            time.sleep(times.frozen)
        running.sandbox.clear_faults()
        _send(running, "bob", 2)
        _until(lambda: not _is_unfinished(running), 30, "some are not delivered")
        time.sleep(times.silence)
        _holds_each_once(running, _UPLOADS + 2)
        log = running.system.processes["beat"].log.read_text()
        assert not re.findall(r'"lease_expired": ?[1-9]', log)
