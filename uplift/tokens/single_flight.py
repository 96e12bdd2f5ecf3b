"""One token refresh per user at a time in this process; callers that waited share its result."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

from uplift.errors import TokenLimitReached, TokenPending, TokenUnavailable

Result = TypeVar("Result")

# Users whose reached limit is remembered. A forgotten user costs one more call in vain.
_MAX_REMEMBERED = 10_000


class Flight:
    """One user's refreshes. Hold `lock` from reading the grant to the end of the refresh."""

    def __init__(self, user_id: UUID, *, now: Callable[[], float]) -> None:
        self.user_id = user_id
        self.lock = asyncio.Lock()
        self._now = now
        self._error: TokenUnavailable | None = None
        self._version = 0
        self._at = 0.0

    def check(self, version: int, since: float) -> None:
        """Raise the last failure again where it concerns a caller who waits since that time.

        A failure concerns those who waited during it: if each of them asked again, one after the
        other, their leases would end meanwhile. A reached limit concerns everybody until it has
        passed. A newer version of the grant is always tried.
        """
        error = self._error
        if error is None or self._version != version:
            return
        if isinstance(error, TokenLimitReached):
            left = self._at + error.retry_after - self._now()
            if left > 0:
                raise TokenLimitReached(error.code, retry_after=left, spread=error.spread)
        if self._at >= since:
            raise _copy(error)

    def failed(self, version: int, error: TokenUnavailable) -> None:
        """Note why there is no newer version yet."""
        self._error, self._version, self._at = _copy(error), version, self._now()


class SingleFlight:
    """The flights of all users of this process. `now` is a clock in seconds."""

    def __init__(
        self,
        *,
        max_remembered: int = _MAX_REMEMBERED,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_remembered = max_remembered
        self._now = now
        # A flight lasts while a caller uses it, and longer if it is remembered.
        self._flights: WeakValueDictionary[UUID, Flight] = WeakValueDictionary()
        self._remembered: dict[UUID, Flight] = {}

    def of(self, user_id: UUID) -> Flight:
        """The user's flight. All who want the user's token at this time share it."""
        flight = self._flights.get(user_id)
        if flight is None:
            flight = self._flights[user_id] = Flight(user_id, now=self._now)
        return flight

    async def run(
        self,
        flight: Flight,
        version: int,
        since: float,
        refresh: Callable[[], Awaitable[Result]],
    ) -> Result:
        """Refresh that version of the grant, for a caller who waits since that time.

        The caller holds the flight's lock. Raises TokenUnavailable if the refresh does, and at
        once if the last failure concerns this caller too.
        """
        flight.check(version, since)
        try:
            result = await refresh()
        except TokenUnavailable as error:
            flight.failed(version, error)
            if isinstance(error, TokenLimitReached):
                self._remember(flight)
            raise
        self._remembered.pop(flight.user_id, None)
        return result

    def _remember(self, flight: Flight) -> None:
        # Hundreds of uploads of that user need not reach the same limit one by one.
        self._remembered.pop(flight.user_id, None)
        if len(self._remembered) >= self._max_remembered:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[flight.user_id] = flight


def _copy(error: TokenUnavailable) -> TokenUnavailable:
    # Without the traceback, which belongs to one caller and would keep the flight in memory.
    if isinstance(error, TokenPending):
        return type(error)(error.code, retry_after=error.retry_after, spread=error.spread)
    return TokenUnavailable(error.code, retry_after=error.retry_after)
