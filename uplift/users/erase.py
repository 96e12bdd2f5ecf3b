"""Erases a user: first the key, so that nothing can be read any more, and then all rows.

What destinations have stored stays there, or is deleted first: `maintenance.erase_upstream` goes on
with what begins here.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import structlog

from uplift.destinations.derived_ids import patient_id
from uplift.destinations.destination import Destination
from uplift.errors import NotFound
from uplift.key_life import unreadable_by
from uplift.ledger import destinations as known_destinations
from uplift.ledger import erasing, erasing_upstream, named_patients, upstream_deletions
from uplift.ledger.audit import SYSTEM, Actor
from uplift.ledger.database import Database, is_away
from uplift.ledger.erasing_upstream import Progress
from uplift.ledger.master_keys import in_use_since
from uplift.problem_types import ProblemType
from uplift.sealing import KeyRing
from uplift.settings import Settings
from uplift.users.targets import Targets

_log = structlog.get_logger(__name__)

_MAX_ROWS = 1000  # in one transaction
_MAX_USERS = 100  # in one call of `finish`
_PAUSE_SECONDS = 0.2


class Upstream(StrEnum):
    """What becomes of what the user has at destinations."""

    KEEP = "keep"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Erasure:
    """How far it is. Workers still send `sending` uploads, each until its lease ends at latest.

    `unreadable_by`: when nobody can read what backups have of the user any more; None if nobody
    said how long they are kept. `upstream` is what becomes of what they have at destinations, and
    `left_upstream` how much of that is not gone. `problem` is the code of the last response that
    kept some of it from being deleted. `history` says where servers keep what was deleted.
    """

    done: bool
    sending: int
    unreadable_by: datetime | None = None
    upstream: Upstream = Upstream.KEEP
    left_upstream: int = 0
    problem: str | None = None
    history: tuple[str, ...] = ()


class Eraser:
    """Erases users. If a process dies on the way, the sweep does the rest."""

    def __init__(
        self,
        database: Database,
        key_ring: KeyRing,
        settings: Settings,
        destinations: Mapping[str, Destination] | None = None,
        id_key: bytes | None = None,
    ) -> None:
        self._database = database
        self._key_ring = key_ring
        self._destinations = destinations or {}
        self._id_key = id_key
        self._rotation_days = settings.master_key_rotation_days
        self._kept_days = settings.backups_kept_days

    async def erase(
        self,
        app_user_id: str,
        *,
        wait: float,
        upstream: Upstream | None = None,
        by: Actor = SYSTEM,
    ) -> Erasure:
        """Erase the user of that name. Wait up to `wait` seconds until it is done.

        With Upstream.KEEP none of the user's data can be opened or read any more when this returns.
        It is done when no row is left and no worker sends for the user. With Upstream.DELETE that
        begins when everything of theirs at destinations is gone; until then nothing of theirs is
        taken or sent. Without either, what has begun goes on; a new erasure keeps. Call it again to
        see how far it is, or leave the rest to the sweep. Upstream.KEEP ends deletions under way.

        Raises NotFound if Uplift keeps nothing under that name.
        """
        until = time.monotonic() + wait
        progress = await self._begin_upstream(app_user_id, upstream, by)
        if progress is None or upstream is Upstream.KEEP:
            erasure = await self._erase_here(app_user_id, until, by)
            if progress is not None:
                erasure = replace(erasure, left_upstream=progress.left + progress.lost)
            return erasure
        history = await self._history(app_user_id)
        seen = progress
        while progress is not None and time.monotonic() < until:
            seen = progress
            await asyncio.sleep(_PAUSE_SECONDS)
            progress = await self.progress(app_user_id)
        if progress is not None:
            return Erasure(
                done=False,
                sending=progress.sending,
                upstream=Upstream.DELETE,
                left_upstream=progress.left + progress.lost,
                problem=progress.problem,
                history=history,
            )
        return replace(
            await self._what_is_left(app_user_id),
            unreadable_by=await self._unreadable_by(),
            upstream=Upstream.DELETE,
            left_upstream=seen.lost,
            history=history,
        )

    async def progress(self, app_user_id: str) -> Progress | None:
        """How far the deletions at the user's destinations are; None if there are none."""
        async with self._database.transaction() as connection:
            return await erasing_upstream.progress(connection, app_user_id)

    async def _begin_upstream(
        self, app_user_id: str, upstream: Upstream | None, by: Actor
    ) -> Progress | None:
        """Begin with it if that is wanted; how far it is, None if nothing is deleted upstream."""
        async with self._database.transaction() as connection:
            if upstream is Upstream.DELETE:
                user = await erasing_upstream.begin(connection, app_user_id, by)
                if user is not None:
                    _log.info("erasing_upstream_began")
                    key = user.key(self._key_ring)
                    addresses = await known_destinations.read_addresses(connection)
                    targets = Targets(user.id, key, self._destinations, addresses)
                    if self._id_key is not None:
                        names = await erasing_upstream.destinations_of(connection, user.id)
                        # Uplift made none where the backend named one.
                        names -= set(await named_patients.read(connection, user.id, key))
                        pseudonym = patient_id(self._id_key, app_user_id=app_user_id)
                        targets.add_patients(pseudonym, sorted(names))
                    await upstream_deletions.add(connection, user.id, targets.new)
            return await erasing_upstream.progress(connection, app_user_id)

    async def _history(self, app_user_id: str) -> tuple[str, ...]:
        """What the user's destinations keep of what was deleted."""
        async with self._database.transaction() as connection:
            names = await erasing_upstream.destinations_of_name(connection, app_user_id)
        return tuple(
            f"{name}: {each.history}"
            for name, each in sorted(self._destinations.items())
            if name in names and each.history
        )

    async def _what_is_left(self, app_user_id: str) -> Erasure:
        async with self._database.transaction() as connection:
            user_ids = await erasing.begun(connection, app_user_id)
        return await self._continue(user_ids)

    async def _unreadable_by(self) -> datetime | None:
        async with self._database.transaction() as connection:
            now, since = await in_use_since(connection, self._key_ring.current)
        return unreadable_by(now, since, self._rotation_days, self._kept_days)

    async def _erase_here(self, app_user_id: str, until: float, by: Actor) -> Erasure:
        async with self._database.transaction() as connection:
            began = await erasing.begin(connection, app_user_id, by)
            user_ids = await erasing.begun(connection, app_user_id)
            ended = None if began else await erasing_upstream.left_by_ended(connection, app_user_id)
        by_then = await self._unreadable_by()
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
                break
            await asyncio.sleep(_PAUSE_SECONDS)
        if ended is not None:
            erasure = replace(erasure, upstream=Upstream.DELETE, left_upstream=ended)
        return replace(erasure, unreadable_by=by_then)

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
