"""What proxies of tests and of the chaos run share: a thread with a loop of its own."""

import asyncio
import threading
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

_READY_SECONDS = 10


class ThreadedProxy(ABC):
    """A proxy that serves in a thread of its own, for one `with` block.

    Raises TimeoutError at the start of the block if it does not start.
    """

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)
        self._loop: asyncio.AbstractEventLoop
        self._stopping: asyncio.Event

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(_READY_SECONDS):
            raise TimeoutError("The proxy did not start.")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(_READY_SECONDS)

    @abstractmethod
    def _serving(self) -> AbstractAsyncContextManager[None]:
        """Within, it serves on the thread's loop."""

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        async with self._serving():
            self._ready.set()
            await self._stopping.wait()
