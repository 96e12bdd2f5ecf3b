"""The rate limiter: how many attempts all worker processes together may begin, through Redis.

A process acquires permits before each claim, and reports every response. A 429 halves the limit of
all processes, and its Retry-After suspends sending. When many different uploads fail and none
succeeds, only a probe is sent now and then. A success raises the limit again. `rate_limiter.lua`
has the rule.

If Redis is lost, only the limit is lost, never an upload: meanwhile each process has a low limit of
its own.

What speaks of one FHIR type alone is no news about the destination: see `type_probes`.
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

from uplift.delivery.limiter_key import ONEUP, LimiterKey
from uplift.delivery.local_limit import LocalLimit
from uplift.delivery.type_probes import TypeProbes
from uplift.destinations.responses import Response, ResponseKind
from uplift.ledger.set_aside import FhirType
from uplift.metrics import (
    rate_limiter_limit,
    rate_limiter_probing,
    rate_limiter_slowed,
    rate_limiter_types_probing,
)
from uplift.settings import Settings

_log = structlog.get_logger(__name__)

_SCRIPT = (Path(__file__).parent / "rate_limiter.lua").read_text()

# Responses are collected, and permits acquired ahead, for so long: many claims share one call of
# Redis.
_SHARED_SECONDS = 0.1
# How long this process believes that there are no permits: another may have raised the limit.
_BELIEVED_SECONDS = 0.5
# How long Redis is not asked after it did not answer.
_AWAY_SECONDS = 5.0

MAX_SUSPENDED_SECONDS = 3600.0
"""No Retry-After suspends the sending for longer: a date in it is judged by this machine's clock,
which may be wrong. `rate_limiter.lua` has the same limit."""

_GOOD = frozenset(
    {ResponseKind.STORED, ResponseKind.FOUND, ResponseKind.ABSENT, ResponseKind.REFUSED}
    | {ResponseKind.LOCKED, ResponseKind.CONFLICT, ResponseKind.BUNDLE_REFUSED}
    | {ResponseKind.DELETED}
)
# UNAUTHORIZED is only reported after a refresh that worked.
_BAD = frozenset({ResponseKind.UNKNOWN, ResponseKind.NOT_SENT, ResponseKind.UNAUTHORIZED})
_TOO_MANY_REQUESTS = 429

Phase = Literal["full", "throttled", "probing", "suspended"]
"""At the full limit, below it, only probes are sent, or nothing is because of a Retry-After."""

# In these phases nothing but a probe may be sent.
_STALLED = frozenset({"probing", "suspended"})


@dataclass(frozen=True, slots=True)
class RateLimiterState:
    """How fast all processes together may send. Times in seconds.

    `limit` is in attempts a second. `wait` is the time until the next attempt may begin.
    `stalled_seconds` is how long nothing was sent, less what waiting uploads were credited.
    """

    phase: Phase
    limit: float
    wait: float
    stalled_seconds: float


@dataclass(slots=True)
class _Report:
    """The responses since the last report. Times are those of the requests, on time.monotonic."""

    good: int = 0
    good_asked: float = 0.0
    busy_asked: float = 0.0
    retry_after: float = 0.0
    failed: dict[UUID, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.good or self.busy_asked or self.failed)


class RateLimiter:
    """Acquires permits for attempts at one destination, and reports the responses to them.

    `limit` is how many may begin in a second at most; None is what the settings say.
    """

    def __init__(
        self,
        redis_client: "redis.asyncio.Redis",
        settings: Settings,
        destination: str = ONEUP,
        *,
        limit: float | None = None,
    ) -> None:
        self._rule = redis_client.register_script(_SCRIPT)
        key = LimiterKey(destination)
        self._keys = [key.name(), key.name("failing")]
        self.types = TypeProbes(redis_client, settings, destination)
        self._destination = destination
        self._limit = limit or settings.max_attempts_per_second
        self._probe_seconds = settings.probe_seconds
        self._local = LocalLimit(settings.local_attempts_per_second)
        self._state = RateLimiterState("full", self._limit, 0.0, 0.0)
        _show_before_the_first_event(destination)
        self._known_at = -math.inf  # all times on time.monotonic
        self._away_until = -math.inf
        self._redis_clock = 0.0  # Redis' milliseconds when time.monotonic was 0
        self._stock = 0
        self._stock_until = 0.0
        self._drawn = 0  # permits used since the last call of Redis
        self._drawn_at = 0.0
        self._report = _Report()
        self._soon = asyncio.Event()
        self._reporting: asyncio.Task[None] | None = None

    async def acquire(self, limit: int) -> int:
        """Permits for attempts that begin now: 0 to `limit` of them.

        A caller that gets none asks again after `wait` seconds. Raises nothing: while Redis is away
        this process has a low limit of its own.
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
        """Seconds until there may be a permit, as far as this process knows."""
        now = time.monotonic()
        if self._is_local(now):
            return self._local.wait
        return max(0.0, self._known_at + self._state.wait - now)

    @property
    def is_stalled(self) -> bool:
        """Whether nothing but probes may be sent, as far as this process knows."""
        return not self._is_local(time.monotonic()) and self._state.phase in _STALLED

    @property
    def is_scarce(self) -> bool:
        """Whether there are fewer permits than at the full limit, as far as this process knows."""
        return self._is_local(time.monotonic()) or self._state.phase != "full"

    @property
    def stalled_seconds(self) -> float:
        """See `RateLimiterState`; as of the last permit."""
        return self._state.stalled_seconds

    def answered(
        self,
        response: Response,
        asked_at: float,
        *,
        fhir_type: FhirType | None,
        upload_id: UUID,
        user_id: UUID,
    ) -> None:
        """Report the response about this upload to a request of that time, on time.monotonic.

        Without a type it speaks of none: it is that of a whole Bundle.
        """
        if fhir_type is not None:
            self.types.answered(
                response, asked_at, fhir_type=fhir_type, upload_id=upload_id, user_id=user_id
            )
        report = self._report
        if response.status_code == _TOO_MANY_REQUESTS or response.kind is ResponseKind.BUSY:
            report.busy_asked = max(report.busy_asked, asked_at)
            asked_for = min(response.retry_after or 0.0, MAX_SUSPENDED_SECONDS)
            report.retry_after = max(report.retry_after, asked_for)
            self._local.slow(max(1.0, report.retry_after))
        elif response.kind in _GOOD or response.is_about_type:
            # What speaks of a type says at least that the destination answers.
            report.good += 1
            report.good_asked = max(report.good_asked, asked_at)
        elif response.kind in _BAD:
            # A 401 may be the person's alone: only those of different people count.
            own = response.kind is ResponseKind.UNAUTHORIZED
            report.failed[user_id if own else upload_id] = asked_at
        else:
            return
        if report.busy_asked or report.failed or self._state.phase != "full":
            # Other processes must know at once, and permits acquired ahead are no longer valid.
            self._stock = 0
            self._soon.set()
        if self._reporting is None or self._reporting.done():
            self._reporting = asyncio.create_task(
                self._report_soon(),
                name="rate_limiter",
                context=Context(),  # its log lines belong to no single upload
            )

    def redis_time(self, at: float) -> float | None:
        """Redis' clock at a time on time.monotonic, in seconds since 1970; None if not known."""
        if not self._redis_clock or self._is_local(at):
            return None
        return at + self._redis_clock / 1000

    async def state(self) -> RateLimiterState | None:
        """The limit and the phase now; None if Redis does not answer."""
        return None if await self._exchange(0) is None else self._state

    async def credit(self, seconds: float) -> None:
        """So much of the time in which nothing was sent is credited to waiting uploads."""
        await self._exchange(0, credited=seconds)

    async def close(self) -> None:
        """Report the responses that are not reported yet."""
        await self.types.close()
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

    async def _report_soon(self) -> None:
        while self._report:
            try:
                async with asyncio.timeout(_SHARED_SECONDS):
                    await self._soon.wait()
            except TimeoutError:
                pass
            self._soon.clear()
            if self._report:  # otherwise a claim has reported them meanwhile
                await self._exchange(0)

    async def _exchange(self, wanted: int, *, credited: float = 0.0) -> int | None:
        """Report the responses and ask for permits; how many, or None if Redis is away."""
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
            granted, wait, clock, limit, phase, stalled, event = await self._rule(self._keys, args)
        except (RedisError, OSError) as error:
            _log.warning("rate_limiter_is_local", error=type(error).__name__)
            self._away_until = time.monotonic() + _AWAY_SECONDS
            return None
        self._known_at = time.monotonic()
        self._redis_clock = clock - self._known_at * 1000
        self._state = RateLimiterState(phase.decode(), float(limit), wait / 1000, stalled / 1000)
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
        rate_limiter_limit.labels(self._destination).set(self._state.limit)
        phase = self._state.phase
        rate_limiter_probing.labels(self._destination).set(phase in _STALLED)
        match event:
            case "throttled" | "probing_busy":
                rate_limiter_slowed.labels(self._destination, "busy").inc()
                _log.warning("rate_limiter_changed", state=phase, why="busy")
            case "probing_outage":
                rate_limiter_slowed.labels(self._destination, "outage").inc()
                _log.warning("rate_limiter_changed", state=phase, why="outage")
            case "resumed" | "full":
                _log.info("rate_limiter_changed", state=phase, why=event)


def _show_before_the_first_event(destination: str) -> None:
    # Unknown until this process has read them.
    for gauge in (rate_limiter_limit, rate_limiter_probing, rate_limiter_types_probing):
        gauge.labels(destination).set(math.nan)
    # A counter that begins with its first event hides that event from PromQL's `increase`.
    for cause in ("busy", "outage"):
        rate_limiter_slowed.labels(destination, cause)
