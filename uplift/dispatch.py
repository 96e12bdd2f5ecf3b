"""Tells the workers which uploads are due. Best effort by design.

This is the sending half of a transactional outbox: the ledger has the truth, and a message that is
lost costs only the seconds until the next sweep. So a dispatch never fails a request, never waits
for Redis, and remembers a limited number of ids.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

import structlog
from redis.exceptions import RedisError

from uplift.queues import DELIVER, MAX_MESSAGE_IDS, SWEPT_KEY
from uplift.redis_connection import open_redis, publisher, refusal
from uplift.redis_keys import clear_foreign
from uplift.settings import Settings

_log = structlog.get_logger(__name__)

MAX_PENDING = 100_000
"""Ids of one queue that wait in this process to be published. The sweep dispatches the others."""

_COUNT_SECONDS = 1.0  # so long the length of a queue counts as known


@dataclass(slots=True)
class _Free:
    """How many messages a queue still takes, known until a time on time.monotonic."""

    messages: int = 0
    until: float = 0.0


class Dispatcher:
    """Collects ids and publishes them in messages, from one background task."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigurationError for a wrong address of Redis."""
        self._celery = publisher(settings)
        self._redis = open_redis(settings)
        self._pending: dict[str, dict[UUID, None]] = defaultdict(dict)
        self._max_messages = settings.max_queued_messages
        self._free: dict[str, _Free] = defaultdict(_Free)
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to publish, on the running loop."""
        self._task = asyncio.create_task(self._publish_all(), name="dispatch")

    def dispatch(self, queue: str, ids: Iterable[UUID]) -> None:
        """Tell the workers of that queue soon about these uploads. Returns at once, never fails."""
        pending = self._pending[queue]
        if len(pending) < MAX_PENDING:
            pending.update(dict.fromkeys(ids))
            self._wake.set()

    def pending(self, queue: str) -> int:
        """How many ids of that queue wait in this process to be published."""
        return len(self._pending[queue])

    async def waiting(self, queue: str) -> int | None:
        """How many messages of that queue no worker has taken yet; None if Redis is away."""
        try:
            return int(await self._redis.llen(queue))
        except (RedisError, OSError):
            return None

    async def can_enqueue(self) -> bool:
        """Whether Redis takes a message now."""
        return await refusal(self._redis) is None

    async def clear_foreign(self) -> None:
        """Clear the queues' keys of what keeps workers and dispatches from them for good."""
        with suppress(RedisError, OSError):
            await clear_foreign(self._redis)

    async def note_sweep(self, seconds: float) -> None:
        """Tell `uplift doctor` that a sweep ended; the note lasts so many seconds."""
        with suppress(RedisError, OSError):
            await self._redis.set(SWEPT_KEY, 1, px=round(seconds * 1000))

    async def close(self) -> None:
        """Publish what is pending, then stop."""
        if self._task is not None:
            # Without a cancellation: it would cut off a message that a thread is publishing.
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
        # A copy: another queue may get its first ids while this one is published.
        for queue, pending in list(self._pending.items()):
            while pending:
                if not await self._takes_more(queue):
                    # The workers are away or have enough to do: the sweep dispatches later.
                    pending.clear()
                    break
                ids = list(pending)[:MAX_MESSAGE_IDS]
                for id_ in ids:
                    del pending[id_]
                try:
                    # Kombu is synchronous; its half millisecond must not stop the loop.
                    await asyncio.to_thread(self._publish, queue, ids)
                except Exception as error:  # noqa: BLE001
                    # Whatever Redis does, the sweep dispatches again.
                    _log.warning("dispatch_failed", queue=queue, error=type(error).__name__)
                    pending.clear()

    async def _takes_more(self, queue: str) -> bool:
        """Whether the queue takes one more message. Counts its messages at most once a second."""
        free = self._free[queue]
        now = time.monotonic()
        if now >= free.until:
            waiting = await self.waiting(queue)
            # If Redis is away, publishing fails next, and logs why.
            free.messages = 1 if waiting is None else self._max_messages - waiting
            free.until = now + _COUNT_SECONDS
        if free.messages <= 0:
            return False
        free.messages -= 1
        if free.messages <= 0:
            # Our own messages used it up: the workers may have taken many of them meanwhile.
            free.until = now
        return True

    def _publish(self, queue: str, ids: list[UUID]) -> None:
        self._celery.send_task(DELIVER, args=[[str(id_) for id_ in ids]], queue=queue)
