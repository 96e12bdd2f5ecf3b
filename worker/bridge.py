"""The one bridge between Celery's threads and the event loop of the process, where the relay is."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from uplift.ledger.database import FOR_AN_ATTEMPT
from uplift.ledger.suitable import check_at_start
from uplift.settings import Settings
from uplift.wiring import Relay, open_relay

Result = TypeVar("Result")


class UseCaseFailed(Exception):
    """A use case raised an error of the named type. The text stays out: it may hold data."""


class Bridge:
    """Runs use cases of the opened relay on its loop, for other threads."""

    def __init__(
        self, portal: BlockingPortal, loop: asyncio.AbstractEventLoop, relay: Relay
    ) -> None:
        self._portal = portal
        self.loop = loop
        self.relay = relay

    def call(self, use: Callable[[Relay], Awaitable[Result]]) -> Result:
        """Run a use case on the loop and return its result.

        Raises UseCaseFailed for any error of it.
        """
        try:
            return self._portal.call(use, self.relay)
        except Exception as error:  # noqa: BLE001
            # Celery logs what a task raises, and Flower shows it, with its traceback and text.
            raise UseCaseFailed(type(error).__name__) from None

    def stop(self) -> None:
        """Let the deliverer end what it has sent and hand back the rest. Returns at once."""
        self.loop.call_soon_threadsafe(self.relay.deliverer.stop)


@contextmanager
def open_bridge(settings: Settings) -> Iterator[Bridge]:
    """Within, the relay is open on a loop in a thread of its own.

    Raises ConfigurationError for a wrong setting.
    """
    with start_blocking_portal(name="relay") as portal:
        try:
            portal.call(check_at_start, settings)
            with portal.wrap_async_context_manager(open_relay(settings, FOR_AN_ATTEMPT)) as relay:
                yield Bridge(portal, portal.call(_running_loop), relay)
        finally:
            # A use case that a task left behind must not delay the end.
            portal.call(portal.stop, True)


async def _running_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()
