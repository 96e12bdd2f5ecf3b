"""One token refresh per user at a time among all processes, by a mark on the grant's row.

The process that sets the mark asks 1upHealth. The others wait for its result: 1upHealth ends a
refresh token at its first use, so two processes must never send the same one.
"""

import asyncio
import time

from uplift.errors import (
    NeedsAuthorization,
    TokenError,
    TokenLimitReached,
    TokenPending,
    TokenUnavailable,
    Trouble,
)
from uplift.ledger.grants import GrantRow
from uplift.ledger.token_pair import TokenPair
from uplift.settings import Settings
from uplift.tokens.grant_store import GrantStore
from uplift.tokens.obtain import obtain
from uplift.tokens.person import AccessToken, Person
from uplift.tokens.token_endpoint import QUOTA_SPENT, TokenEndpoint

# 1upHealth must respond within this part of the mark's time. Otherwise the mark would end, and
# another process would send the same refresh token.
_ASKING_PART = 0.8
# Another process usually has its new tokens within this time. The pauses between two reads double.
_WAIT_SECONDS = 3.0
_FIRST_PAUSE_SECONDS = 0.05
# A spent quota becomes free call by call. Who waits for it comes back at a random time within this
# part of the quota's period.
_SPREAD_PART = 0.05


class Refresher:
    """Replaces tokens that are refused or near their end."""

    def __init__(
        self,
        store: GrantStore,
        endpoint: TokenEndpoint,
        settings: Settings,
        *,
        refresh_seconds: float,
    ) -> None:
        self._store = store
        self._endpoint = endpoint
        self._refresh_seconds = refresh_seconds
        self._quota_spread = settings.oneup_quota_seconds * _SPREAD_PART
        self._refreshes: set[asyncio.Task[AccessToken]] = set()

    async def close(self) -> None:
        """Wait for the refreshes that are under way, but not longer than their marks last.

        Their old refresh tokens may be dead already, so call it before the database closes.
        """
        if self._refreshes:
            await asyncio.wait(self._refreshes, timeout=self._refresh_seconds)

    async def refresh(self, person: Person, grant: GrantRow, *, may_wait: bool) -> AccessToken:
        """The token that follows the grant's.

        `may_wait`: wait a few seconds if another process refreshes it. Raises NeedsAuthorization
        if the grant is dead, and TokenUnavailable if there is no token now.
        """
        if not await self._store.start_refresh(grant):
            return await self._from_another_process(person, grant, may_wait=may_wait)
        # The caller may be cancelled when 1upHealth has ended the old refresh token and the new
        # one is not saved yet. Without the task the person would have to consent again.
        refreshing = asyncio.create_task(self._ask_and_save(person, grant))
        self._refreshes.add(refreshing)
        refreshing.add_done_callback(self._refreshed)
        return await asyncio.shield(refreshing)

    def _refreshed(self, refreshing: asyncio.Task[AccessToken]) -> None:
        self._refreshes.discard(refreshing)
        if not refreshing.cancelled():
            refreshing.exception()  # the caller gets it, if there still is one: no warning needed

    async def _from_another_process(
        self, person: Person, grant: GrantRow, *, may_wait: bool
    ) -> AccessToken:
        until = time.monotonic() + (_WAIT_SECONDS if may_wait else 0.0)
        pause = _FIRST_PAUSE_SECONDS
        while time.monotonic() < until:
            await asyncio.sleep(pause)
            pause *= 2
            newer = await self._store.active_grant(person)
            if newer.version != grant.version:
                return AccessToken(newer.tokens.access_token, newer.version)
            if not newer.refreshing:
                break  # the other process got no token: to ask again at once would hardly help
        raise TokenPending("another_is_refreshing", retry_after=1.0)

    async def _ask_and_save(self, person: Person, grant: GrantRow) -> AccessToken:
        try:
            tokens = await self._ask(person, grant)
        except TokenError as error:
            if error.trouble is Trouble.REFUSED:
                if not await self._store.end(grant):
                    raise _replaced() from None
                raise NeedsAuthorization("1upHealth no longer accepts the user's grant.") from None
            await self._store.end_refresh(grant)
            raise self._unavailable(error) from None
        version = await self._store.save(person, grant, tokens)
        if version is None:
            raise _replaced()
        return AccessToken(tokens.access_token, version)

    async def _ask(self, person: Person, grant: GrantRow) -> TokenPair:
        try:
            async with asyncio.timeout(_ASKING_PART * self._refresh_seconds):
                return await obtain(self._endpoint, person.app_user_id, grant)
        except TimeoutError:
            raise TokenError(Trouble.UNAVAILABLE, "no_answer") from None

    def _unavailable(self, error: TokenError) -> TokenUnavailable:
        if error.trouble is not Trouble.BUSY or error.retry_after is None:
            return TokenUnavailable(error.code, retry_after=error.retry_after)
        quota_spent = error.code == QUOTA_SPENT
        spread = self._quota_spread if quota_spent else max(1.0, error.retry_after / 2)
        return TokenLimitReached(error.code, retry_after=error.retry_after, spread=spread)


def _replaced() -> TokenPending:
    return TokenPending("the_grant_was_replaced", retry_after=0.0)
