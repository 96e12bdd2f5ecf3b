"""Gives access tokens for users: from the cache, from the ledger, or by a refresh at 1upHealth."""

import time
from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime

from uplift.destinations.responses import Response, ResponseKind
from uplift.errors import TokenUnavailable
from uplift.ledger.database import Database
from uplift.ledger.grants import GrantRow
from uplift.settings import Settings
from uplift.tokens.cache import TokenCache
from uplift.tokens.grant_store import GrantStore
from uplift.tokens.obtain import can_be_renewed
from uplift.tokens.person import AccessToken, Person
from uplift.tokens.refresh import Refresher
from uplift.tokens.refusals import Refusals
from uplift.tokens.single_flight import Flight, SingleFlight
from uplift.tokens.token_endpoint import TokenEndpoint

# How long the mark of a refresh lasts if the process that set it dies.
_REFRESH_SECONDS = 30.0


class TokenAccess:
    """Gives access tokens. At most one refresh per user runs at a time, in all processes.

    `destinations` are the names of those that want one of each person.
    """

    def __init__(
        self,
        database: Database,
        endpoint: TokenEndpoint,
        settings: Settings,
        destinations: Collection[str],
        *,
        refresh_seconds: float = _REFRESH_SECONDS,
    ) -> None:
        self._margin = settings.token_margin_seconds
        self._flights = SingleFlight()
        self._cache = TokenCache()
        self._refusals = Refusals()
        self._grants = GrantStore(database, settings, destinations, refresh_seconds=refresh_seconds)
        self._refresher = Refresher(
            self._grants, endpoint, settings, refresh_seconds=refresh_seconds
        )

    async def close(self) -> None:
        """Wait for the refreshes that are under way. Call it before the database closes."""
        await self._refresher.close()

    async def with_token(
        self, person: Person, ask: Callable[[AccessToken], Awaitable[Response]]
    ) -> Response:
        """Ask with the person's token. On a 401, refresh the token once and ask again.

        The second response is returned whatever it is, a 401 too. Raises what `token` raises, and
        what `ask` raises.
        """
        token = await self.token(person)
        response = await ask(token)
        if response.kind is ResponseKind.UNAUTHORIZED:
            token = await self.token(person, refused=token.version)
            response = await ask(token)
        return response

    async def token(self, person: Person, *, refused: int | None = None) -> AccessToken:
        """A token of the person that was not refused yet.

        `refused` is the version of the token to which 1upHealth responded 401. Raises
        NeedsAuthorization if the grant is dead; everything that the user has queued is parked
        then. Raises TokenUnavailable if 1upHealth or another process does not give a token in
        time, or if 1upHealth refuses fresh tokens too.
        """
        since = time.monotonic()
        flight = self._flights.of(person.user_id)
        async with flight.lock:
            cached = self._cache.get(person.user_id)
            if refused is None and cached is not None:
                return cached
            self._cache.drop(person.user_id)
            grant = await self._grants.active_grant(person)
            ends_at = time.monotonic() + grant.tokens.expires_in
            if refused is not None and grant.version <= refused:
                return await self._replace_refused(person, grant, flight, since, ends_at)
            token = AccessToken(grant.tokens.access_token, grant.version)
            good_for = grant.tokens.expires_in - self._margin_of(grant)
            if good_for > 0:
                self._cache.put(person.user_id, token, good_for)
                return token
            works = time.monotonic() < ends_at
            try:
                return await self._refresh(person, grant, flight, since, may_wait=not works)
            except TokenUnavailable:
                left = ends_at - time.monotonic()
                if left <= 0:
                    raise
                # Near its end, but it still works: better to use it than to wait.
                self._cache.put(person.user_id, token, left)
                return token

    async def _replace_refused(
        self, person: Person, grant: GrantRow, flight: Flight, since: float, ends_at: float
    ) -> AccessToken:
        # A token that is also past its end was refused for that.
        if time.monotonic() < ends_at:
            self._refusals.check(person.user_id)
        renewed = await self._refresh(person, grant, flight, since, may_wait=True)
        self._refusals.replaced(person.user_id)
        return renewed

    async def _refresh(
        self, person: Person, grant: GrantRow, flight: Flight, since: float, *, may_wait: bool
    ) -> AccessToken:
        async def refresh() -> AccessToken:
            return await self._refresher.refresh(person, grant, may_wait=may_wait)

        return await self._flights.run(flight, grant.version, since, refresh)

    def _margin_of(self, grant: GrantRow) -> float:
        """The token is refreshed when it has no more seconds left than this."""
        if not can_be_renewed(grant):
            return 0.0
        # Not more than half its life: a short-lived token would be refreshed at each use.
        age = (datetime.now(UTC) - grant.updated_at).total_seconds()
        return min(self._margin, (grant.tokens.expires_in + max(age, 0.0)) / 2)
