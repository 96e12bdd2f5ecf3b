"""`uplift beat`: sweeps, erases upstream, seals, retains, measures, each in a loop of one process.

Several may run at once: every step of a sweep or of retention locks the rows that it changes.
"""

import asyncio
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from uplift.admin_port import served
from uplift.errors import ConfigurationError
from uplift.file_limit import files_of_worker, raise_file_limit
from uplift.ledger.suitable import check_at_start
from uplift.logs import configure_logs
from uplift.maintenance.seal_trail import SEAL_SECONDS
from uplift.maintenance.sweep import MAX_SILENCE_SWEEPS
from uplift.settings import Settings
from uplift.stopping import limit_stop
from uplift.wiring import Relay, open_relay
from uplift.worker.health import Heartbeat, ended_when_failing, health_check

_log = structlog.get_logger(__name__)

RETAIN_SECONDS = 5.0
"""Retention works in parts of this length. It rests for most of that time."""

STOP_SECONDS = 5.0
"""At a stop, the sweep that runs may take this long to end."""


def main() -> None:
    """Sweep, seal, retain and measure until SIGTERM or SIGINT."""
    settings = Settings()
    configure_logs(settings)
    try:
        raise_file_limit(files_of_worker(settings))
        asyncio.run(_run_until_signal(settings))
    except ConfigurationError as error:
        sys.exit(f"beat does not start: {error}")
    except OSError as error:
        # Only the type: the text may quote a setting.
        sys.exit(f"beat does not start: {type(error).__name__}")


async def _run_until_signal(settings: Settings) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, stopped)
    await check_at_start(settings)
    async with open_relay(settings) as relay:
        await run(relay, stopped)


def _stop(stopped: asyncio.Event) -> None:
    limit_stop()
    stopped.set()


async def run(relay: Relay, stopped: asyncio.Event) -> None:
    """Run the loops until `stopped` is set. Raises ConfigurationError if the port is taken."""
    settings = relay.settings
    relay.heartbeats.begin("beat")
    heartbeat = Heartbeat(max(60.0, MAX_SILENCE_SWEEPS * settings.sweep_seconds))

    async def sweep() -> float:
        try:
            await relay.sweeper.sweep()
        finally:
            # A sweep that fails has ended, too: a restart does not repair PostgreSQL.
            heartbeat.beat()
        return settings.sweep_seconds

    async def retain() -> float:
        until = time.monotonic() + RETAIN_SECONDS
        await relay.retainer.retain(seconds=RETAIN_SECONDS)
        return max(0.0, until - time.monotonic())

    async def erase_upstream() -> float:
        await relay.upstream_eraser.go_on()
        return settings.sweep_seconds

    check = health_check(asyncio.get_running_loop(), heartbeat, "no sweep ends")
    with served(settings, check), ended_when_failing(check):
        sweeping = asyncio.create_task(
            _repeat(sweep, stopped, failed="sweep_failed", pause=settings.sweep_seconds)
        )
        others = [
            asyncio.create_task(
                _repeat(retain, stopped, failed="retention_failed", pause=RETAIN_SECONDS)
            ),
            asyncio.create_task(
                _repeat(
                    erase_upstream,
                    stopped,
                    failed="erasing_upstream_failed",
                    pause=settings.sweep_seconds,
                )
            ),
            asyncio.create_task(
                _repeat(relay.sealer.seal, stopped, failed="sealing_failed", pause=SEAL_SECONDS)
            ),
            asyncio.create_task(
                _repeat(relay.measurer.measure, stopped, failed="measurement_failed", pause=60.0)
            ),
        ]
        _log.info("beat_started")
        await stopped.wait()
        for each in others:
            each.cancel()
        # The steps of a sweep are transactions: one that is cut off is as if it had not begun. But
        # its last steps would have to wait for the next start.
        await asyncio.wait([sweeping], timeout=STOP_SECONDS)
        sweeping.cancel()
        await asyncio.gather(sweeping, *others, return_exceptions=True)


async def _repeat(
    work: Callable[[], Awaitable[float]], stopped: asyncio.Event, *, failed: str, pause: float
) -> None:
    """Work until stopped. `work` returns the seconds until the next time; after an error, `pause`.

    An error is logged under the event name `failed`, and the loop goes on.
    """
    while not stopped.is_set():
        try:
            seconds = await work()
        except Exception as error:  # noqa: BLE001
            _log.error(failed, error=type(error).__name__)  # its text may hold data
            seconds = pause
        with suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), seconds)
