"""The task that workers run. Its arguments are ids, it returns nothing, it raises no content."""

from uuid import UUID

from celery import Celery

from uplift.queues import DELIVER
from uplift.wiring import Relay
from uplift.worker.bridge import Bridge


def add_tasks(app: Celery, bridge: Bridge) -> None:
    """Let the application deliver, by the relay behind the bridge."""

    @app.task(name=DELIVER, bind=True)
    def deliver(self: object, ids: list[str]) -> None:
        """Attempt these uploads; dispatch again what a stop leaves over."""
        queue = self.request.delivery_info["routing_key"]  # type: ignore[attr-defined]

        async def use(relay: Relay) -> None:
            await relay.keys.ensure()
            left = await relay.deliverer.deliver([UUID(id_) for id_ in ids])
            relay.dispatcher.dispatch(queue, left)

        bridge.call(use)
