"""What workers answer to. Arguments are ids, nothing is returned, no content is raised."""

import sys
from contextlib import ExitStack
from uuid import UUID

from celery.signals import worker_init, worker_shutdown, worker_shutting_down

from relay.errors import ConfigurationError
from relay.metrics import served
from relay.queues import DELIVER, SWEEP
from relay.wiring import Relay
from worker.app import app, settings
from worker.bridge import Bridge

bridge = Bridge(settings)
_open_ports = ExitStack()


@worker_init.connect
def _open(**_: object) -> None:
    try:
        _open_ports.enter_context(served(settings))
        bridge.open()
    except ConfigurationError as error:
        # Celery logs what a signal's handler raises and goes on; it lets only an exit through.
        sys.exit(f"The worker does not start: {error}")
    except Exception as error:  # noqa: BLE001  a worker without its relay would fail each task
        # Only the type: an error's text may quote what it was given.
        sys.exit(f"The worker does not start: {type(error).__name__}")


@worker_shutting_down.connect
def _stop(**_: object) -> None:
    bridge.stop()


@worker_shutdown.connect
def _close(**_: object) -> None:
    bridge.close()
    _open_ports.close()


@app.task(name=DELIVER, bind=True)
def deliver(self: object, ids: list[str]) -> None:
    """Attempt these uploads; what a stop leaves over is rung for again."""
    queue = self.request.delivery_info["routing_key"]  # type: ignore[attr-defined]

    async def use(relay: Relay) -> None:
        await relay.keys.ensure()
        left = await relay.deliverer.deliver([UUID(id_) for id_ in ids])
        relay.bell.ring(queue, left)

    bridge.call(use)


@app.task(name=SWEEP)
def sweep() -> None:
    """One sweep."""

    async def use(relay: Relay) -> None:
        await relay.sweeper.sweep()

    bridge.call(use)
