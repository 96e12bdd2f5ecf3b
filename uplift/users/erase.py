"""Forgets a person: at once for everybody who asks, and then row by row to the last.

What 1upHealth holds of them is not touched: its user management documents no way to delete.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog

from uplift.errors import NotFound
from uplift.ledger import erasing
from uplift.ledger.audit import SYSTEM, Actor
from uplift.ledger.database import Database, is_away

_log = structlog.get_logger(__name__)

_MAX_ROWS = 1000  # in one transaction
_MAX_USERS = 100  # in one sweep
_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Erasure:
    """How far it is: `sending` uploads are in workers' hands, until they end or their leases do."""

    done: bool
    sending: int


class Eraser:
    """Erases users. A process that dies on the way leaves the rest to the sweep."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def erase(self, app_user_id: str, *, wait: float, by: Actor = SYSTEM) -> Erasure:
        """Erase the user of that name, waiting up to so many seconds for what is under way.

        When this returns, nothing of theirs can be opened or read any more. It is done when
        nothing is left and no worker sends for them; repeat it to see, or leave it to the sweep.
        Raises NotFound if nothing is kept under that name.
        """
        until = time.monotonic() + wait
        async with self._database.transaction() as connection:
            began = await erasing.begin(connection, app_user_id, by)
            user_ids = await erasing.begun(connection, app_user_id)
        if not user_ids:
            raise NotFound("Nothing is kept under that name: erased already, or never there.")
        if began:
            _log.info("erasing_began")
        while True:
            erasure = await self._go_on(user_ids)
            if erasure.done or time.monotonic() >= until:
                return erasure
            await asyncio.sleep(_PAUSE_SECONDS)

    async def finish(self) -> int:
        """Go on with what was begun anywhere and is not under way there; how many are done.

        A user who cannot be erased is logged, and keeps no other waiting.
        """
        async with self._database.transaction() as connection:
            user_ids = await erasing.some_begun(connection, limit=_MAX_USERS)
        done = 0
        for user_id in user_ids:
            try:
                done += (await self._go_on([user_id])).done
            except Exception as error:
                if is_away(error):
                    raise
                # Only the type: an error's text may quote what it was given.
                _log.error("erasing_failed", error=type(error).__name__)
        return done

    async def _go_on(self, user_ids: Sequence[UUID]) -> Erasure:
        """Remove all that can be removed now."""
        done, sending = True, 0
        for user_id in user_ids:
            step = await self._step(user_id)
            while step.moved and not step.done:
                step = await self._step(user_id)
            done = done and step.done
            sending += step.sending
        return Erasure(done, sending)

    async def _step(self, user_id: UUID) -> erasing.Removal:
        async with self._database.transaction() as connection:
            return await erasing.remove_some(connection, user_id, limit=_MAX_ROWS)
