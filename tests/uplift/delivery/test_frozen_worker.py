"""Two workers, one of them frozen past the end of its lease: it is too late for everything."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import select, text

from tests import factories
from tests.uplift.delivery.delivering import deliver_only, until, writes
from uplift.ledger.database import Database
from uplift.ledger.tables import Attempt
from uplift.ledger.token_pair import TokenPair
from uplift.lifecycle import State
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings
from uplift.wiring import open_relay

_ROOT = Path(__file__).parents[3]


def _environment(settings: Settings) -> dict[str, str]:
    """These settings as a process of its own takes them."""
    values = settings.model_dump(exclude_unset=True)
    return dict(os.environ) | {
        f"UPLIFT_{name.upper()}": str(
            value.get_secret_value() if isinstance(value, SecretStr) else value
        )
        for name, value in values.items()
    }


@contextmanager
def _worker(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.uplift.delivery.delivering_process"],
        cwd=_ROOT,
        env=_environment(settings),
        stdout=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def test_a_worker_that_was_frozen_past_its_lease_neither_records_nor_sends(
    database: Database, settings: Settings, upstream: SandboxServer
) -> None:
    hasty = settings.model_copy(update={"attempt_seconds": 2.0, "lease_seconds": 4.0})
    async with open_relay(hasty) as relay:
        for name in ("alice", "bob"):
            await factories.user(relay, name)
        sent = await factories.accepted(relay, "alice")
        unsent = await factories.accepted(relay, "bob", id="obs-2", status="amended")
        async with relay.database.transaction() as connection:
            # So the worker asks for bob's token first, and is frozen while it waits for it.
            await connection.execute(text("UPDATE grants SET expires_at = now()"))
        granted = upstream.grant("alice")
        await relay.provisioner.bring_grant(
            "alice", TokenPair(granted["access_token"], granted["refresh_token"], 7200)
        )
        upstream.faults(
            {
                "kind": "slow",
                "seconds": 1.9,
                "commit_first": True,
                "match": {"api": "fhir", "method": "POST", "id": "obs-1"},
                "count": 1,
            },
            {"kind": "slow", "seconds": 1.9, "match": {"api": "token"}, "count": 1},
        )
        before = len(upstream.requests(api="token"))
        with _worker(hasty) as frozen:
            await until(
                lambda: bool(
                    upstream.resources(id="obs-1") and len(upstream.requests(api="token")) > before
                ),
                seconds=60.0,
            )
            frozen.send_signal(signal.SIGSTOP)
            # Bob gets a new grant, because nobody waits for the refresh of the old one.
            granted = upstream.grant("bob")
            await relay.provisioner.bring_grant(
                "bob", TokenPair(granted["access_token"], granted["refresh_token"], 7200)
            )
            recovered = 0
            async with asyncio.timeout(30):
                while recovered < 2:
                    await asyncio.sleep(0.1)
                    recovered += (await relay.sweeper.sweep()).lease_expired
            await deliver_only(relay, sent.upload.id, unsent.upload.id)
            rows = [await factories.status(relay, each) for each in (sent, unsent)]
            # The second was sent once, but nobody can know: its worker's lease ran out.
            assert [(row.state, row.possible_duplicate) for row in rows] == [
                (State.DELIVERED, False),
                (State.DELIVERED, True),
            ]
            stored = len(writes(upstream))
            frozen.send_signal(signal.SIGCONT)
            assert await asyncio.to_thread(frozen.wait, 30) == 0
        # Its attempts are closed in the history, and nothing else changed.
        async with relay.database.transaction() as connection:
            attempts = list(
                await connection.execute(
                    select(Attempt.upload_id, Attempt.outcome).order_by(Attempt.opened_at)
                )
            )
        assert len(attempts) == 4
        assert all(outcome is not None for _, outcome in attempts)
        assert [await factories.status(relay, each) for each in (sent, unsent)] == rows
    assert len(writes(upstream)) == stored == 2
    total = upstream.counts()["total"]
    assert (total["resources"], total["versions"], total["duplicates"]) == (2, 2, 0)
