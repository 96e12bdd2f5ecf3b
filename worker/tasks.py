"""The task that workers run. Its arguments are ids, it returns nothing, it raises no content."""

from uuid import UUID

from celery import Celery

from uplift.foreign import Foreign, note_foreign
from uplift.queues import BULK, DELIVER, MAX_MESSAGE_IDS, UPLOADS
from uplift.wiring import Relay
from uplift.worker.bridge import Bridge


def add_tasks(app: Celery, bridge: Bridge) -> None:
    """Let the application deliver, by the relay behind the bridge."""

    @app.task(name=DELIVER, bind=True)
    def deliver(self: object, ids: list[str]) -> None:
        """Attempt what is due in the queue. The ids only say how much is; if more may be due at the
        end, they are dispatched again."""
        queue = self.request.delivery_info["routing_key"]  # type: ignore[attr-defined]
        known = _read(ids)
        if known is None or queue not in (UPLOADS, BULK):
            note_foreign(Foreign.MESSAGE)
            return

        async def use(relay: Relay) -> None:
            await relay.keys.ensure()
            if await relay.deliverer.deliver(queue, expected=len(known)):
                relay.dispatcher.dispatch(queue, known)

        bridge.call(use)


def _read(ids: object) -> list[UUID] | None:
    """The ids of a message; None if it has others than a dispatch sends."""
    if not isinstance(ids, list) or len(ids) > MAX_MESSAGE_IDS:
        return None
    try:
        return [UUID(each) for each in ids]
    except (ValueError, TypeError, AttributeError):
        return None
