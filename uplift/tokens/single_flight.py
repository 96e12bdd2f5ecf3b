"""Who asks 1upHealth for one user's token now, and what the last who got none has learnt."""

import asyncio
import time
from uuid import UUID
from weakref import WeakValueDictionary

from uplift.errors import UpliftError

# Users whose limit is remembered. Of those that are forgotten, one upload more asks in vain.
_MAX_REMEMBERED = 10_000


class TokenUnavailable(UpliftError):
    """No usable token now, though the grant may be good."""

    def __init__(self, code: str, *, retry_after: float | None = None) -> None:
        super().__init__(f"No token from 1upHealth: {code}")
        self.code = code
        self.retry_after = retry_after


class TokenPending(TokenUnavailable):
    """Nothing was tried: another asks for this user at the moment, or nobody may ask.

    Worth another try after `retry_after` seconds, at a random time of the next `spread` seconds.
    """

    retry_after: float

    def __init__(self, code: str, *, retry_after: float, spread: float = 1.0) -> None:
        super().__init__(code, retry_after=retry_after)
        self.spread = spread


class TokenLimitReached(TokenPending):
    """1upHealth allows no such call before `retry_after` seconds have passed."""


class Flight:
    """One user's: hold `lock` while asking."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self._error: TokenUnavailable | None = None
        self._version = 0
        self._at = 0.0

    def check(self, version: int, came_at: float) -> None:
        """Raise again what answers a caller too who came at that time for that version."""
        error = self._error
        if error is None or self._version != version:
            return
        if isinstance(error, TokenLimitReached):
            left = self._at + error.retry_after - time.monotonic()
            if left > 0:
                raise TokenLimitReached(error.code, retry_after=left, spread=error.spread)
        # One failure answers all who waited for it: if each of them asked again, and waited for
        # 1upHealth in its turn, their leases would end meanwhile.
        if self._at >= came_at:
            if isinstance(error, TokenPending):
                raise TokenPending(error.code, retry_after=error.retry_after, spread=error.spread)
            raise TokenUnavailable(error.code, retry_after=error.retry_after)

    def failed(self, version: int, error: TokenUnavailable) -> None:
        """Note that there is no newer version yet, and why."""
        self._error, self._version, self._at = error, version, time.monotonic()


class SingleFlight:
    """The turns of all users of this process."""

    def __init__(self) -> None:
        self._flights: WeakValueDictionary[UUID, Flight] = WeakValueDictionary()
        self._remembered: dict[UUID, Flight] = {}

    def of(self, user_id: UUID) -> Flight:
        """The user's turn. It lasts while somebody holds it."""
        return self._flights.setdefault(user_id, Flight())

    def remember(self, user_id: UUID, turn: Flight) -> None:
        """Let it last: hundreds of uploads of that user need not each meet the same limit."""
        self._remembered.pop(user_id, None)
        if len(self._remembered) >= _MAX_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[user_id] = turn

    def forget(self, user_id: UUID) -> None:
        """There is a token again."""
        self._remembered.pop(user_id, None)
