"""FHIR types that a destination lacks: only probes of them are sent, and nobody else is slowed.

When many different uploads of one FHIR version and type fail with a response that speaks of that
type, and none succeeds, only a probe of it is sent now and then. A success ends that.
`type_probes.lua` has the rule. All worker processes share it through Redis. While Redis is away no
type is probing: each failed upload is held all the same.
"""

import asyncio
import math
import re
import time
from collections.abc import Iterator, Mapping
from contextvars import Context
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import redis.asyncio
import structlog
from redis.exceptions import RedisError

from uplift.delivery.limiter_key import LimiterKey
from uplift.destinations.responses import Response, ResponseKind
from uplift.ledger.set_aside import FhirType
from uplift.metrics import rate_limiter_types_probing
from uplift.settings import Settings

_log = structlog.get_logger(__name__)

_SCRIPT = (Path(__file__).parent / "type_probes.lua").read_text()

_NAME = re.compile(rb"([A-Z0-9]{1,9})/([A-Za-z]{1,64})")

# Responses are collected for so long, in seconds, unless they change something.
_SHARED_SECONDS = 0.1
# How long this process believes which types are probing: another may have found out more.
_BELIEVED_SECONDS = 0.5
# How long Redis is not asked after it did not answer.
_AWAY_SECONDS = 5.0

# ABSENT says nothing: a look-up for a type that is not there finds no resource either.
_GOOD = frozenset({ResponseKind.STORED, ResponseKind.FOUND, ResponseKind.REFUSED})
_FORBIDDEN = 403


@dataclass(slots=True)
class _Report:
    """The responses about one type since the last report, with times on time.monotonic."""

    good: int = 0
    failed: dict[UUID, float] = field(default_factory=dict)


class TypeProbes:
    """Knows of which FHIR types of one destination only probes are sent."""

    def __init__(
        self, redis_client: "redis.asyncio.Redis", settings: Settings, destination: str
    ) -> None:
        self._rule = redis_client.register_script(_SCRIPT)
        self._destination = destination
        self._probe_seconds = settings.probe_seconds
        self._next_probes: dict[FhirType, float] = {}  # all times on time.monotonic
        self._answered_at: dict[FhirType, float] = {}
        self._known_at = -math.inf
        self._redis_clock = 0.0  # Redis' milliseconds when time.monotonic was 0
        self._reports: dict[FhirType, _Report] = {}
        self._soon = asyncio.Event()
        self._reporting: asyncio.Task[None] | None = None

    def answered(
        self,
        response: Response,
        asked_at: float,
        *,
        fhir_type: FhirType,
        upload_id: UUID,
        user_id: UUID,
    ) -> None:
        """Report the response about this upload to a request of that time, on time.monotonic."""
        report = self._reports.get(fhir_type, _Report())
        if response.is_about_type:
            # A 403 may be the person's alone: only those of different people count.
            who = user_id if response.status_code == _FORBIDDEN else upload_id
            report.failed[who] = asked_at
        elif response.kind in _GOOD:
            report.good += 1
        else:
            return
        self._reports[fhir_type] = report
        if report.failed or fhir_type in self._next_probes:
            self._soon.set()
        if self._reporting is None or self._reporting.done():
            self._reporting = asyncio.create_task(
                self._report_soon(),
                name="type_probes",
                context=Context(),  # its log lines belong to no single upload
            )

    async def probing(self) -> Mapping[FhirType, float]:
        """The types of which only probes are sent, and the seconds until the next of each."""
        if time.monotonic() >= self._known_at + _BELIEVED_SECONDS:
            await self._exchange()
        now = time.monotonic()
        return {each: max(0.0, at - now) for each, at in self._next_probes.items()}

    async def answering(self) -> Mapping[FhirType, float]:
        """The types that answered again in the last minutes; how many seconds ago."""
        await self._exchange()
        now = time.monotonic()
        return {each: now - at for each, at in self._answered_at.items()}

    async def acquire(self, fhir_type: FhirType) -> bool:
        """Whether a probe of that type may be sent now. Then none may for a while."""
        return await self._exchange(wanted=fhir_type)

    async def close(self) -> None:
        """Report the responses that are not reported yet."""
        self._soon.set()
        if self._reporting is not None:
            await self._reporting

    async def _report_soon(self) -> None:
        while self._reports:
            try:
                async with asyncio.timeout(_SHARED_SECONDS):
                    await self._soon.wait()
            except TimeoutError:
                pass
            self._soon.clear()
            if self._reports:
                await self._exchange()

    async def _exchange(self, wanted: FhirType | None = None) -> bool:
        """Report the responses, learn which types are probing, and ask for one probe."""
        reports, self._reports = self._reports, {}
        asked_at = time.monotonic()
        if asked_at < self._known_at:
            return False  # Redis is away
        try:
            granted, clock, probing, answering, began, ended = await self._rule(
                [
                    LimiterKey(self._destination).name("types"),
                    LimiterKey(self._destination).name("answering"),
                    *(LimiterKey(self._destination, each).name("failing") for each in reports),
                ],
                [
                    math.ceil(self._probe_seconds * 1000),
                    _written(wanted) if wanted is not None else "",
                    *self._arguments(reports),
                ],
            )
        except (RedisError, OSError) as error:
            _log.warning("type_probes_are_unknown", error=type(error).__name__)
            self._next_probes, self._answered_at = {}, {}
            self._known_at = time.monotonic() + _AWAY_SECONDS
            return False
        now = self._known_at = time.monotonic()
        self._redis_clock = clock - now * 1000
        self._next_probes = {each: now + ms / 1000 for each, ms in _pairs(probing)}
        self._answered_at = {each: now - ms / 1000 for each, ms in _pairs(answering)}
        rate_limiter_types_probing.labels(self._destination).set(len(self._next_probes))
        for name in began:
            _log.warning("type_probing_began", type=name.decode())
        for name in ended:
            _log.info("type_probing_ended", type=name.decode())
        return bool(granted)

    def _arguments(self, reports: Mapping[FhirType, _Report]) -> Iterator[str | int]:
        for fhir_type, report in reports.items():
            yield from (_written(fhir_type), report.good, len(report.failed))
            for who, asked_at in report.failed.items():
                yield from (str(who), round(asked_at * 1000 + self._redis_clock))


def _written(fhir_type: FhirType) -> str:
    return "/".join(fhir_type)


def _pairs(flat: list[bytes | int]) -> Iterator[tuple[FhirType, int]]:
    for name, milliseconds in zip(flat[::2], flat[1::2], strict=True):
        # Names of another form are not ours.
        if isinstance(name, bytes) and (found := _NAME.fullmatch(name)):
            fhir_version, resource_type = found.groups()
            yield FhirType(fhir_version.decode(), resource_type.decode()), int(milliseconds)
