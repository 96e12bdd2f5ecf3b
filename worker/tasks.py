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
        """Attempt what is due in the queue. The ids only say that something is; if more may be due
        at the end, they are dispatched again."""
        queue = self.request.delivery_info["routing_key"]  # type: ignore[attr-defined]

        async def use(relay: Relay) -> None:
            await relay.keys.ensure()
            if await relay.deliverer.deliver(queue):
                relay.dispatcher.dispatch(queue, map(UUID, ids))

        bridge.call(use)
