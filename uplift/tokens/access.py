"""The token that speaks for a user at 1upHealth: kept fresh, or known to be over."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from uplift.destinations.responses import Response, ResponseKind
from uplift.errors import UpliftError
from uplift.ledger import grants, parking
from uplift.ledger.database import Database
from uplift.ledger.grants import GrantRow
from uplift.ledger.token_pair import TokenPair
from uplift.metrics import grants_ended, tokens_renewed, uploads_parked
from uplift.sealing import UserKey
from uplift.settings import Settings
from uplift.tokens.single_flight import (
    Flight,
    SingleFlight,
    TokenLimitReached,
    TokenPending,
    TokenUnavailable,
)
from uplift.tokens.token_endpoint import QUOTA_SPENT, TokenEndpoint, TokenError, Trouble

_log = structlog.get_logger(__name__)

_CACHE_SECONDS = 5.0
_MAX_CACHE = 1000
_CODE_TRIES = 4  # a fresh code may take a second to become valid
_CODE_PAUSE = 0.5
# How long the mark on a grant's row holds if the process that set it dies.
_REFRESH_SECONDS = 30.0
# The part of that time in which 1upHealth must answer, so that two never refresh at once.
_ASKING_PART = 0.8
# New tokens are tried to be kept for so many times the mark's time, with pauses that double: the
# mark ends meanwhile, but nothing else can save the grant.
_KEEPING_PART = 2.0
_FIRST_KEEPING_PAUSE = 0.2
_LONGEST_KEEPING_PAUSE = 2.0
# A token that is refused so soon after another's refusal led to it: a third would not help.
_FRESH_SECONDS = 60.0
# Within this time another process usually has what it asks for. The pauses between looks double.
_WAIT_SECONDS = 3.0
_FIRST_PAUSE = 0.05
# User management has room again for one call after the other: who waits for it comes back within
# this part of its window.
_SPREAD_PART = 0.05


class NeedsAuthorization(UpliftError):
    """The user's grant is dead: only the person can give a new one."""


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


class TokenAccess:
    """Hands out access tokens. One asks 1upHealth for a user at a time, in this process by a
    lock, across processes by a mark on the grant's row.
    """

    def __init__(
        self,
        database: Database,
        tokens: TokenEndpoint,
        settings: Settings,
        *,
        refresh_seconds: float = _REFRESH_SECONDS,
    ) -> None:
        self._database = database
        self._tokens = tokens
        self._refresh_seconds = refresh_seconds
        self._margin = settings.token_margin_seconds
        self._parked_seconds = settings.parked_seconds
        self._spread = settings.oneup_quota_seconds * _SPREAD_PART
        self._flights = SingleFlight()
        self._asking: set[asyncio.Task[AccessToken]] = set()
        self._cache: dict[UUID, tuple[AccessToken, float]] = {}  # good until
        self._replaced_at: dict[UUID, float] = {}  # when a refused token last got a successor

    async def close(self) -> None:
        """Wait for the refreshes that are under way, as long as their marks hold at most.

        Their old refresh tokens may be dead already. Call it before what they use is closed.
        """
        if self._asking:
            await asyncio.wait(self._asking, timeout=self._refresh_seconds)

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
        """A token of the user that was not refused yet.

        `refused` is the grant's version that 1upHealth answered 401 to. Raises
        NeedsAuthorization if the grant is dead (all that the user has queued is parked then), and
        TokenUnavailable if 1upHealth or another process is not done with it, or if 1upHealth
        refuses fresh tokens too.
        """
        came_at = time.monotonic()
        turn = self._flights.of(person.user_id)
        async with turn.lock:
            known = self._cache.get(person.user_id)
            if refused is None and known is not None and time.monotonic() < known[1]:
                return known[0]
            self._cache.pop(person.user_id, None)
            grant = await self._grant(person)
            token = AccessToken(grant.tokens.access_token, grant.version)
            ends_at = time.monotonic() + grant.tokens.expires_in
            was_refused = refused is not None and grant.version <= refused
            good_for = grant.tokens.expires_in - self._margin_of(grant)
            if not was_refused and good_for > 0:
                self._keep(person.user_id, token, good_for)
                return token
            unexpired = time.monotonic() < ends_at
            works = not was_refused and unexpired
            if was_refused and unexpired:
                self._check_not_fresh(person.user_id)
            try:
                renewed = await self._renew_once(person, grant, turn, came_at, may_wait=not works)
            except TokenUnavailable:
                # Near its end, but not there yet: better to use it than to wait.
                if works and time.monotonic() < ends_at:
                    self._keep(person.user_id, token, ends_at - time.monotonic())
                    return token
                raise
            if was_refused:
                self._note_replaced(person.user_id)
            return renewed

    def _check_not_fresh(self, user_id: UUID) -> None:
        # Whatever its version: processes that take turns would refresh each other's tokens.
        left = self._replaced_at.get(user_id, -_FRESH_SECONDS) + _FRESH_SECONDS - time.monotonic()
        if left > 0:
            raise TokenUnavailable("fresh_token_refused", retry_after=left)

    def _note_replaced(self, user_id: UUID) -> None:
        if len(self._replaced_at) >= _MAX_CACHE:
            self._replaced_at.clear()
        self._replaced_at[user_id] = time.monotonic()

    async def _grant(self, person: Person) -> GrantRow:
        async with self._database.transaction() as connection:
            grant = await grants.get_grant(connection, person.user_id, person.key)
        if grant is None or not grant.active:
            raise NeedsAuthorization("The user has no working grant at 1upHealth.")
        return grant

    def _margin_of(self, grant: GrantRow) -> float:
        """A token with no more seconds left than this is to be renewed."""
        if _cannot_be_renewed(grant):
            return 0.0
        # Half its life at most: a short-lived token would be refreshed at each use.
        age = (datetime.now(UTC) - grant.updated_at).total_seconds()
        return min(self._margin, (grant.tokens.expires_in + max(age, 0.0)) / 2)

    def _keep(self, user_id: UUID, token: AccessToken, good_for: float) -> None:
        if len(self._cache) >= _MAX_CACHE:
            self._cache.clear()
        self._cache[user_id] = (token, time.monotonic() + min(good_for, _CACHE_SECONDS))

    async def _renew_once(
        self, person: Person, grant: GrantRow, turn: Flight, came_at: float, *, may_wait: bool
    ) -> AccessToken:
        turn.check(grant.version, came_at)
        try:
            renewed = await self._renew(person, grant, may_wait=may_wait)
        except TokenUnavailable as error:
            turn.failed(grant.version, error)
            if isinstance(error, TokenLimitReached):
                self._flights.remember(person.user_id, turn)
            raise
        self._flights.forget(person.user_id)
        return renewed

    async def _renew(self, person: Person, grant: GrantRow, *, may_wait: bool) -> AccessToken:
        async with self._database.transaction() as connection:
            mine = await grants.start_refresh(
                connection, person.user_id, grant.version, self._refresh_seconds
            )
        if not mine:
            return await self._from_another(person, grant, may_wait=may_wait)
        # A caller may be cancelled when the old refresh token is dead at 1upHealth already, and
        # the new one not kept here yet: the person would have to consent again.
        asking = asyncio.create_task(self._ask_and_keep(person, grant))
        self._asking.add(asking)
        asking.add_done_callback(self._asked)
        return await asyncio.shield(asking)

    async def _from_another(
        self, person: Person, grant: GrantRow, *, may_wait: bool
    ) -> AccessToken:
        """The token that another process asks for at the moment, if it has it soon."""
        until = time.monotonic() + (_WAIT_SECONDS if may_wait else 0.0)
        pause = _FIRST_PAUSE
        while time.monotonic() < until:
            await asyncio.sleep(pause)
            pause *= 2
            newer = await self._grant(person)
            if newer.version != grant.version:
                return AccessToken(newer.tokens.access_token, newer.version)
            if not newer.refreshing:
                break  # it got none: asking once more at once would hardly help
        raise TokenPending("another_is_refreshing", retry_after=1.0)

    def _asked(self, asking: asyncio.Task[AccessToken]) -> None:
        self._asking.discard(asking)
        if not asking.cancelled():
            asking.exception()  # whoever still waits gets it raised; asyncio need not warn

    async def _ask_and_keep(self, person: Person, grant: GrantRow) -> AccessToken:
        try:
            tokens = await self._ask(person, grant)
        except TokenError as error:
            if error.trouble is Trouble.REFUSED:
                if not await self._end(person.user_id, grant):
                    raise TokenPending("the_grant_was_replaced", retry_after=0.0) from None
                raise NeedsAuthorization("1upHealth no longer accepts the user's grant.") from None
            async with self._database.transaction() as connection:
                await grants.end_refresh(connection, person.user_id, grant.version)
            raise self._unavailable(error) from None
        version = await self._keep_grant(person, grant, tokens)
        if version is None:
            raise TokenPending("the_grant_was_replaced", retry_after=0.0)
        return AccessToken(tokens.access_token, version)

    async def _keep_grant(self, person: Person, grant: GrantRow, tokens: TokenPair) -> int | None:
        """The new version; None if the grant was replaced meanwhile.

        1upHealth has ended the old tokens: a database that is away for a moment must not cost the
        new ones. One that committed and could not say so is not overwritten: the version differs.
        """
        until = time.monotonic() + _KEEPING_PART * self._refresh_seconds
        pause = _FIRST_KEEPING_PAUSE
        while True:
            try:
                return await self._put_grant(person, grant, tokens)
            except SQLAlchemyError as error:
                told = {"user": str(person.user_id), "error": type(error).__name__}
                if time.monotonic() + pause >= until:
                    _log.error("new_tokens_lost", **told)
                    raise
                _log.warning("new_tokens_not_kept_yet", **told)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_KEEPING_PAUSE)

    async def _put_grant(self, person: Person, grant: GrantRow, tokens: TokenPair) -> int | None:
        async with self._database.transaction() as connection:
            version = await grants.put_grant(
                connection,
                person.user_id,
                person.key,
                tokens,
                grant.origin,
                instead_of=grant.version,
            )
            if version is not None:
                await parking.end_waits_for_token(connection, person.user_id)
        return version

    def _unavailable(self, error: TokenError) -> TokenUnavailable:
        if error.trouble is not Trouble.BUSY or error.retry_after is None:
            return TokenUnavailable(error.code, retry_after=error.retry_after)
        shared = error.code == QUOTA_SPENT
        spread = self._spread if shared else max(1.0, error.retry_after / 2)
        return TokenLimitReached(error.code, retry_after=error.retry_after, spread=spread)

    async def _ask(self, person: Person, grant: GrantRow) -> TokenPair:
        try:
            async with asyncio.timeout(_ASKING_PART * self._refresh_seconds):
                return await self._refresh_or_start_anew(person, grant)
        except TimeoutError:
            raise TokenError(Trouble.UNAVAILABLE, "no_answer") from None

    async def _refresh_or_start_anew(self, person: Person, grant: GrantRow) -> TokenPair:
        if _cannot_be_renewed(grant):
            raise TokenError(Trouble.REFUSED, "no_refresh_token")
        if grant.tokens.refresh_token is not None:
            try:
                refreshed = await self._tokens.refresh(grant.tokens.refresh_token)
                tokens_renewed.labels("refresh").inc()
                return refreshed
            except TokenError as error:
                # Only a refusal leads on: auth codes are limited to 300 an hour for everybody.
                if error.trouble is not Trouble.REFUSED or grant.origin == "backend":
                    raise
        code = await self._tokens.auth_code(person.app_user_id)
        tokens = await exchange(self._tokens, code.code)
        tokens_renewed.labels("code").inc()
        return tokens

    async def _end(self, user_id: UUID, grant: GrantRow) -> bool:
        """End the grant and park what waits, if it is still the version that was tried."""
        async with self._database.transaction() as connection:
            ended = await grants.end_grant(connection, user_id, grant.version)
            parked = (
                await parking.park_waiting(connection, user_id, clock=self._parked_seconds)
                if ended
                else set()
            )
        if ended:
            grants_ended.labels(grant.origin).inc()
            uploads_parked.inc(len(parked))
        return ended


def _cannot_be_renewed(grant: GrantRow) -> bool:
    # An auth code is no way out: user management may not know a user whom the backend brought.
    return grant.origin == "backend" and grant.tokens.refresh_token is None


async def exchange(tokens: TokenEndpoint, code: str) -> TokenPair:
    """Trade a fresh code for tokens, giving it a moment to become valid. Raises TokenError."""
    for left in reversed(range(_CODE_TRIES)):
        try:
            return await tokens.exchange_code(code)
        except TokenError as error:
            if error.trouble is not Trouble.REFUSED or not left:
                raise
        await asyncio.sleep(_CODE_PAUSE)
    raise AssertionError("unreachable")  # pragma: no cover
