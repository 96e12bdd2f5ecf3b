"""The tokens of the last seconds, so that a busy user does not cost a query for each request."""

import time
from collections.abc import Callable
from uuid import UUID

from uplift.tokens.person import AccessToken

# Another process may replace the token. So no entry is used for longer than this.
_MAX_SECONDS = 5.0
_MAX_TOKENS = 1000


class TokenCache:
    """Remembers one token per user for a few seconds. `now` is a clock in seconds."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._tokens: dict[UUID, tuple[AccessToken, float]] = {}  # and until when it is used

    def get(self, user_id: UUID) -> AccessToken | None:
        """The user's token, if there is one that may still be used."""
        token, until = self._tokens.get(user_id, (None, 0.0))
        return token if self._now() < until else None

    def put(self, user_id: UUID, token: AccessToken, seconds: float) -> None:
        """Remember the token for so many seconds, but not for longer than 5."""
        if len(self._tokens) >= _MAX_TOKENS:
            self._tokens.clear()
        self._tokens[user_id] = (token, self._now() + min(seconds, _MAX_SECONDS))

    def drop(self, user_id: UUID) -> None:
        """Forget the user's token."""
        self._tokens.pop(user_id, None)
