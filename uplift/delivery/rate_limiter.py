"""May I send now? One controller for 1upHealth, shared by all worker processes through Redis.

Every claim asks first, and every answer is told. A 429 halves what all processes may begin, and
its Retry-After closes it; when many different uploads fail and none succeeds, only a probe goes
out now and then; success opens it again. `uplift.delivery.rate_limiter_rule` has the rule.

What is lost with Redis is a speed, never an upload: meanwhile each process keeps to a low limit
of its own.
"""

import asyncio
import math
import time
from contextvars import Context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from uuid import UUID

import redis.asyncio
import structlog
from redis.exceptions import RedisError

from uplift.destinations.responses import Response, ResponseKind
from uplift.metrics import rate_limiter_limit, rate_limiter_probing, rate_limiter_slowed
from uplift.settings import Settings

_log = structlog.get_logger(__name__)

_SCRIPT = (Path(__file__).parent / "rate_limiter.lua").read_text()
_KEYS = ["uplift:rate_limiter", "uplift:rate_limiter:failing"]

# Answers are told, and permits taken ahead, for so long: many claims share one call of Redis.
_SHARED_SECONDS = 0.1
# How long it is believed that nothing may be sent: another process may have opened it again.
_BELIEVED_SECONDS = 0.5
# How long Redis is left alone after it did not answer.
_AWAY_SECONDS = 5.0

_GOOD = frozenset(
    {ResponseKind.STORED, ResponseKind.FOUND, ResponseKind.ABSENT, ResponseKind.REFUSED}
)
# 403 and the like blame the deployment; UNAUTHORIZED is only told after a refresh that worked.
_BAD = frozenset(
    {ResponseKind.UNKNOWN, ResponseKind.NOT_SENT, ResponseKind.HOLD, ResponseKind.UNAUTHORIZED}
)
_TOO_MANY_REQUESTS = 429

Phase = Literal["full", "throttled", "probing", "suspended"]


@dataclass(frozen=True, slots=True)
class RateLimiterState:
    """How fast may be sent. Times in seconds.

    `limit` is in attempts a second, of all processes together; `wait` is the time until the next
    may begin; `stalled_seconds` how long nothing was sent that waiting uploads did not get back yet.
    """

    phase: Phase
    limit: float
    wait: float
    stalled_seconds: float


@dataclass(slots=True)
class _Report:
    """What was answered since the last report; times are when it was asked, on time.monotonic."""

    good: int = 0
    good_asked: float = 0.0
    busy_asked: float = 0.0
    retry_after: float = 0.0
    failed: dict[UUID, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.good or self.busy_asked or self.failed)


class _LocalLimit:
    """A fixed limit for one process, while nobody can count for all. It is never raised."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._next = 0.0  # when the next attempt may begin, on time.monotonic
        self._most_ahead = 1.0  # second

    def slow(self, seconds: float) -> None:
        self._next = max(self._next, time.monotonic() + seconds)

    def acquire(self, limit: int) -> int:
        now = time.monotonic()
        if now < self._next:
            return 0
        # What was not used for a second may go at once.
        start = max(self._next, now - self._most_ahead)
        granted = max(1, min(limit, int((now - start) * self._limit)))
        self._next = start + granted / self._limit
        return granted

    @property
    def wait(self) -> float:
        return max(0.0, self._next - time.monotonic())


class RateLimiter:
    """Asks for permits, and tells what came of them."""

    def __init__(self, redis_client: "redis.asyncio.Redis", settings: Settings) -> None:
        self._rule = redis_client.register_script(_SCRIPT)
        self._limit = settings.max_attempts_per_second
        self._probe_seconds = settings.probe_seconds
        self._local = _LocalLimit(settings.local_attempts_per_second)
        self._state = RateLimiterState("full", self._limit, 0.0, 0.0)
        self._known_at = -math.inf  # all times on time.monotonic
        self._away_until = -math.inf
        self._redis_clock = 0.0  # Redis' milliseconds when time.monotonic was 0
        self._stock = 0
        self._stock_until = 0.0
        self._drawn = 0  # permits used since they were last asked for
        self._drawn_at = 0.0
        self._report = _Report()
        self._soon = asyncio.Event()
        self._reporting: asyncio.Task[None] | None = None

    async def acquire(self, limit: int) -> int:
        """Permits for at most so many attempts that begin now: 0 to `most`.

        Whoever gets none asks again after `wait` seconds. Raises nothing: Redis that is away
        means a low limit for this process.
        """
        now = time.monotonic()
        if limit <= self._stock and now < self._stock_until:
            self._stock -= limit
            self._drawn += limit
            return limit
        if self._is_local(now):
            return self._local.acquire(limit)
        if self.wait and now < self._known_at + _BELIEVED_SECONDS:
            return 0
        granted = await self._exchange(limit + self._ahead(now))
        if granted is None:
            return self._local.acquire(limit)
        self._drawn, self._drawn_at = min(limit, granted), now
        self._stock = granted - self._drawn
        self._stock_until = time.monotonic() + _SHARED_SECONDS
        return self._drawn

    def release(self, permits: int) -> None:
        """These permits were not used."""
        self._stock += permits

    @property
    def wait(self) -> float:
        """Seconds until asking again may bring a permit, as far as this process knows."""
        now = time.monotonic()
        if self._is_local(now):
            return self._local.wait
        return max(0.0, self._known_at + self._state.wait - now)

    @property
    def is_stalled(self) -> bool:
        """Whether nothing but probes may be sent, as far as this process knows."""
        alone = self._is_local(time.monotonic())
        return not alone and self._state.phase in ("probing", "suspended")

    @property
    def is_scarce(self) -> bool:
        """Whether fewer may be sent than could be, as far as this process knows."""
        return self._is_local(time.monotonic()) or self._state.phase != "full"

    @property
    def stalled_seconds(self) -> float:
        """See `RateLimiterState`; as of the last permit."""
        return self._state.stalled_seconds

    def answered(self, upload_id: UUID, response: Response, asked_at: float) -> None:
        """1upHealth answered about this upload, or did not; asked at, on time.monotonic."""
        report = self._report
        if response.status_code == _TOO_MANY_REQUESTS or response.kind is ResponseKind.BUSY:
            report.busy_asked = max(report.busy_asked, asked_at)
            report.retry_after = max(report.retry_after, response.retry_after or 0.0)
            self._local.slow(max(1.0, report.retry_after))
        elif response.kind in _GOOD:
            report.good += 1
            report.good_asked = max(report.good_asked, asked_at)
        elif response.kind in _BAD:
            report.failed[upload_id] = asked_at
        else:
            return
        if report.busy_asked or report.failed or self._state.phase != "full":
            # Others must know at once, and what was taken ahead no longer holds.
            self._stock = 0
            self._soon.set()
        if self._reporting is None or self._reporting.done():
            self._reporting = asyncio.create_task(
                self._tell_soon(),
                name="rate_limiter",
                context=Context(),  # its log lines are of no single upload
            )

    async def state(self) -> RateLimiterState | None:
        """How fast may be sent now; None if Redis does not answer."""
        return None if await self._exchange(0) is None else self._state

    async def credit(self, seconds: float) -> None:
        """Waiting uploads got so much back of the time that sending stood still."""
        await self._exchange(0, credited=seconds)

    async def close(self) -> None:
        """Tell what is not told yet."""
        self._soon.set()
        if self._reporting is not None:
            await self._reporting

    def _is_local(self, now: float) -> bool:
        return now < self._away_until

    def _ahead(self, now: float) -> int:
        """As many as went in the last tenth of a second, while nothing has to be slowed."""
        since = now - self._drawn_at
        if self._state.phase != "full" or since > 1.0:
            return 0
        return int(self._drawn * _SHARED_SECONDS / max(since, _SHARED_SECONDS))

    async def _tell_soon(self) -> None:
        while self._report:
            try:
                async with asyncio.timeout(_SHARED_SECONDS):
                    await self._soon.wait()
            except TimeoutError:
                pass
            self._soon.clear()
            if self._report:  # else a claim has told it meanwhile
                await self._exchange(0)

    async def _exchange(self, wanted: int, *, credited: float = 0.0) -> int | None:
        """Tell what was answered and ask for permits; how many, or None if Redis is away."""
        if self._is_local(time.monotonic()):
            self._report = _Report()
            return None
        report, self._report = self._report, _Report()
        args: list[str | int] = [
            repr(self._limit),
            self._milliseconds(self._probe_seconds),
            wanted,
            report.good,
            self._asked(report.good_asked),
            self._asked(report.busy_asked),
            self._milliseconds(report.retry_after),
            self._milliseconds(credited),
        ]
        for upload_id, asked_at in report.failed.items():
            args += [str(upload_id), self._asked(asked_at)]
        try:
            granted, wait, clock, limit, phase, stood, event = await self._rule(_KEYS, args)
        except (RedisError, OSError) as error:
            _log.warning("rate_limiter_is_local", error=type(error).__name__)
            self._away_until = time.monotonic() + _AWAY_SECONDS
            return None
        self._known_at = time.monotonic()
        self._redis_clock = clock - self._known_at * 1000
        self._state = RateLimiterState(phase.decode(), float(limit), wait / 1000, stood / 1000)
        if self._state.phase != "full":
            self._stock = 0
        self._show(event.decode())
        return int(granted)

    @staticmethod
    def _milliseconds(seconds: float) -> int:
        return math.ceil(seconds * 1000)

    def _asked(self, at: float) -> int:
        """A time on time.monotonic by Redis' clock; 0 stays 0."""
        return round(at * 1000 + self._redis_clock) if at else 0

    def _show(self, event: str) -> None:
        rate_limiter_limit.set(self._state.limit)
        rate_limiter_probing.set(self._state.phase in ("full", "throttled"))
        match event:
            case "throttled" | "probing_busy":
                rate_limiter_slowed.labels("busy").inc()
                _log.warning("rate_limiter_changed", state=self._state.phase, why="busy")
            case "probing_outage":
                rate_limiter_slowed.labels("outage").inc()
                _log.warning("rate_limiter_changed", state=self._state.phase, why="outage")
            case "resumed" | "full":
                _log.info("rate_limiter_changed", state=self._state.phase, why=event)
