"""The deployment's own token at one destination: one for all processes.

Redis has it, sealed under the master key in use, until it ends. One process fetches it and the
others wait for that; without Redis each fetches its own. It is fetched again before it ends.
"""

import asyncio
import base64
import hashlib
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import orjson
import redis.asyncio
import structlog
from redis.exceptions import RedisError

from uplift.errors import SealError, TokenUnavailable
from uplift.ledger.token_pair import TokenPair
from uplift.sealing import KeyRing, UserKey, WrappedKey
from uplift.tokens.person import AccessToken

_log = structlog.get_logger(__name__)

# How long the mark of a fetch lasts if the process that set it dies, and how long others wait.
_FETCH_SECONDS = 30.0
_WAIT_SECONDS = 10.0
_ASK_AGAIN_SECONDS = 0.2
# After a failure nothing is asked for so long: hundreds of uploads would each fail once more.
_PAUSE_SECONDS = 5.0
# A token is fetched again when it is good for less than this, or less than half its life.
_MARGIN_SECONDS = 300.0

Ask = Callable[[float], Awaitable[TokenPair]]
"""Asks for a new token at a time (seconds since 1970). Raises LoginFailed, TokenUnavailable."""


class SharedToken:
    """Gives the token that `ask` fetches. `now` is the time in seconds since 1970.

    `of` says whose token it is, and for what: with another client or scope, the token of before is
    not found.
    """

    def __init__(
        self,
        of: tuple[str, ...],
        ask: Ask,
        redis_client: "redis.asyncio.Redis",
        key_ring: KeyRing,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._ask = ask
        self._redis = redis_client
        self._key_ring = key_ring
        self._now = now
        self._key = f"uplift:login:{hashlib.sha256(orjson.dumps(of)).hexdigest()[:32]}"
        self._lock = asyncio.Lock()
        self._token: AccessToken | None = None
        self._renew_at = 0.0
        self._ends_at = 0.0
        self._failed: TokenUnavailable | None = None
        self._failed_at = float("-inf")

    async def token(self, *, refused: AccessToken | None = None) -> AccessToken:
        """A token that was not refused yet.

        Raises LoginFailed if the endpoint does not accept the client, and TokenUnavailable if it
        does not answer.
        """
        if self._token is not None and self._token != refused and self._now() < self._renew_at:
            return self._token
        async with self._lock:
            if self._token is not None and self._token != refused and self._now() < self._renew_at:
                return self._token  # another caller renewed it meanwhile
            if self._token == refused:
                self._token = None
            try:
                return await self._renew(refused)
            except TokenUnavailable:
                if self._token is not None and self._now() < self._ends_at:
                    return self._token  # near its end, but it still works
                raise

    async def close(self) -> None:
        """Nothing outlives a call."""

    async def _renew(self, refused: AccessToken | None) -> AccessToken:
        until = time.monotonic() + _WAIT_SECONDS
        while True:
            shared = await self._shared()
            if shared is not None and shared != refused and self._now() < self._renew_at:
                self._token = shared
                return shared
            # A mark that lasts is a dead process's, or somebody else's: it stops nobody for long.
            if await self._may_fetch() or time.monotonic() >= until:
                try:
                    return await self._fetch()
                finally:
                    await self._release()
            if self._token is not None:  # it still works
                raise TokenUnavailable("another_process_fetches", retry_after=_ASK_AGAIN_SECONDS)
            await asyncio.sleep(_ASK_AGAIN_SECONDS)

    async def _fetch(self) -> AccessToken:
        if self._failed is not None and time.monotonic() - self._failed_at < _PAUSE_SECONDS:
            raise self._failed
        asked_at = self._now()
        try:
            tokens = await self._ask(asked_at)
        except TokenUnavailable as error:
            self._failed, self._failed_at = error, time.monotonic()
            _log.warning("login_failed", code=error.code)
            raise
        self._failed = None
        self._token = AccessToken(tokens.access_token, 0)
        self._set_times(asked_at, tokens.expires_in)
        await self._share(self._token, asked_at, tokens.expires_in)
        return self._token

    def _set_times(self, from_: float, seconds: float) -> None:
        self._ends_at = from_ + seconds
        self._renew_at = self._ends_at - min(_MARGIN_SECONDS, seconds / 2)

    async def _shared(self) -> AccessToken | None:
        try:
            found = await self._redis.get(self._key)
            if found is None:
                return None
            parts = orjson.loads(found)
            wrapped = WrappedKey(parts["master"], base64.b64decode(parts["key"]))
            key = self._key_ring.unwrap(wrapped, self._key.encode())
            text = key.open(base64.b64decode(parts["sealed"]), self._key.encode())
            value, from_, seconds = orjson.loads(text)
        except (RedisError, OSError, SealError, ValueError, KeyError, TypeError):
            return None  # away, or of a key ring that is no more
        self._set_times(from_, seconds)
        return AccessToken(value, 0)

    async def _share(self, token: AccessToken, from_: float, seconds: float) -> None:
        key = UserKey.generate()
        context = self._key.encode()
        wrapped = self._key_ring.wrap(key, context)
        sealed = key.seal(orjson.dumps([token.value, from_, seconds]), context)
        value = orjson.dumps(
            {
                "master": wrapped.master_id,
                "key": base64.b64encode(wrapped.sealed).decode(),
                "sealed": base64.b64encode(sealed).decode(),
            }
        )
        try:
            await self._redis.set(self._key, value, px=max(1, int(seconds * 1000)))
        except (RedisError, OSError) as error:
            _log.warning("login_not_shared", error=type(error).__name__)

    async def _may_fetch(self) -> bool:
        try:
            mark, longest = f"{self._key}:fetching", int(_FETCH_SECONDS * 1000)
            if await self._redis.set(mark, 1, nx=True, px=longest):
                return True
            # Redis' clock was ahead as it was set, and its process ended.
            if await self._redis.pttl(mark) > longest:
                await self._redis.delete(mark)
            return False
        except (RedisError, OSError):
            return True

    async def _release(self) -> None:
        with suppress(RedisError, OSError):  # the mark ends by itself
            await self._redis.delete(f"{self._key}:fetching")
