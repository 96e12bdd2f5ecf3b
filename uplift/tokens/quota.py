"""Counts the user-management calls that the application may make at 1upHealth.

1upHealth's documentation allows 300 an hour for the whole application. All processes count in one
sliding window in Redis. A part is reserved for people who sign up: a backlog of known users must
not keep new ones out.

If Redis loses its data, a count is lost, but no upload: 1upHealth responds 429, and then all
processes stop calling for a time.
"""

import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import redis.asyncio
import structlog
from redis.exceptions import RedisError

from uplift.errors import QuotaSpent
from uplift.metrics import quota_calls
from uplift.settings import Settings

_log = structlog.get_logger(__name__)

_CALLS = "uplift:oneup:quota-calls"
_SUSPENDED = "uplift:oneup:quota-calls-suspended"

_HERE = Path(__file__).parent
_CHARGE = (_HERE / "quota_charge.lua").read_text()
_END = (_HERE / "quota_end.lua").read_text()
_COUNT = (_HERE / "quota_count.lua").read_text()

# Without Redis nobody can count for all processes. So each takes this share: together, a dozen
# processes stay within the limit.
_LOCAL_SHARE = 0.05
# Nothing suspends the calls for longer: a date in a Retry-After is judged by this machine's clock.
_MAX_SUSPENDED_SECONDS = 3600.0
# The count in Redis never holds more calls than the quota, but the quota can have been reduced.
_MAX_COUNTED = 10
# The part of the period for which nobody calls after a 429 that names no time. Another application
# may use the same client id, or the count was lost, so nobody knows when calls are free again.
_SUSPENDED_PART = 0.05


class Quota:
    """Counts user-management calls for all processes."""

    def __init__(self, redis_client: "redis.asyncio.Redis", settings: Settings) -> None:
        self._redis = redis_client
        self._charge_script = redis_client.register_script(_CHARGE)
        self._end_script = redis_client.register_script(_END)
        self._count_script = redis_client.register_script(_COUNT)
        self._limit = settings.oneup_quota_calls
        self._reserve = settings.oneup_quota_reserve
        self._period = settings.oneup_quota_seconds
        self._local: deque[float] = deque()  # when this process called without Redis
        # Until when this process need not ask Redis, by whether it is for a new user: no call
        # becomes free earlier than Redis said, so thousands who wait do not each ask.
        self._spent_until = {True: 0.0, False: 0.0}

    @asynccontextmanager
    async def call(self, *, new_user: bool) -> AsyncIterator[None]:
        """Wrap one user-management call in this. Only calls for new users may use the reserve.

        Raises QuotaSpent if the call must not be made. Without Redis, this process counts alone.
        """
        wait = self._spent_until[new_user] - time.monotonic()
        if wait <= 0:
            call_id = uuid4().hex
            limit = self._limit if new_user else self._limit - self._reserve
            wait = await self._charge(call_id, limit)
        if wait > 0:
            self._spent_until[new_user] = time.monotonic() + wait
            quota_calls.labels("withheld").inc()
            raise QuotaSpent(wait)
        quota_calls.labels("made").inc()
        try:
            yield
        finally:
            await self._end(call_id)

    async def used_up(self, retry_after: float | None) -> float:
        """Note that 1upHealth responded 429: no process calls for the time that it asks for.

        Returns that time in seconds, an hour at most. Where 1upHealth names none, it is a part of
        the period.
        """
        quota_calls.labels("refused").inc()
        seconds = min(
            self._period * _SUSPENDED_PART if retry_after is None else retry_after,
            _MAX_SUSPENDED_SECONDS,
        )
        until = time.monotonic() + seconds
        self._spent_until = {who: max(until, at) for who, at in self._spent_until.items()}
        try:
            await self._redis.set(_SUSPENDED, 1, px=max(1, round(seconds * 1000)))
        except (RedisError, OSError) as error:
            _log.warning("quota_counted_locally", error=type(error).__name__)
        return seconds

    async def left(self) -> tuple[int, int] | None:
        """How many calls may be made now: for new users, and for known users.

        None if Redis does not respond.
        """
        try:
            spent = await self._count_script(
                keys=[_CALLS, _SUSPENDED], args=[round(self._period * 1000), self._limit]
            )
        except (RedisError, OSError):
            return None
        left = max(0, self._limit - int(spent))
        return left, max(0, left - self._reserve)

    async def _charge(self, call_id: str, limit: int) -> float:
        """Count a call. Returns 0 if it is counted, or else the seconds until one is free."""
        try:
            wait = await self._charge_script(
                keys=[_CALLS, _SUSPENDED],
                args=[
                    round(self._period * 1000),
                    limit,
                    call_id,
                    round(_MAX_SUSPENDED_SECONDS * 1000),
                    _MAX_COUNTED * self._limit,
                ],
            )
        except (RedisError, OSError) as error:
            _log.warning("quota_counted_locally", error=type(error).__name__)
            return self._charge_locally(limit)
        return float(wait) / 1000

    async def _end(self, call_id: str) -> None:
        try:
            await self._end_script(keys=[_CALLS], args=[round(self._period * 1000), call_id])
        except (RedisError, OSError) as error:
            _log.warning("quota_counted_locally", error=type(error).__name__)

    def _charge_locally(self, limit: int) -> float:
        now = time.monotonic()
        while self._local and self._local[0] <= now - self._period:
            self._local.popleft()
        share = max(1, int(limit * _LOCAL_SHARE))
        if len(self._local) >= share:
            return self._local[-share] + self._period - now
        self._local.append(now)
        return 0.0
