"""Lets go of what is old: uploads that ended, batches, tokens and keys that are over.

Records stay, so the same content is known for as long as its person is; the audit trail stays.
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
# After each step it rests so many times as long as the step took: deliveries need PostgreSQL more.
REST = 19.0
_REST_MOST_SECONDS = 5.0
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
    """Works through the ledger again and again, a part of its time.

    It remembers only where it is. A process that begins anew begins at the oldest, and passes over
    what is there to stay.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        *,
        rows: int = MAX_ROWS,
        rest: float = REST,
        pause: float = _PAUSE_SECONDS,
    ) -> None:
        self._database = database
        self._windows = windows(settings)
        self._rows = rows
        self._rest = rest
        self._pause = pause
        # After which it goes on; None once they are through.
        self._upload: UUID | None = FIRST_UPLOAD
        self._batch: tuple[datetime, UUID] | None = FIRST_BATCH
        self._next_pass_at = 0.0  # on time.monotonic
        self._turn = asyncio.Lock()

    async def retain(self, *, seconds: float) -> Retained:
        """Work and rest for about so many seconds, or until all of the ledger was walked once.

        Does nothing while another call is at it, and for some minutes after a whole pass.
        """
        if self._turn.locked() or time.monotonic() < self._next_pass_at:
            return Retained()
        async with self._turn:
            until = time.monotonic() + seconds
            done = Retained()
            over = False
            while not over:
                began = time.monotonic()
                step, over = await self._step()
                done = _sum(done, step)
                if over:
                    self._next_pass_at = time.monotonic() + self._pause
                rest = min(self._rest * (time.monotonic() - began), _REST_MOST_SECONDS)
                if over or time.monotonic() + rest >= until:
                    break
                await asyncio.sleep(rest)
        if done != Retained():
            _log.info(
                "retained",
                thinned=done.thinned,
                shredded=done.shredded,
                removed=done.removed,
                batches=done.batches,
                tokens=done.tokens,
            )
        return done

    async def _step(self) -> tuple[Retained, bool]:
        """One transaction; whether all was walked to its end."""
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
            # Keys first: they refer to the tokens that brought them.
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
