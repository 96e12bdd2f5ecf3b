"""The one bridge between Celery's threads and the process's event loop, where the relay lives."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from relay.settings import Settings
from relay.wiring import Relay, open_relay

Result = TypeVar("Result")


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

    def stop(self) -> None:
        """Let the deliverer end what it has sent and hand back the rest. Returns at once."""
        if self._relay is not None:
            self._loop.call_soon_threadsafe(self._relay.deliverer.stop)

    def close(self) -> None:
        """Close the relay and end the loop."""
        if self._relay is not None:
            self._run(self._stack.aclose())
            self._relay = None
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
