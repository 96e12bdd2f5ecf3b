"""Retention: thins, shreds or removes old uploads, and removes old batches, tokens and keys.

Records stay for as long as their user does, so that the same content is still a duplicate. The
audit trail stays for ever.
"""

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import structlog

from uplift.ledger import idempotency, retention
from uplift.ledger.database import Database
from uplift.ledger.retention import FIRST_BATCH, FIRST_UPLOAD, windows
from uplift.settings import Settings

_log = structlog.get_logger(__name__)

MAX_ROWS = 200  # in one transaction, which takes some tens of milliseconds
# It rests this many times as long as a step took: deliveries need PostgreSQL more.
REST_FACTOR = 19.0
_MAX_REST_SECONDS = 5.0
_PAUSE_SECONDS = 600.0  # between two passes


@dataclass(frozen=True, slots=True)
class Retained:
    """How many uploads were thinned, shredded or removed, and batches, device tokens and
    idempotency keys removed.
    """

    thinned: int = 0
    shredded: int = 0
    removed: int = 0
    batches: int = 0
    tokens: int = 0
    keys: int = 0


class Retainer:
    """Walks through the ledger again and again, the oldest first.

    It remembers only its position. A new process starts at the oldest row again, and skips the rows
    that stay.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        *,
        rows: int = MAX_ROWS,
        rest_factor: float = REST_FACTOR,
        pause: float = _PAUSE_SECONDS,
    ) -> None:
        self._database = database
        self._windows = windows(settings)
        self._rows = rows
        self._rest_factor = rest_factor
        self._pause = pause
        # It goes on after these rows; None once all were walked.
        self._upload: UUID | None = FIRST_UPLOAD
        self._batch: tuple[datetime, UUID] | None = FIRST_BATCH
        self._next_pass_at = 0.0  # on time.monotonic
        self._walking = asyncio.Lock()

    async def retain(self, *, seconds: float) -> Retained:
        """Work and rest for about that many seconds, or until the end of the ledger.

        Does nothing while another call runs, and for some minutes after a whole pass.
        """
        if self._walking.locked() or time.monotonic() < self._next_pass_at:
            return Retained()
        async with self._walking:
            until = time.monotonic() + seconds
            done = Retained()
            over = False
            while not over:
                began = time.monotonic()
                step, over = await self._step()
                done = _sum(done, step)
                if over:
                    self._next_pass_at = time.monotonic() + self._pause
                rest = min(self._rest_factor * (time.monotonic() - began), _MAX_REST_SECONDS)
                if over or time.monotonic() + rest >= until:
                    break
                await asyncio.sleep(rest)
        if done != Retained():
            _log.info(
                "retention_ended",
                thinned=done.thinned,
                shredded=done.shredded,
                removed=done.removed,
                batches=done.batches,
                tokens=done.tokens,
                keys=done.keys,
            )
        return done

    async def _step(self) -> tuple[Retained, bool]:
        """One transaction. Returns also whether it came to the end of the ledger."""
        async with self._database.transaction() as connection:
            if self._upload is not None:
                walked = await retention.walk_uploads(
                    connection, self._windows, after=self._upload, limit=self._rows
                )
                self._upload = walked.last
                return Retained(walked.thinned, walked.shredded, walked.removed), False
            if self._batch is not None:
                self._batch, batches = await retention.walk_batches(
                    connection, self._windows, after=self._batch, limit=self._rows
                )
                return Retained(batches=batches), False
            # Keys first: they refer to the tokens that they came with.
            keys = await idempotency.purge_expired(connection, limit=self._rows)
            tokens = await retention.remove_ended_tokens(connection, limit=self._rows)
        over = max(keys, tokens) < self._rows
        if over:
            self._upload, self._batch = FIRST_UPLOAD, FIRST_BATCH
        return Retained(tokens=tokens, keys=keys), over


def _sum(one: Retained, other: Retained) -> Retained:
    return Retained(
        one.thinned + other.thinned,
        one.shredded + other.shredded,
        one.removed + other.removed,
        one.batches + other.batches,
        one.tokens + other.tokens,
        one.keys + other.keys,
    )
