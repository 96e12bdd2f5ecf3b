"""How many user-management calls the application has left at 1upHealth this hour.

1upHealth allows 300 an hour for the whole application (doc). All processes count in one sliding
window in Redis. Some of it is kept for people who are being signed up: a backlog of old users
must not keep new ones out.

What is lost with Redis is a count, never an upload: 1upHealth's own 429 closes the window then.
"""

import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import redis.asyncio
import structlog
from redis.exceptions import RedisError

from uplift.metrics import quota_calls
from uplift.settings import Settings

_log = structlog.get_logger(__name__)

_CALLS = "uplift:oneup:quota-calls"
_CLOSED = "uplift:oneup:quota-calls-suspended"

# All by Redis' own clock, so that processes on machines whose clocks differ share one window.
_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# Look, forget what has left the window, and count oneself in, in one step. Returns 0, or the
# milliseconds until the window has room. Milliseconds are cut off: a call is over one later.
_SPEND = f"""{_NOW}
local closed = redis.call('PTTL', KEYS[2])
if closed > 0 then return closed end
local window, max_rate = tonumber(ARGV[1]), tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. now - window)
local spent = redis.call('ZCARD', KEYS[1])
if spent >= max_rate then
    local first = redis.call('ZRANGE', KEYS[1], spent - max_rate, spent - max_rate, 'WITHSCORES')
    return math.max(1, first[2] + window + 1 - now)
end
redis.call('ZADD', KEYS[1], now, ARGV[3])
redis.call('PEXPIRE', KEYS[1], window)
return 0
"""

# 1upHealth counted the call at some time before its answer came. Counted from then, ours never
# leaves the window before theirs does.
_ENDED = f"""{_NOW}
redis.call('ZADD', KEYS[1], 'XX', now, ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
"""

# How many calls the window has, as nobody spends one; all of them while it is closed.
_COUNT = f"""{_NOW}
if redis.call('PTTL', KEYS[2]) > 0 then return tonumber(ARGV[2]) end
return redis.call('ZCOUNT', KEYS[1], now - tonumber(ARGV[1]), '+inf')
"""

# Without Redis nobody can count for all: each process takes a small share of its own, so that a
# dozen processes stay within the limit together.
_ALONE_SHARE = 0.05
# How long the window stays closed after a 429 that does not say: another application may share
# the client id, or the count was lost, so nobody knows when there is room.
_CLOSED_PART = 0.05


class QuotaSpent(Exception):
    """No user-management call may be made now; `retry_after` says in how many seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("1upHealth's hourly user-management calls are spent")
        self.retry_after = retry_after


class Quota:
    """Counts user-management calls for all processes."""

    def __init__(self, redis_client: "redis.asyncio.Redis", settings: Settings) -> None:
        self._redis = redis_client
        self._spend_script = redis_client.register_script(_SPEND)
        self._ended_script = redis_client.register_script(_ENDED)
        self._count_script = redis_client.register_script(_COUNT)
        self._limit = settings.oneup_quota_calls
        self._reserve = settings.oneup_quota_reserve
        self._period = settings.oneup_quota_seconds
        self._alone: deque[float] = deque()
        # When this process may ask again, by whether it is for a new user. Room never comes
        # earlier than was said, so thousands who wait need not each ask Redis.
        self._spent_until = {True: 0.0, False: 0.0}

    @asynccontextmanager
    async def call(self, *, new_user: bool) -> AsyncIterator[None]:
        """Around one user-management call. Only calls for new users may use the reserve.

        Raises QuotaSpent, and the call is not to be made. Redis that is away raises nothing.
        """
        wait = self._spent_until[new_user] - time.monotonic()
        if wait <= 0:
            mark = uuid4().hex
            wait = await self._spend(mark, self._limit if new_user else self._limit - self._reserve)
        if wait > 0:
            self._spent_until[new_user] = time.monotonic() + wait
            quota_calls.labels("withheld").inc()
            raise QuotaSpent(wait)
        quota_calls.labels("made").inc()
        try:
            yield
        finally:
            await self._ended(mark)

    async def used_up(self, retry_after: float | None) -> float:
        """1upHealth says that the limit is reached: nobody calls for the time it asks for.

        Returns that time, in seconds: a part of the window where 1upHealth names none.
        """
        quota_calls.labels("refused").inc()
        seconds = self._period * _CLOSED_PART if retry_after is None else retry_after
        until = time.monotonic() + seconds
        self._spent_until = {who: max(until, at) for who, at in self._spent_until.items()}
        try:
            await self._redis.set(_CLOSED, 1, px=max(1, round(seconds * 1000)))
        except (RedisError, OSError) as error:
            _log.warning("quota_counted_locally", error=type(error).__name__)
        return seconds

    async def left(self) -> tuple[int, int] | None:
        """How many calls may be made now, in all and for users who are there already.

        None if Redis does not answer.
        """
        try:
            spent = await self._count_script(
                keys=[_CALLS, _CLOSED], args=[round(self._period * 1000), self._limit]
            )
        except (RedisError, OSError):
            return None
        left = max(0, self._limit - int(spent))
        return left, max(0, left - self._reserve)

    async def _spend(self, mark: str, limit: int) -> float:
        """Count a call in. Seconds until there is room for it: 0 if it is counted."""
        try:
            wait = await self._spend_script(
                keys=[_CALLS, _CLOSED], args=[round(self._period * 1000), limit, mark]
            )
        except (RedisError, OSError) as error:
            _log.warning("quota_counted_locally", error=type(error).__name__)
            return self._spend_alone(limit)
        return float(wait) / 1000

    async def _ended(self, mark: str) -> None:
        try:
            await self._ended_script(keys=[_CALLS], args=[round(self._period * 1000), mark])
        except (RedisError, OSError) as error:
            _log.warning("quota_counted_locally", error=type(error).__name__)

    def _spend_alone(self, limit: int) -> float:
        now = time.monotonic()
        while self._alone and self._alone[0] <= now - self._period:
            self._alone.popleft()
        share = max(1, int(limit * _ALONE_SHARE))
        if len(self._alone) >= share:
            return self._alone[-share] + self._period - now
        self._alone.append(now)
        return 0.0
