"""The heartbeats of this process in the ledger, and what it may still send by them.

The sweep takes the uploads of a process that is silent, and another one attempts them. So this
process must know before the sweep does that it has been silent: frozen, or cut off from the ledger.
It compares times of its own clock only, from before each heartbeat was written.
"""

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress

import structlog
from uuid_utils.compat import uuid4

from uplift.errors import HeartbeatMissing
from uplift.file_limit import lacks_files
from uplift.ledger import processes
from uplift.ledger.database import Database
from uplift.settings import Settings

_log = structlog.get_logger(__name__)

# As parts of UPLIFT_MAX_SILENCE_SECONDS.
_PAUSE_PART = 0.2
_LAST_PART = 2 / 3
_CLOSE_SECONDS = 5.0


class Heartbeats:
    """One for a process. They begin before its first claim, or with `begin`, and end with `close`.

    With each, the process says what it lacks, for the doctor.

    `clock` counts seconds, as time.monotonic does.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._pause = _PAUSE_PART * settings.max_silence_seconds
        self._last_seconds = _LAST_PART * settings.max_silence_seconds
        self._clock = clock
        self._beating: asyncio.Task[None] | None = None
        self._kind: str | None = None
        self._registered = False
        self._lock = asyncio.Lock()
        # From before the last heartbeat that the ledger confirmed, and since when none was late.
        self._confirmed_at = -math.inf
        self._unbroken_since = math.inf
        self.process_id = settings.process_id or uuid4()
        self.noted_as_ended = False
        """Whether the ledger has this process as one that ended: it must end, then."""

    def begin(self, kind: str) -> None:
        """Let the ledger hear of this process from now on. `kind` is the command that runs it."""
        self._kind = kind
        self._start()

    def _start(self) -> None:
        if self._beating is None:
            self._beating = asyncio.create_task(self._beat_on())

    async def ready(self) -> None:
        """Return when the ledger has just heard of this process, so that it may claim.

        Raises HeartbeatMissing if the ledger has it as ended, and the errors of the ledger.
        """
        if self._is_fresh():
            return
        async with self._lock:
            if not self._is_fresh():
                await self._beat()
            self._start()
        if not self._is_fresh():
            raise HeartbeatMissing

    def may_send(self, claimed_at: float) -> bool:
        """Whether what was claimed then, on `time.monotonic`, is still this process's own: nobody
        can have missed a heartbeat since."""
        return self._is_fresh() and claimed_at >= self._unbroken_since

    async def close(self) -> None:
        """Note the end of this process, which sends nothing more. Raises nothing."""
        if self._beating is None:
            return
        self._beating.cancel()
        with suppress(asyncio.CancelledError):
            await self._beating
        if not self._registered:
            return
        try:
            async with (
                asyncio.timeout(_CLOSE_SECONDS),
                self._database.transaction() as connection,
            ):
                await processes.note_end(connection, self.process_id, crashed=False)
        except Exception as error:  # noqa: BLE001  without it, they wait for its deadlines
            _log.warning("end_not_noted", error=type(error).__name__)

    def _is_fresh(self) -> bool:
        return self._clock() - self._confirmed_at < self._last_seconds

    async def _register(self) -> None:
        began = self._clock()
        async with self._database.transaction() as connection:
            process_id = self.process_id
            if not await processes.register(connection, process_id, self._kind):
                # Two processes with one name would vouch for each other.
                process_id = uuid4()
                await processes.register(connection, process_id, self._kind)
        self.process_id, self._registered = process_id, True
        self._confirm(began)

    async def _beat_on(self) -> None:
        while not self.noted_as_ended:
            if self._registered:
                await asyncio.sleep(self._pause)
            try:
                async with self._lock:
                    await self._beat()
            except Exception as error:  # noqa: BLE001
                _log.warning("heartbeat_failed", error=type(error).__name__)
                if not self._registered:
                    await asyncio.sleep(self._pause)

    async def _beat(self) -> None:
        if not self._registered:
            await self._register()
            return
        began = self._clock()
        async with self._database.transaction() as connection:
            lives = await processes.beat(
                connection,
                self.process_id,
                kind=self._kind,
                machine=time.time(),
                lacks_files=lacks_files(),
            )
        if lives:
            self._confirm(began)
        elif not self.noted_as_ended:
            self.noted_as_ended = True
            self._confirmed_at = -math.inf
            _log.critical("noted_as_ended")

    def _confirm(self, began: float) -> None:
        """The ledger has the heartbeat that began then."""
        now = self._clock()
        if now - self._confirmed_at >= self._last_seconds:
            # The sweep may have taken what was claimed before now.
            self._unbroken_since = now
        self._confirmed_at = began
