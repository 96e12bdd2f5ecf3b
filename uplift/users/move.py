"""Moves users to other destinations, and has everything sent once more."""

from collections.abc import Mapping
from uuid import UUID

import structlog

from uplift.destinations.destination import Destination
from uplift.errors import NotFound
from uplift.ledger import moving, users
from uplift.ledger.audit import SYSTEM, Actor
from uplift.ledger.database import Database
from uplift.ledger.moving import Terms
from uplift.ledger.users import UserRow
from uplift.problem_types import ProblemType

_log = structlog.get_logger(__name__)

_MAX_ROWS = 1000  # in one transaction
_MAX_USERS = 100  # in one call of `finish`


class Mover:
    """Moves users. If a process dies on the way, the sweep does the rest."""

    def __init__(self, database: Database, destinations: Mapping[str, Destination]) -> None:
        self._database = database
        self._destinations = destinations
        self._terms = {
            name: Terms(versions=frozenset(each.bases), needs_grant=each.needs_grant)
            for name, each in destinations.items()
        }

    async def move(self, app_user_id: str, destination: str, *, by: Actor = SYSTEM) -> UserRow:
        """Move a user; the user as they are then. It is safe to repeat.

        From its return on, nothing of theirs is sent to the old destination for the first time.
        What may be there ends there. Raises NotFound if there is no such user or destination.
        """
        require_destination(self._destinations, destination)
        async with self._database.transaction() as connection:
            user = await users.require_user(connection, app_user_id)
            moved = await moving.begin(connection, user.id, destination, by=by)
        if moved:
            await self._move_left(user.id)
            _log.info("user_moved", destination=destination)
        async with self._database.transaction() as connection:
            return await users.require_user(connection, app_user_id)

    async def resend(self, app_user_id: str, *, by: Actor = SYSTEM) -> UserRow:
        """Have everything of a user sent once more, when their apps send it; the user then.

        Nothing is forgotten that keeps a record from being there twice. It is safe to repeat.
        Raises NotFound if there is no such user.
        """
        async with self._database.transaction() as connection:
            user = await users.require_user(connection, app_user_id)
        after: bytes | None = b""
        while after is not None:
            async with self._database.transaction() as connection:
                after = await moving.forget_contents(
                    connection, user.id, after=after, limit=_MAX_ROWS
                )
        # Last, so that whoever sees the new token finds everything forgotten.
        async with self._database.transaction() as connection:
            await moving.ask_for_all(connection, user.id, by=by)
            return await users.require_user(connection, app_user_id)

    async def finish(self) -> int:
        """Move what is left of users who moved: what was being sent then, and was not. How many
        uploads."""
        async with self._database.transaction() as connection:
            user_ids = await moving.some_moving(connection, limit=_MAX_USERS)
        moved = 0
        for user_id in user_ids:
            moved += await self._move_left(user_id)
        return moved

    async def _move_left(self, user_id: UUID) -> int:
        moved, step = 0, _MAX_ROWS
        while step == _MAX_ROWS:
            async with self._database.transaction() as connection:
                step = (
                    await moving.move_some(connection, user_id, self._terms, limit=_MAX_ROWS)
                ).found
            moved += step
        async with self._database.transaction() as connection:
            await moving.end(connection, user_id)
        return moved


def require_destination(destinations: Mapping[str, Destination], name: str) -> Destination:
    """The destination of that name. Raises NotFound if the deployment has none."""
    if name not in destinations:
        known = ", ".join(sorted(destinations))
        raise NotFound(
            ProblemType.NO_SUCH_DESTINATION,
            f"This deployment has no destination of that name. It has: {known}.",
        )
    return destinations[name]
