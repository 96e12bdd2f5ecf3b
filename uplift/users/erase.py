"""Erases a user: first the key, so that nothing can be read any more, and then all rows.

What 1upHealth has stored stays there: its user management documents no way to delete.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import structlog

from uplift.errors import NotFound
from uplift.key_life import unreadable_by
from uplift.ledger import erasing
from uplift.ledger.audit import SYSTEM, Actor
from uplift.ledger.database import Database, is_away
from uplift.ledger.master_keys import in_use_since
from uplift.problem_types import ProblemType
from uplift.sealing import KeyRing
from uplift.settings import Settings

_log = structlog.get_logger(__name__)

_MAX_ROWS = 1000  # in one transaction
_MAX_USERS = 100  # in one call of `finish`
_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Erasure:
    """How far it is. Workers still send `sending` uploads, each until its lease ends at latest.

    `unreadable_by`: when nobody can read what backups have of the user any more; None if nobody
    said how long they are kept.
    """

    done: bool
    sending: int
    unreadable_by: datetime | None = None


class Eraser:
    """Erases users. If a process dies on the way, the sweep does the rest."""

    def __init__(self, database: Database, key_ring: KeyRing, settings: Settings) -> None:
        self._database = database
        self._key_ring = key_ring
        self._rotation_days = settings.master_key_rotation_days
        self._kept_days = settings.backups_kept_days

    async def erase(self, app_user_id: str, *, wait: float, by: Actor = SYSTEM) -> Erasure:
        """Erase the user of that name. Wait up to `wait` seconds for uploads that are being sent.

        When this returns, none of the user's data can be opened or read any more. It is done when
        no row is left and no worker sends for the user. Call it again to see that, or leave the
        rest to the sweep. Raises NotFound if Uplift keeps nothing under that name.
        """
        until = time.monotonic() + wait
        async with self._database.transaction() as connection:
            began = await erasing.begin(connection, app_user_id, by)
            user_ids = await erasing.begun(connection, app_user_id)
            now, since = await in_use_since(connection, self._key_ring.current)
        by_then = unreadable_by(now, since, self._rotation_days, self._kept_days)
        if not user_ids:
            raise NotFound(
                ProblemType.NO_SUCH_USER,
                "Uplift keeps nothing under that name. The user was erased, or never existed."
                " Check the spelling.",
            )
        if began:
            _log.info("erasing_began")
        while True:
            erasure = await self._continue(user_ids)
            if erasure.done or time.monotonic() >= until:
                return replace(erasure, unreadable_by=by_then)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def finish(self) -> int:
        """Continue every erasure that a process began and does not work on. How many are done now.

        If a user cannot be erased, that is logged, and the others are erased all the same.
        """
        async with self._database.transaction() as connection:
            user_ids = await erasing.some_begun(connection, limit=_MAX_USERS)
        done = 0
        for user_id in user_ids:
            try:
                done += (await self._continue([user_id])).done
            except Exception as error:
                if is_away(error):
                    raise
                # Only the type: an error's text may quote data.
                _log.error("erasing_failed", error=type(error).__name__)
        return done

    async def _continue(self, user_ids: Sequence[UUID]) -> Erasure:
        """Remove everything that can be removed now."""
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
