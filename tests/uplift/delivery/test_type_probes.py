"""FHIR types that a destination lacks, on a real Redis. Each RateLimiter stands for one process."""

import asyncio
import time
from uuid import UUID

import pytest
import redis.asyncio

from tests import factories
from uplift.delivery import type_probes
from uplift.delivery.rate_limiter import RateLimiter
from uplift.destinations.responses import Response, ResponseKind
from uplift.ledger.set_aside import FhirType
from uplift.settings import Settings

STORED = Response(ResponseKind.STORED, "http_201", 201)
NOT_FOUND = Response(ResponseKind.HOLD, "http_404", 404)
FORBIDDEN = Response(ResponseKind.HOLD, "http_403", 403)
OLD = FhirType("DSTU2", "Observation")
NEW = FhirType("R4", "Observation")
# As type_probes.lua has it.
FAILURES = 10

Redis = redis.asyncio.Redis


@pytest.fixture(autouse=True)
def _always_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type_probes, "_BELIEVED_SECONDS", 0.0)


def limiter(client: Redis, *, probe: float = 60.0) -> RateLimiter:
    return RateLimiter(client, Settings(probe_seconds=probe))


async def report(
    one: RateLimiter,
    fhir_type: FhirType,
    response: Response,
    count: int = 1,
    *,
    asked_at: float | None = None,
    upload: UUID | None = None,
    user: UUID | None = None,
) -> set[FhirType]:
    """Report this response so many times; the types of which only probes are sent then."""
    await one.types.probing()  # every process reads it before it sends
    for _ in range(count):
        one.types.answered(
            response,
            time.monotonic() if asked_at is None else asked_at,
            fhir_type=fhir_type,
            upload_id=upload or factories.new_id(),
            user_id=user or factories.new_id(),
        )
    return set(await one.types.probing())


@pytest.mark.parametrize(
    "failure",
    [
        NOT_FOUND,
        FORBIDDEN,
        Response(ResponseKind.HOLD, "http_405", 405),
        Response(ResponseKind.UNKNOWN, "http_501", 501),
        Response(ResponseKind.UNKNOWN, "http_404", 404),  # of a look-up
    ],
    ids=lambda response: f"{response.kind}_{response.code}",
)
async def test_of_a_type_that_fails_for_many_uploads_only_probes_are_sent(
    client: Redis, failure: Response
) -> None:
    one, other = limiter(client), limiter(client)
    assert await report(one, OLD, failure, FAILURES - 1) == set()
    assert await report(other, OLD, failure) == {OLD}
    assert set(await one.types.probing()) == {OLD}
    assert await one.acquire(10) == 10  # all others are sent as before


@pytest.mark.parametrize(
    "failure",
    [
        Response(ResponseKind.UNKNOWN, "http_503", 503),
        Response(ResponseKind.UNKNOWN, "no_answer"),
        Response(ResponseKind.NOT_SENT, "no_connection"),
        Response(ResponseKind.UNAUTHORIZED, "http_401", 401),
        Response(ResponseKind.BUSY, "http_429", 429),
        Response(ResponseKind.ABSENT, "http_404", 404),
    ],
    ids=lambda response: response.code,
)
async def test_what_speaks_of_the_whole_speaks_of_no_type(client: Redis, failure: Response) -> None:
    assert await report(limiter(client), OLD, failure, 5 * FAILURES) == set()


async def test_one_upload_that_always_fails_and_one_persons_403s_slow_no_type(
    client: Redis,
) -> None:
    one = limiter(client)
    assert await report(one, OLD, NOT_FOUND, 50, upload=factories.new_id()) == set()
    assert await report(one, NEW, FORBIDDEN, 50, user=factories.new_id()) == set()


async def test_successes_of_the_type_outweigh_its_failures_and_those_of_another_do_not(
    client: Redis,
) -> None:
    one = limiter(client)
    for _ in range(3):
        await report(one, OLD, NOT_FOUND, FAILURES - 1)
        assert await report(one, OLD, STORED, FAILURES) == set()
    await report(one, OLD, NOT_FOUND, FAILURES - 1)
    await report(one, NEW, STORED, FAILURES)
    assert await report(one, OLD, NOT_FOUND) == {OLD}


async def test_a_probe_of_each_type_goes_once_in_its_time(client: Redis) -> None:
    one, other = limiter(client, probe=0.3), limiter(client, probe=0.3)
    await report(one, OLD, NOT_FOUND, FAILURES)
    await report(one, NEW, NOT_FOUND, FAILURES)
    assert not await one.types.acquire(OLD)  # the failures were probes enough
    await asyncio.sleep(0.35)
    assert [await each.types.acquire(OLD) for each in (one, other)] == [True, False]
    assert await other.types.acquire(NEW)
    assert 0 < (await other.types.probing())[OLD] <= 0.3
    assert not await one.types.acquire(FhirType("R4", "Condition"))  # it is not probing


async def test_a_success_ends_it_for_all_and_is_remembered(client: Redis) -> None:
    one, other = limiter(client), limiter(client)
    before = time.monotonic()
    await report(one, OLD, NOT_FOUND, FAILURES)
    assert await report(one, OLD, STORED) == set()
    assert await other.types.probing() == {}
    assert set(await other.types.answering()) == {OLD}
    assert (await other.types.answering())[OLD] < 30
    # What was asked before says nothing new.
    await asyncio.sleep(0.02)  # more than the clocks may differ
    assert await report(other, OLD, NOT_FOUND, FAILURES, asked_at=before) == set()
    assert await report(other, OLD, NOT_FOUND, FAILURES) == {OLD}
    assert await other.types.answering() == {}


async def test_responses_are_reported_soon_without_a_claim(client: Redis) -> None:
    one, other = limiter(client), limiter(client)
    await one.types.probing()
    for _ in range(FAILURES):
        one.types.answered(
            NOT_FOUND,
            time.monotonic(),
            fhir_type=OLD,
            upload_id=factories.new_id(),
            user_id=factories.new_id(),
        )
    async with asyncio.timeout(5):
        while not await other.types.probing():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_probes_go_on_when_the_clock_of_redis_went_back(client: Redis) -> None:
    one = limiter(client, probe=0.1)
    await report(one, OLD, NOT_FOUND, FAILURES)
    ahead = 1000 * ((await client.time())[0] + 86_400)
    await client.zadd("uplift:rate_limiter:oneup:types", {"DSTU2/Observation": ahead})
    assert (await one.types.probing())[OLD] <= 0.11


@pytest.mark.parametrize("key", ["types", "answering", "failing:R4/Observation"])
async def test_what_somebody_else_wrote_stops_no_type(client: Redis, key: str) -> None:
    one = limiter(client)
    key = f"uplift:rate_limiter:oneup:{key}"
    for poison in ("a text", "other names", "too many"):
        await client.delete(key)
        if poison == "a text":
            await client.set(key, "garbage")
        elif poison == "other names":
            names = [b"\xff\x00/x", b"R4/" + b"x" * 1000, b"", b"no slash"]
            await client.zadd(key, dict.fromkeys(names, 1))
        else:
            await client.zadd(key, {f"R4/Type{number}": 1 for number in range(2_000)})
        assert await one.types.probing() == {}
        assert await one.types.answering() == {}
    await client.delete(key)
    assert await report(one, NEW, NOT_FOUND, FAILURES) == {NEW}


async def test_what_somebody_else_wrote_into_redis_is_not_believed(client: Redis) -> None:
    one = limiter(client)
    key = "uplift:rate_limiter:oneup:types"
    await client.zadd(key, {"garbage": 1, "R4/\x1b[2J": 3, "/": float("-inf")})
    await client.zadd(key, {b"\xff/\xff": 2})
    await client.zadd(key, {"DSTU2/Observation": float("inf"), "R4/Condition": float("-inf")})
    found = await one.types.probing()
    assert set(found) == {OLD, FhirType("R4", "Condition")}
    assert max(found.values()) <= 60
    await client.delete(key)
    await client.set(key, "garbage")
    assert await limiter(client).types.probing() == {}


async def test_without_redis_no_type_is_probing() -> None:
    nowhere = redis.asyncio.from_url("redis://127.0.0.1:1/0")
    one = limiter(nowhere)
    assert await report(one, OLD, NOT_FOUND, 5 * FAILURES) == set()
    assert not await one.types.acquire(OLD)
    await one.close()
    await nowhere.aclose()
