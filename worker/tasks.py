"""What workers answer to. Arguments are ids, nothing is returned, no content is raised."""

import sys
from contextlib import ExitStack
from uuid import UUID

from celery.signals import heartbeat_sent, worker_init, worker_shutdown, worker_shutting_down

from uplift.admin_port import served
from uplift.errors import ConfigurationError
from uplift.queues import CONTROL, DELIVER, RETAIN, SWEEP
from uplift.wiring import Relay
from uplift.worker.app import RETAIN_SECONDS, app, settings
from uplift.worker.bridge import Bridge
from uplift.worker.health import Health, Signs

bridge = Bridge(settings)
signs = Signs()
_open_ports = ExitStack()


@worker_init.connect
def _open(**_: object) -> None:
    try:
        bridge.open()
        if _sweeps():
            bridge.begin(lambda relay: relay.measurer.run())
        _open_ports.enter_context(served(settings, _check))
    except ConfigurationError as error:
        # Celery logs what a signal's handler raises and goes on; it lets only an exit through.
        sys.exit(f"The worker does not start: {error}")
    except Exception as error:  # noqa: BLE001  a worker without its relay would fail each task
        # Only the type: an error's text may quote what it was given.
        sys.exit(f"The worker does not start: {type(error).__name__}")


def _sweeps() -> bool:
    return CONTROL in app.amqp.queues.consume_from


def _check() -> str | None:
    pause = settings.sweep_seconds if _sweeps() else None
    return Health(signs, bridge.loop_responds, bridge.redis_responds, pause).check()


heartbeat_sent.connect(signs.consumer_lives, weak=False)


@worker_shutting_down.connect
def _stop(**_: object) -> None:
    bridge.stop()


@worker_shutdown.connect
def _close(**_: object) -> None:
    _open_ports.close()
    bridge.close()


@app.task(name=DELIVER, bind=True)
def deliver(self: object, ids: list[str]) -> None:
    """Attempt these uploads; what a stop leaves over is rung for again."""
    queue = self.request.delivery_info["routing_key"]  # type: ignore[attr-defined]

    async def use(relay: Relay) -> None:
        await relay.keys.ensure()
        left = await relay.deliverer.deliver([UUID(id_) for id_ in ids])
        relay.dispatcher.dispatch(queue, left)

    bridge.call(use)


@app.task(name=SWEEP)
def sweep() -> None:
    """One sweep."""

    async def use(relay: Relay) -> None:
        await relay.sweeper.sweep()

    try:
        bridge.call(use)
    finally:
        signs.swept()


@app.task(name=RETAIN)
def retain() -> None:
    """Let go of some of what is old."""

    async def use(relay: Relay) -> None:
        await relay.retainer.retain(seconds=RETAIN_SECONDS)

    bridge.call(use)
