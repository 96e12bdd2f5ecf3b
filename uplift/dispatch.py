"""Rings the workers: tells the queue which uploads are due. Best effort by design.

Postgres holds the truth; a message that is lost, or never sent, costs seconds until the next
sweep. So ringing never fails a request, never waits for Redis, and remembers only so much.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

import structlog
from redis.exceptions import RedisError

from uplift.queues import DELIVER, MAX_MESSAGE_IDS
from uplift.redis_connection import open_redis, publisher
from uplift.settings import Settings

_log = structlog.get_logger(__name__)

_MAX_PENDING = 100_000
_LOOK_SECONDS = 1.0


@dataclass(slots=True)
class _Room:
    """How many messages a queue takes at least, and until when, on time.monotonic, that holds."""

    messages: int = 0
    until: float = 0.0


class Dispatcher:
    """Coalesces what is rung and publishes it from one background task."""

    def __init__(self, settings: Settings) -> None:
        self._celery = publisher(settings)
        self._redis = open_redis(settings)
        self._pending: dict[str, dict[UUID, None]] = defaultdict(dict)
        self._max_messages = settings.max_queued_messages
        self._rooms: dict[str, _Room] = defaultdict(_Room)
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to publish, on the running loop."""
        self._task = asyncio.create_task(self._publish_all(), name="bell")

    def dispatch(self, queue: str, ids: Iterable[UUID]) -> None:
        """Let workers know of these uploads soon. Returns at once and never fails."""
        pending = self._pending[queue]
        if len(pending) < _MAX_PENDING:
            pending.update(dict.fromkeys(ids))
            self._wake.set()

    async def waiting(self, queue: str) -> int | None:
        """How many messages nobody has taken yet; None if Redis does not answer."""
        try:
            return int(await self._redis.llen(queue))
        except (RedisError, OSError):
            return None

    async def close(self) -> None:
        """Publish what is pending, and stop."""
        if self._task is not None:
            # Not cancelled: a message that a thread is publishing would be cut off.
            self._closing = True
            self._wake.set()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._redis.aclose()
        self._celery.close()

    async def _publish_all(self) -> None:
        while not self._closing:
            await self._wake.wait()
            self._wake.clear()
            await self._publish_pending()
        await self._publish_pending()

    async def _publish_pending(self) -> None:
        # A copy: another queue may be rung for the first time while this one is published.
        for queue, pending in list(self._pending.items()):
            while pending:
                if not await self._has_room(queue):
                    # The workers are away, or have enough before them: the sweep rings later.
                    pending.clear()
                    break
                ids = list(pending)[:MAX_MESSAGE_IDS]
                for id_ in ids:
                    del pending[id_]
                try:
                    # Kombu is synchronous; its half millisecond must not stop the loop.
                    await asyncio.to_thread(self._publish, queue, ids)
                except Exception as error:  # noqa: BLE001  whatever Redis does, the sweep rings
                    _log.warning("dispatch_failed", queue=queue, error=type(error).__name__)
                    pending.clear()

    async def _has_room(self, queue: str) -> bool:
        """Whether the queue takes one more message; looks when it must, and each second."""
        room = self._rooms[queue]
        now = time.monotonic()
        if now >= room.until:
            waiting = await self.waiting(queue)
            # If Redis does not answer, publishing finds out, and says, what is wrong.
            room.messages = 1 if waiting is None else self._max_messages - waiting
            room.until = now + _LOOK_SECONDS
        if room.messages <= 0:
            return False
        room.messages -= 1
        if room.messages <= 0:
            # Used up by our own: the workers may have taken many of them meanwhile.
            room.until = now
        return True

    def _publish(self, queue: str, ids: list[UUID]) -> None:
        self._celery.send_task(DELIVER, args=[[str(id_) for id_ in ids]], queue=queue)
