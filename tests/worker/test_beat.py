"""`uplift beat`: its loops, and how it ends."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from tests import factories
from tests.worker.entries import BEAT, command, environment
from tests.worker.waiting import until_logged
from uplift.cli.local.child_process import ChildProcess
from uplift.cli.local.ports import HOST, free_port
from uplift.settings import Settings
from uplift.wiring import Relay
from uplift.worker import beat

QUICK = {"sweep_seconds": 0.01}


@asynccontextmanager
async def running(relay: Relay, **parts: Any) -> AsyncIterator[asyncio.Event]:
    """The loops over the relay, with some of its parts replaced. Yields what stops them."""
    settings = relay.settings.model_copy(update=QUICK)
    stopped = asyncio.Event()
    async with asyncio.timeout(20):
        loops = asyncio.create_task(
            beat.run(dataclasses.replace(relay, settings=settings, **parts), stopped)
        )
        yield stopped
        stopped.set()
        await loops


class Sweeps:
    """Counts sweeps. The first `failing` raise an error; those after `hanging` never end."""

    def __init__(self, *, failing: int = 0, hanging: int = 1_000_000) -> None:
        self.failing = failing
        self.hanging = hanging
        self.begun = 0
        self.ended_at: float | None = None
        self._counted = asyncio.Condition()

    async def sweep(self) -> None:
        async with self._counted:
            self.begun += 1
            self._counted.notify_all()
        if self.begun <= self.failing:
            raise RuntimeError("a person's name")
        if self.begun > self.hanging:
            await asyncio.Event().wait()

    async def until(self, count: int) -> None:
        async with self._counted:
            await self._counted.wait_for(lambda: self.begun >= count)


async def test_sweeps_follow_each_other_and_go_on_after_an_error(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    sweeps = Sweeps(failing=2)
    async with running(relay, sweeper=sweeps):
        await sweeps.until(5)


async def test_no_sweep_begins_after_the_stop(relay: Relay) -> None:
    sweeps = Sweeps()
    async with running(relay, sweeper=sweeps) as stopped:
        await sweeps.until(3)
        stopped.set()
    begun = sweeps.begun
    await asyncio.sleep(0.05)  # some pauses: nothing may happen
    assert sweeps.begun == begun


async def test_a_sweep_that_hangs_delays_the_stop_for_a_limited_time_only(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beat, "STOP_SECONDS", 0.01)
    sweeps = Sweeps(hanging=0)
    async with running(relay, sweeper=sweeps):
        await sweeps.until(1)


async def test_measuring_and_retention_go_on_after_an_error(relay: Relay) -> None:
    counts = {"measured": 0, "retained": 0}
    both = asyncio.Event()

    async def measure() -> float:
        counts["measured"] += 1
        if counts["measured"] == 2:
            both.set()
        return 0.0

    async def retain(*, seconds: float) -> None:
        assert seconds == beat.RETAIN_SECONDS
        counts["retained"] += 1
        raise RuntimeError("a person's name")

    async with running(
        relay,
        sweeper=Sweeps(),
        measurer=SimpleNamespace(measure=measure),
        retainer=SimpleNamespace(retain=retain),
    ):
        await both.wait()
    assert counts["retained"] == 1  # the next one is due after RETAIN_SECONDS


async def test_two_beats_at_once_sweep_each_upload_once(relay: Relay) -> None:
    await factories.user(relay)
    accepted = [await factories.accepted(relay, id=f"obs-{n}") for n in range(20)]
    first, second = await asyncio.gather(relay.sweeper.sweep(), relay.sweeper.sweep())
    assert first.dispatched + second.dispatched <= len(accepted)


async def test_it_ends_well_on_a_signal_and_is_healthy_until_then(
    settings: Settings, database: object, tmp_path: Path
) -> None:
    port = free_port()
    process = ChildProcess(
        "beat",
        command(BEAT),
        log=tmp_path / "beat.log",
        env=environment(settings, UPLIFT_ADMIN_PORT=str(port)),
    )
    process.start()
    try:
        await until_logged(process, "beat_started")
        async with httpx.AsyncClient(trust_env=False) as client:
            page = await client.get(f"http://{HOST}:{port}/healthz")
        assert page.json() == {"status": "alive"}
    finally:
        await asyncio.to_thread(process.stop)
    assert process.returncode == 0, process.tail()
    assert "Traceback" not in process.log.read_text()
