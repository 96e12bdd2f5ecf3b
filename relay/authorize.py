"""The token that speaks for a user at 1upHealth: kept fresh, or known to be over."""

import asyncio
import time
from dataclasses import dataclass
from uuid import UUID
from weakref import WeakValueDictionary

from relay.errors import UpliftError
from relay.ledger import grants, work
from relay.ledger.database import Database
from relay.ledger.grants import GrantRow
from relay.oneup.tokens import TokenClient, TokenError, Trouble
from relay.sealing import UserKey
from relay.settings import Settings
from relay.tokens import Tokens

_CACHE_SECONDS = 5.0
_CACHE_MOST = 1000
_CODE_TRIES = 4  # a fresh code may take a second to become valid
_CODE_PAUSE = 0.5
# Longer than the token endpoint's own timeout, so that two never refresh at once.
_REFRESH_SECONDS = 30.0


class NeedsAuthorization(UpliftError):
    """The user's grant is dead: only the person can give a new one."""


class TokenUnavailable(UpliftError):
    """No usable token now, though the grant may be good."""

    def __init__(self, code: str, *, retry_after: float | None = None) -> None:
        super().__init__(f"No token from 1upHealth: {code}")
        self.code = code
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token to use now, and the version of the grant it is from."""

    value: str
    version: int

    def __repr__(self) -> str:
        return f"AccessToken(version={self.version})"


@dataclass(frozen=True, slots=True)
class Person:
    """Whose token is wanted: the ledger's user, their name at the backend, and their key."""

    user_id: UUID
    app_user_id: str
    key: UserKey


class Authorizer:
    """Hands out access tokens. One asks 1upHealth for a user at a time, in this process by a
    lock, across processes by a mark on the grant's row.
    """

    def __init__(self, database: Database, tokens: TokenClient, settings: Settings) -> None:
        self._database = database
        self._tokens = tokens
        self._margin = settings.token_margin_seconds
        self._parked_seconds = settings.parked_seconds
        self._locks: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()
        self._cache: dict[UUID, tuple[GrantRow, float]] = {}

    async def token(self, person: Person, *, refused: int | None = None) -> AccessToken:
        """A token of the user that was not refused yet.

        `refused` is the grant's version that 1upHealth answered 401 to. Raises
        NeedsAuthorization if the grant is dead (all that the user has queued is parked then), and
        TokenUnavailable if 1upHealth or another process is not done with it.
        """
        lock = self._locks.setdefault(person.user_id, asyncio.Lock())
        async with lock:
            grant, read_at = await self._grant(person, fresh=refused is not None)
            left = grant.tokens.expires_in - (time.monotonic() - read_at)
            was_refused = refused is not None and grant.version <= refused
            if not was_refused and left > self._margin:
                return AccessToken(grant.tokens.access_token, grant.version)
            try:
                return await self._renew(person, grant)
            except TokenUnavailable:
                # Near its end, but not there yet: better to use it than to wait.
                if not was_refused and left > 0:
                    return AccessToken(grant.tokens.access_token, grant.version)
                raise

    async def _grant(self, person: Person, *, fresh: bool) -> tuple[GrantRow, float]:
        cached = self._cache.get(person.user_id)
        if cached is None or fresh or time.monotonic() - cached[1] > _CACHE_SECONDS:
            self._cache.pop(person.user_id, None)
            async with self._database.transaction() as connection:
                grant = await grants.get_grant(connection, person.user_id, person.key)
            if grant is None or not grant.active:
                raise NeedsAuthorization("The user has no working grant at 1upHealth.")
            if len(self._cache) >= _CACHE_MOST:
                self._cache.clear()
            cached = self._cache[person.user_id] = (grant, time.monotonic())
        return cached

    async def _renew(self, person: Person, grant: GrantRow) -> AccessToken:
        self._cache.pop(person.user_id, None)
        async with self._database.transaction() as connection:
            mine = await grants.start_refresh(
                connection, person.user_id, grant.version, _REFRESH_SECONDS
            )
        if not mine:
            raise TokenUnavailable("another_is_refreshing", retry_after=1.0)
        try:
            tokens = await self._ask(person, grant)
        except TokenError as error:
            if error.trouble is Trouble.REFUSED:
                await self._end(person.user_id, grant.version)
                raise NeedsAuthorization("1upHealth no longer accepts the user's grant.") from None
            async with self._database.transaction() as connection:
                await grants.end_refresh(connection, person.user_id, grant.version)
            raise TokenUnavailable(error.code, retry_after=error.retry_after) from None
        async with self._database.transaction() as connection:
            version = await grants.put_grant(
                connection,
                person.user_id,
                person.key,
                tokens,
                grant.origin,
                instead_of=grant.version,
            )
        if version is None:
            raise TokenUnavailable("the_grant_was_replaced", retry_after=0.0)
        return AccessToken(tokens.access_token, version)

    async def _ask(self, person: Person, grant: GrantRow) -> Tokens:
        if grant.tokens.refresh_token is not None:
            try:
                return await self._tokens.refresh(grant.tokens.refresh_token)
            except TokenError as error:
                # Only a refusal leads on: auth codes are limited to 300 an hour for everybody.
                if error.trouble is not Trouble.REFUSED or grant.origin == "backend":
                    raise
        elif grant.origin == "backend":
            raise TokenError(Trouble.REFUSED, "no_refresh_token")
        code = await self._tokens.auth_code(person.app_user_id)
        return await exchange(self._tokens, code.code)

    async def _end(self, user_id: UUID, version: int) -> None:
        async with self._database.transaction() as connection:
            if await grants.end_grant(connection, user_id, version):
                await work.park_waiting(connection, user_id, clock=self._parked_seconds)


async def exchange(tokens: TokenClient, code: str) -> Tokens:
    """Trade a fresh code for tokens, giving it a moment to become valid. Raises TokenError."""
    for left in reversed(range(_CODE_TRIES)):
        try:
            return await tokens.exchange_code(code)
        except TokenError as error:
            if error.trouble is not Trouble.REFUSED or not left:
                raise
        await asyncio.sleep(_CODE_PAUSE)
    raise AssertionError("unreachable")  # pragma: no cover
