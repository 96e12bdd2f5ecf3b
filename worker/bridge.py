"""The one bridge between Celery's threads and the process's event loop, where the relay lives."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from uplift.admin_port import loop_responds
from uplift.queues import CONTROL
from uplift.settings import Settings
from uplift.wiring import Relay, open_relay

Result = TypeVar("Result")

_REDIS_SECONDS = 5.0


class UseCaseFailed(Exception):
    """A use case raised an error of the named type. Its text stays here: it may hold data."""


class Bridge:
    """A thread with an event loop that holds the opened relay."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._stack = AsyncExitStack()
        self._relay: Relay | None = None
        self._begun: list[Future[Any]] = []

    def open(self) -> None:
        """Start the loop and open the relay. Raises ConfigurationError for a wrong setting."""
        self._thread.start()
        self._relay = self._run(self._stack.enter_async_context(open_relay(self._settings)))

    def call(self, use: Callable[[Relay], Coroutine[Any, Any, Result]]) -> Result:
        """Run a use case on the loop and return its result.

        Raises UseCaseFailed for any error of it.
        """
        if self._relay is None:
            raise RuntimeError("The bridge is not open.")
        try:
            return self._run(use(self._relay))
        except Exception as error:  # noqa: BLE001
            # Celery logs what a task raises, and Flower shows it, with its traceback and text.
            raise UseCaseFailed(type(error).__name__) from None

    def begin(self, use: Callable[[Relay], Coroutine[Any, Any, Any]]) -> None:
        """Run a use case that goes on until the bridge is closed."""
        if self._relay is None:
            raise RuntimeError("The bridge is not open.")
        self._begun.append(asyncio.run_coroutine_threadsafe(use(self._relay), self._loop))

    def loop_responds(self, seconds: float = 5.0) -> bool:
        """Whether the loop turns within that time."""
        return loop_responds(self._loop, seconds)

    def redis_responds(self) -> bool:
        """Whether Redis answers the relay within some seconds."""
        if self._relay is None:
            return False
        asked = asyncio.run_coroutine_threadsafe(
            self._relay.dispatcher.waiting(CONTROL), self._loop
        )
        try:
            return asked.result(_REDIS_SECONDS) is not None
        except TimeoutError:
            asked.cancel()
            return False

    def stop(self) -> None:
        """Let the deliverer end what it has sent and hand back the rest. Returns at once."""
        if self._relay is not None:
            self._loop.call_soon_threadsafe(self._relay.deliverer.stop)

    def close(self) -> None:
        """Close the relay and end the loop."""
        for begun in self._begun:
            begun.cancel()
        if self._relay is not None:
            self._run(self._stack.aclose())
            self._relay = None
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
