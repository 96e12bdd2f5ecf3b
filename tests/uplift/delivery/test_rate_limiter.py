"""The rate limiter, on a real Redis. Each RateLimiter stands for one process."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis.asyncio
from prometheus_client import REGISTRY
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests import factories
from uplift.cli.local.embedded import EmbeddedRedis
from uplift.delivery import rate_limiter as rate_limiter_module
from uplift.delivery.rate_limiter import MAX_SUSPENDED_SECONDS, RateLimiter, RateLimiterState
from uplift.destinations.responses import Response, ResponseKind
from uplift.ledger.set_aside import FhirType
from uplift.logs import configure_logs
from uplift.settings import Settings

MakeLimiter = Callable[..., RateLimiter]

STORED = Response(ResponseKind.STORED, "http_201", 201)
BUSY = Response(ResponseKind.BUSY, "http_429", 429)
FAILURES = [
    Response(ResponseKind.UNKNOWN, "http_503", 503),
    Response(ResponseKind.UNKNOWN, "no_answer"),
    Response(ResponseKind.UNKNOWN, "connection_lost"),
    Response(ResponseKind.NOT_SENT, "no_connection"),
    Response(ResponseKind.UNAUTHORIZED, "http_401", 401),
]
OBSERVATION = FhirType("R4", "Observation")
# As rate_limiter.lua has them.
OUTAGE_UPLOADS = 10
GENTLE = 10

FAILED = FAILURES[0]


@pytest.fixture
async def make_limiter(
    client: "redis.asyncio.Redis", redis_server: EmbeddedRedis
) -> AsyncIterator[MakeLimiter]:
    """Makes rate limiters that share only Redis, which is empty."""
    async with AsyncExitStack() as stack:

        def make(
            limit: float = 1000.0,
            *,
            probe: float = 1.0,
            alone: float = 20.0,
            url: str = redis_server.url,
        ) -> RateLimiter:
            own = redis.asyncio.from_url(
                url, socket_connect_timeout=1.0, socket_timeout=2.0, retry=Retry(NoBackoff(), 1)
            )
            stack.push_async_callback(own.aclose)
            settings = Settings(
                max_attempts_per_second=limit,
                probe_seconds=probe,
                local_attempts_per_second=alone,
            )
            opened = RateLimiter(own, settings)
            stack.push_async_callback(opened.close)
            return opened

        yield make


async def state(rate_limiter: RateLimiter) -> RateLimiterState:
    """The state after all that was reported so far."""
    found = await rate_limiter.state()
    assert found is not None
    return found


def answered(
    rate_limiter: RateLimiter,
    response: Response,
    asked_at: float | None = None,
    *,
    fhir_type: FhirType = OBSERVATION,
    upload_id: UUID | None = None,
    user_id: UUID | None = None,
) -> None:
    """Report this response to a request of now, about an upload and a user of its own."""
    rate_limiter.answered(
        response,
        time.monotonic() if asked_at is None else asked_at,
        fhir_type=fhir_type,
        upload_id=upload_id or factories.new_id(),
        user_id=user_id or factories.new_id(),
    )


async def report(
    rate_limiter: RateLimiter, response: Response, count: int = 1, upload: UUID | None = None
) -> RateLimiterState:
    """Report this response so many times, each time for another upload unless one is given."""
    await state(rate_limiter)  # every process reads it before it sends
    for _ in range(count):
        answered(rate_limiter, response, upload_id=upload or factories.new_id())
    return await state(rate_limiter)


async def pass_a_second(client: "redis.asyncio.Redis") -> None:
    """Let the limit's next step be due."""
    now = await client.hmget("uplift:rate_limiter:oneup", "changed", "raised")
    changed, raised = (float(value or 0) for value in now)
    await client.hset(
        "uplift:rate_limiter:oneup",
        mapping={"changed": max(0.0, changed - 1000), "raised": raised - 1000},
    )


async def test_at_the_full_limit_all_permits_are_given_at_once(make_limiter: MakeLimiter) -> None:
    rate_limiter = make_limiter()
    assert await rate_limiter.acquire(100) == 100
    found = await state(rate_limiter)
    assert (found.phase, found.limit) == ("full", 1000)
    assert found.stalled_seconds == 0


async def test_all_processes_together_begin_no_more_than_the_limit(
    make_limiter: MakeLimiter,
) -> None:
    limiters = [make_limiter(200) for _ in range(3)]
    started = time.monotonic()
    begun = 0

    async def use(rate_limiter: RateLimiter) -> None:
        nonlocal begun
        while time.monotonic() < started + 0.8:
            begun += await rate_limiter.acquire(5)
            await asyncio.sleep(rate_limiter.wait)

    await asyncio.gather(*(use(rate_limiter) for rate_limiter in limiters))
    seconds = time.monotonic() - started
    # How many of them are used depends on the machine.
    assert 5 < begun <= 200 * (seconds + 0.1) + 1


async def test_one_429_slows_every_process(make_limiter: MakeLimiter) -> None:
    one, other = make_limiter(), make_limiter()
    assert await other.acquire(100) == 100
    await report(one, BUSY)
    found = await state(other)
    assert (found.phase, found.limit) == ("throttled", 50)  # half of what was used
    assert await other.acquire(100) <= 5


async def test_a_burst_of_429s_that_was_in_flight_counts_once(make_limiter: MakeLimiter) -> None:
    one, other = make_limiter(), make_limiter()
    await state(other)
    in_flight = time.monotonic()
    await report(one, BUSY, 50)
    for _ in range(50):
        answered(other, BUSY, in_flight)
    assert (await state(other)).limit == GENTLE / 2


async def test_further_429s_slow_it_down_to_probes(
    make_limiter: MakeLimiter, client: "redis.asyncio.Redis"
) -> None:
    rate_limiter = make_limiter()
    limits = []
    for _ in range(3):
        limits.append((await report(rate_limiter, BUSY)).limit)
        await pass_a_second(client)
    assert limits == [5, 2.5, 1.25]
    found = await report(rate_limiter, BUSY)
    assert (found.phase, found.limit) == ("probing", 1.0)


async def test_retry_after_suspends_all_processes_and_ends_by_itself(
    make_limiter: MakeLimiter,
) -> None:
    one, other = make_limiter(), make_limiter()
    await report(one, Response(ResponseKind.BUSY, "http_429", 429, retry_after=0.4))
    found = await state(other)
    assert found.phase == "suspended"
    assert 0.2 < found.wait <= 0.4
    assert await other.acquire(1) == 0
    assert 0.1 < other.wait <= 0.4
    await asyncio.sleep(found.wait + 0.05)
    assert await other.acquire(1) == 1
    assert (await state(other)).phase == "throttled"


async def test_nothing_suspends_for_more_than_an_hour(
    client: "redis.asyncio.Redis", make_limiter: MakeLimiter
) -> None:
    """A date judged by a clock a day behind, or written by somebody else."""
    day = 86_400.0
    one, other = make_limiter(), make_limiter()
    found = await report(one, Response(ResponseKind.BUSY, "http_429", 429, retry_after=day))
    assert found.phase == "suspended"
    assert found.wait <= MAX_SUSPENDED_SECONDS
    ahead = 1000 * (await client.time())[0] + 1000 * day
    await client.hset("uplift:rate_limiter:oneup", mapping={"suspended": ahead})
    found = await state(other)
    assert found.phase == "suspended"
    assert found.wait <= MAX_SUSPENDED_SECONDS
    assert found.stalled_seconds < day


async def test_a_redis_whose_clock_went_back_suspends_no_longer_than_it_was_asked_to(
    client: "redis.asyncio.Redis", make_limiter: MakeLimiter
) -> None:
    """Written while it was a day ahead: a Retry-After of two seconds."""
    ahead = 1000 * (await client.time())[0] + 86_400_000
    written: dict[Any, Any] = dict.fromkeys(("changed", "raised", "at", "second"), ahead)
    await client.hset("uplift:rate_limiter:oneup", mapping={**written, "suspended": ahead + 2000})
    found = await state(make_limiter())
    assert (found.phase, found.wait > 0, found.wait <= 2.0) == ("suspended", True, True)
    assert (await state(make_limiter())).wait <= 2.0


@pytest.mark.parametrize(
    "value", ["nan", "inf", "-1", "-1e300", "1e400", "garbage", "", "\xff\x00", "9" * 400]
)
async def test_what_no_rate_limiter_writes_neither_stops_nor_speeds_up_the_sending(
    client: "redis.asyncio.Redis", make_limiter: MakeLimiter, value: str
) -> None:
    """Whoever reaches Redis can write it."""
    one, other = make_limiter(100.0), make_limiter(100.0)
    assert await one.acquire(1) == 1
    written = await client.hgetall("uplift:rate_limiter:oneup")
    for name in written:
        await client.hset("uplift:rate_limiter:oneup", mapping={name: value})
        assert await state(other) == RateLimiterState("full", 100.0, 0.0, 0.0), name
    await client.hset("uplift:rate_limiter:oneup", mapping=dict.fromkeys(written, value))
    assert 1 <= await other.acquire(100_000) <= 10
    for number in (await client.hgetall("uplift:rate_limiter:oneup")).values():
        assert float(number) >= 0


async def test_a_tiny_limit_and_stalled_time_of_years_are_not_believed(
    client: "redis.asyncio.Redis", make_limiter: MakeLimiter
) -> None:
    poison: dict[Any, Any] = {
        "limit": "1e-9",
        "slow_start_threshold": "1e-9",
        "stalled": 10**12,
    }
    await client.hset("uplift:rate_limiter:oneup", mapping=poison)
    found = await state(make_limiter(100.0))
    assert (found.phase, found.limit) == ("full", 100.0)
    assert found.stalled_seconds <= 86_400


@pytest.mark.parametrize("key", ["uplift:rate_limiter:oneup", "uplift:rate_limiter:oneup:failing"])
async def test_a_key_that_holds_something_else_is_begun_again(
    client: "redis.asyncio.Redis", make_limiter: MakeLimiter, key: str
) -> None:
    rate_limiter = make_limiter(100.0)
    await client.set(key, "garbage")
    assert (await state(rate_limiter)).phase == "full"
    assert (await report(rate_limiter, FAILED, OUTAGE_UPLOADS)).phase == "probing"


async def test_probes_go_on_when_the_clock_of_redis_went_back(
    client: "redis.asyncio.Redis", make_limiter: MakeLimiter
) -> None:
    rate_limiter = make_limiter(probe=0.1)
    assert (await report(rate_limiter, FAILED, 20)).phase == "probing"
    ahead = 1000 * ((await client.time())[0] + 86_400)
    await client.hset("uplift:rate_limiter:oneup", mapping={"probing": ahead, "probe": ahead})
    assert (await state(rate_limiter)).wait <= 0.1


async def test_success_doubles_the_limit_up_to_the_slow_start_threshold_and_then_adds_a_tenth(
    make_limiter: MakeLimiter, client: "redis.asyncio.Redis"
) -> None:
    rate_limiter = make_limiter(14.5)
    await report(rate_limiter, BUSY)
    await client.hset("uplift:rate_limiter:oneup", mapping={"limit": 3, "slow_start_threshold": 12})
    limits = []
    for _ in range(5):
        await pass_a_second(client)
        limits.append(round((await report(rate_limiter, STORED, 3)).limit, 2))
    assert limits == [6, 12, 13.2, 14.5, 14.5]
    assert (await state(rate_limiter)).phase == "full"


async def test_it_is_raised_at_most_once_a_second(make_limiter: MakeLimiter) -> None:
    rate_limiter = make_limiter()
    slowed = await report(rate_limiter, BUSY)
    assert (await report(rate_limiter, STORED, 500)).limit == slowed.limit


@pytest.mark.parametrize("failure", FAILURES, ids=lambda response: response.code)
async def test_when_many_different_uploads_fail_only_probes_are_sent(
    make_limiter: MakeLimiter, failure: Response
) -> None:
    one, other = make_limiter(), make_limiter()
    assert (await report(one, failure, OUTAGE_UPLOADS - 1)).phase == "full"
    assert (await report(other, failure)).phase == "probing"
    assert (await state(one)).phase == "probing"
    assert await one.acquire(100) == 0


async def test_one_record_that_always_fails_slows_nobody(make_limiter: MakeLimiter) -> None:
    rate_limiter = make_limiter()
    upload = factories.new_id()
    for _ in range(5):
        assert (await report(rate_limiter, FAILED, 20, upload)).phase == "full"


async def test_one_persons_401s_slow_nobody(make_limiter: MakeLimiter) -> None:
    rate_limiter = make_limiter()
    refused = Response(ResponseKind.UNAUTHORIZED, "http_401", 401)
    person = factories.new_id()
    for _ in range(2 * OUTAGE_UPLOADS):
        answered(rate_limiter, refused, user_id=person)
    assert (await state(rate_limiter)).phase == "full"


@pytest.mark.parametrize("status", [403, 404, 405, 301])
async def test_what_speaks_of_one_type_slows_not_the_whole(
    make_limiter: MakeLimiter, status: int
) -> None:
    rate_limiter = make_limiter()
    held = Response(ResponseKind.HOLD, f"http_{status}", status)
    assert (await report(rate_limiter, held, 5 * OUTAGE_UPLOADS)).phase == "full"


async def test_another_destination_has_a_limit_of_its_own(
    make_limiter: MakeLimiter, client: "redis.asyncio.Redis"
) -> None:
    rate_limiter = make_limiter()
    other = RateLimiter(client, Settings(), "elsewhere")
    assert (await report(rate_limiter, FAILED, OUTAGE_UPLOADS)).phase == "probing"
    assert (await state(other)).phase == "full"


async def test_when_a_third_fails_for_its_own_reasons_nobody_is_slowed(
    make_limiter: MakeLimiter,
) -> None:
    rate_limiter = make_limiter()
    for _ in range(30):
        await report(rate_limiter, FAILED, 3)
        assert (await report(rate_limiter, STORED, 6)).phase == "full"


@pytest.mark.parametrize("kind", [ResponseKind.REFUSED, ResponseKind.FOUND, ResponseKind.ABSENT])
async def test_every_response_about_the_record_counts_as_a_success(
    make_limiter: MakeLimiter, kind: ResponseKind
) -> None:
    rate_limiter = make_limiter()
    for _ in range(3):
        await report(rate_limiter, FAILED, OUTAGE_UPLOADS - 1)
        await report(rate_limiter, Response(kind, "code"), OUTAGE_UPLOADS)
    assert (await state(rate_limiter)).phase == "full"


async def test_while_probing_all_processes_share_one_probe_at_a_time(
    make_limiter: MakeLimiter,
) -> None:
    limiters = [make_limiter(probe=0.2) for _ in range(3)]
    await report(limiters[0], FAILED, OUTAGE_UPLOADS)
    started, probes = time.monotonic(), []

    async def use(rate_limiter: RateLimiter) -> None:
        while time.monotonic() < started + 0.9:
            if await rate_limiter.acquire(10):
                probes.append(time.monotonic())
                answered(rate_limiter, FAILED)
            await asyncio.sleep(max(0.01, rate_limiter.wait))

    await asyncio.gather(*(use(rate_limiter) for rate_limiter in limiters))
    assert 2 <= len(probes) <= 4
    gaps = [after - before for before, after in pairwise(probes)]
    assert min(gaps) > 0.15


async def test_one_success_ends_probing(
    make_limiter: MakeLimiter, client: "redis.asyncio.Redis"
) -> None:
    one, other = make_limiter(), make_limiter()
    await report(one, FAILED, OUTAGE_UPLOADS)
    assert (await report(one, STORED)).phase == "throttled"
    limits = [(await state(other)).limit]
    for _ in range(8):
        await pass_a_second(client)
        limits.append((await report(other, STORED)).limit)
    assert limits == [10, 20, 40, 80, 160, 320, 640, 1000, 1000]


async def test_a_response_to_a_request_from_before_does_not_end_probing(
    make_limiter: MakeLimiter,
) -> None:
    rate_limiter = make_limiter()
    await state(rate_limiter)
    before = time.monotonic()
    await asyncio.sleep(0.02)  # more than the clocks may differ
    await report(rate_limiter, FAILED, OUTAGE_UPLOADS)
    answered(rate_limiter, STORED, before)
    assert (await state(rate_limiter)).phase == "probing"


async def test_the_stalled_time_is_counted_until_it_is_credited(
    make_limiter: MakeLimiter,
) -> None:
    one, other = make_limiter(), make_limiter()
    await report(one, FAILED, OUTAGE_UPLOADS)
    await asyncio.sleep(0.3)  # the time that is measured
    stalled = (await state(other)).stalled_seconds
    assert 0.3 <= stalled < 5
    await other.credit(stalled)
    await report(one, STORED)
    left = (await state(one)).stalled_seconds
    assert left < stalled
    await asyncio.sleep(0.1)  # time that must not count
    assert (await state(one)).stalled_seconds == left  # it counts no further


async def test_a_retry_after_counts_as_stalled_time(
    make_limiter: MakeLimiter,
) -> None:
    rate_limiter = make_limiter()
    await report(rate_limiter, Response(ResponseKind.BUSY, "http_429", 429, retry_after=0.2))
    await asyncio.sleep(0.4)  # twice the Retry-After
    assert (await state(rate_limiter)).stalled_seconds == pytest.approx(0.2, abs=0.01)


async def test_responses_are_reported_soon_without_a_claim(make_limiter: MakeLimiter) -> None:
    one, other = make_limiter(), make_limiter()
    await state(one)
    for _ in range(OUTAGE_UPLOADS):
        answered(one, FAILED)
    async with asyncio.timeout(5):
        while (await state(other)).phase != "probing":  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_many_claims_share_one_call_of_redis(
    make_limiter: MakeLimiter, client: "redis.asyncio.Redis"
) -> None:
    rate_limiter = make_limiter(100_000)
    assert await rate_limiter.acquire(1) == 1
    await client.config_resetstat()
    started, acquired = time.monotonic(), 0
    while time.monotonic() < started + 0.5:
        acquired += await rate_limiter.acquire(1)
        answered(rate_limiter, STORED)
        await asyncio.sleep(0.001)
    calls = (await client.info("commandstats"))["cmdstat_evalsha"]["calls"]
    assert acquired > 50
    assert calls < acquired / 4


async def test_released_permits_can_be_acquired_again(make_limiter: MakeLimiter) -> None:
    rate_limiter = make_limiter(10)
    assert await rate_limiter.acquire(1) == 1
    assert await rate_limiter.acquire(1) == 0
    rate_limiter.release(1)
    assert await rate_limiter.acquire(1) == 1


# --- without Redis -------------------------------------------------------------------------------


async def test_without_redis_each_process_has_a_low_limit_of_its_own(
    make_limiter: MakeLimiter,
) -> None:
    rate_limiter = make_limiter(alone=20, url="redis://127.0.0.1:1/0")
    started, begun = time.monotonic(), 0
    while time.monotonic() < started + 0.5:
        begun += await rate_limiter.acquire(10)
        answered(rate_limiter, STORED)
        await asyncio.sleep(rate_limiter.wait)
    # The permits of one second may have been used at once.
    assert 15 <= begun <= 20 * (1 + time.monotonic() - started) + 1
    assert await rate_limiter.state() is None


async def test_without_redis_a_429_is_honoured_by_the_process_that_got_it(
    make_limiter: MakeLimiter,
) -> None:
    rate_limiter = make_limiter(url="redis://127.0.0.1:1/0")
    assert await rate_limiter.acquire(1) == 1
    answered(rate_limiter, Response(ResponseKind.BUSY, "http_429", 429, 30.0))
    assert await rate_limiter.acquire(1) == 0
    assert rate_limiter.wait > 25


async def test_a_redis_that_comes_back_is_asked_again_and_an_empty_one_starts_at_the_full_limit(
    make_limiter: MakeLimiter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limiter_module, "_AWAY_SECONDS", 0.1)
    with EmbeddedRedis(tmp_path / "own") as server:
        rate_limiter = make_limiter(url=server.url)
        await report(rate_limiter, FAILED, OUTAGE_UPLOADS)
        server.kill()
        assert await rate_limiter.state() is None
        await asyncio.to_thread(server.restart)
        await asyncio.sleep(0.15)  # longer than _AWAY_SECONDS
        async with redis.asyncio.from_url(server.url) as own:
            await own.flushall()
        assert (await state(rate_limiter)).phase == "full"


# --- what operators see --------------------------------------------------------------------------


async def test_operators_see_the_limit_and_why_it_changed(
    make_limiter: MakeLimiter, capfd: pytest.CaptureFixture[str]
) -> None:
    configure_logs(Settings(log_format="json"))
    rate_limiter = make_limiter()

    def sample(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, {"destination": "oneup", **labels}) or 0.0

    slowed = sample("uplift_rate_limiter_slowed_total", cause="busy")
    outages = sample("uplift_rate_limiter_slowed_total", cause="outage")
    await report(rate_limiter, BUSY)
    assert sample("uplift_rate_limiter_limit") == 5
    assert sample("uplift_rate_limiter_probing") == 0
    await report(rate_limiter, FAILED, OUTAGE_UPLOADS)
    assert sample("uplift_rate_limiter_limit") == 1
    assert sample("uplift_rate_limiter_probing") == 1
    await report(rate_limiter, STORED)
    assert sample("uplift_rate_limiter_probing") == 0
    await report(rate_limiter, Response(ResponseKind.BUSY, "http_429", 429, retry_after=30))
    assert sample("uplift_rate_limiter_probing") == 1  # suspended: not even a probe may be sent
    assert sample("uplift_rate_limiter_slowed_total", cause="busy") == slowed + 1
    assert sample("uplift_rate_limiter_slowed_total", cause="outage") == outages + 1
    shown = "".join(capfd.readouterr())
    assert shown.count("rate_limiter_changed") == 3
    assert '"why":"outage"' in shown.replace(": ", ":")
