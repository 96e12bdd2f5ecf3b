"""Stops refreshing where 1upHealth refuses fresh tokens too.

Without it, each upload of the user would cost a refresh, and none of them would help.
"""

import time
from collections.abc import Callable
from uuid import UUID

from uplift.errors import TokenUnavailable

_PAUSE_SECONDS = 60.0
_MAX_USERS = 1000


class Refusals:
    """Remembers for which users a refused token was replaced a short time ago.

    `now` is a clock in seconds.
    """

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._replaced_at: dict[UUID, float] = {}

    def check(self, user_id: UUID) -> None:
        """Raise TokenUnavailable if the user's refused token was replaced in the last minute.

        The version of the grant does not matter: two processes would otherwise refresh each
        other's tokens for ever.
        """
        at = self._replaced_at.get(user_id)
        left = 0.0 if at is None else at + _PAUSE_SECONDS - self._now()
        if left > 0:
            raise TokenUnavailable("fresh_token_refused", retry_after=left)

    def replaced(self, user_id: UUID) -> None:
        """Note that a new token just replaced the user's refused one."""
        if len(self._replaced_at) >= _MAX_USERS:
            self._replaced_at.clear()
        self._replaced_at[user_id] = self._now()
