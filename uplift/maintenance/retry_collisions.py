"""Tries collisions again when two labels turned out to be names of one source."""

import structlog

from uplift.errors import SealError
from uplift.ledger import retrying_collisions, users
from uplift.ledger.database import Database
from uplift.sealing import KeyRing

_log = structlog.get_logger(__name__)

_MAX_USERS = 100  # in one call
_MAX_PAIRS = 50  # in one transaction


class CollisionRetrier:
    """Makes records one that collided under two names of one source."""

    def __init__(self, database: Database, key_ring: KeyRing) -> None:
        self._database = database
        self._key_ring = key_ring

    async def retry(self) -> int:
        """Go through the users whose sources have new names; how many records became one."""
        async with self._database.reading() as connection:
            user_ids = await retrying_collisions.find_users(connection, limit=_MAX_USERS)
        merged = 0
        for user_id in user_ids:
            some: int | None = 0
            while some is not None:
                async with self._database.transaction() as connection:
                    user = await users.get_user(connection, user_id, lock=True)
                    if user is None:
                        break
                    try:
                        key = user.key(self._key_ring)
                    except SealError:
                        _log.error("user_key_does_not_open", user=str(user_id))
                        break
                    some = await retrying_collisions.retry(
                        connection, user_id, key, limit=_MAX_PAIRS
                    )
                merged += some or 0
        return merged
