"""The quota of user-management calls, on a real Redis. Each Quota stands for one process.

Redis counts by its own clock, which no test can set: a few tests wait for it.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from uplift.cli.local.embedded import EmbeddedRedis
from uplift.errors import QuotaSpent
from uplift.settings import Settings
from uplift.tokens.quota import Quota

MakeQuota = Callable[..., Quota]
HOUR = 3600.0


@pytest.fixture
async def redis_url(redis_server: EmbeddedRedis) -> str:
    """An empty Redis."""
    async with redis.asyncio.from_url(redis_server.url) as server:
        await server.flushdb()
    return redis_server.url


@pytest.fixture
async def make_quota(redis_url: str) -> AsyncIterator[MakeQuota]:
    """Makes quotas that share nothing but Redis."""
    async with AsyncExitStack() as stack:

        def make(
            calls: int, *, reserve: int = 0, seconds: float = HOUR, url: str = redis_url
        ) -> Quota:
            client = redis.asyncio.from_url(
                url, socket_connect_timeout=10.0, socket_timeout=10.0, retry=Retry(NoBackoff(), 1)
            )
            stack.push_async_callback(client.aclose)
            settings = Settings(
                oneup_quota_calls=calls,
                oneup_quota_reserve=reserve,
                oneup_quota_seconds=seconds,
            )
            return Quota(client, settings)

        yield make


async def call(quota: Quota, *, new_user: bool = False) -> None:
    """A call that takes no time."""
    async with quota.call(new_user=new_user):
        pass


async def withheld(quota: Quota, *, new_user: bool = False) -> float:
    """For how many seconds the quota allows no call."""
    with pytest.raises(QuotaSpent) as raised:
        async with quota.call(new_user=new_user):
            raise AssertionError("the call was allowed")
    return raised.value.retry_after


async def made(quota: Quota, limit: int, *, new_user: bool = False) -> int:
    """How many of so many concurrent calls were made."""
    found = await asyncio.gather(
        *(call(quota, new_user=new_user) for _ in range(limit)), return_exceptions=True
    )
    assert {type(each) for each in found} <= {type(None), QuotaSpent}
    return sum(each is None for each in found)


# --- counting ------------------------------------------------------------------------------------


async def test_a_call_over_the_limit_waits_until_the_first_leaves_the_period(
    make_quota: MakeQuota,
) -> None:
    quota = make_quota(2)
    await call(quota)
    await call(quota)
    assert HOUR - 30 < await withheld(quota) <= HOUR + 1


async def test_the_period_slides(make_quota: MakeQuota) -> None:
    quota = make_quota(2, seconds=1.0)
    await call(quota)
    await asyncio.sleep(0.3)  # Redis' clock
    await call(quota)

    await asyncio.sleep(await withheld(quota) + 0.01)

    # The first has left the period, the second has not.
    assert await made(quota, 3) == 1


async def test_many_processes_at_once_never_exceed_the_limit(make_quota: MakeQuota) -> None:
    quotas = [make_quota(37) for _ in range(4)]
    counts = await asyncio.gather(*(made(quota, 50) for quota in quotas))
    assert sum(counts) == 37


async def test_in_no_period_1uphealth_sees_more_than_its_limit(make_quota: MakeQuota) -> None:
    """It may count a call at any time between its start and its end."""
    limit, period = 10, 0.4
    quotas = [make_quota(limit, seconds=period) for _ in range(4)]
    calls: list[tuple[float, float]] = []
    dice = random.Random(4)

    async def caller(quota: Quota, until: float) -> None:
        while time.monotonic() < until:
            try:
                async with quota.call(new_user=True):
                    started = time.monotonic()
                    await asyncio.sleep(dice.uniform(0.0, 0.1))  # the call
                    calls.append((started, time.monotonic()))
            except QuotaSpent as spent:
                await asyncio.sleep(spent.retry_after)

    until = time.monotonic() + 2
    await asyncio.gather(*(caller(quota, until) for quota in quotas for _ in range(5)))

    assert len(calls) >= 2 * limit
    for at, _ in calls:
        # Those that 1upHealth may have in its period when this one arrives, and this one.
        assert sum(start <= at < end + period for start, end in calls) <= limit


async def test_a_cancelled_call_stays_counted(make_quota: MakeQuota) -> None:
    quota, begun = make_quota(1), asyncio.Event()

    async def call_without_end() -> None:
        async with quota.call(new_user=False):
            begun.set()
            await asyncio.Event().wait()

    calling = asyncio.create_task(call_without_end())
    await begun.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert await withheld(quota) > HOUR - 30


async def test_a_failed_call_stays_counted(make_quota: MakeQuota) -> None:
    quota = make_quota(1)
    with pytest.raises(ZeroDivisionError):
        async with quota.call(new_user=True):
            raise ZeroDivisionError
    assert await withheld(make_quota(1)) > HOUR - 30


# --- the reserve ---------------------------------------------------------------------------------


async def test_the_reserve_is_for_new_users(make_quota: MakeQuota) -> None:
    quota = make_quota(10, reserve=4)
    assert await made(quota, 20) == 6
    assert await made(quota, 20, new_user=True) == 4
    assert await withheld(quota, new_user=True) > HOUR - 30


async def test_new_users_use_what_is_not_reserved_too(make_quota: MakeQuota) -> None:
    quota = make_quota(10, reserve=4)
    assert await made(quota, 8, new_user=True) == 8
    assert await made(quota, 1) == 0
    assert await made(quota, 5, new_user=True) == 2


# --- 1upHealth's 429 -----------------------------------------------------------------------------


@pytest.mark.parametrize("new_user", [True, False])
async def test_a_429_stops_the_calls_of_all_processes(
    make_quota: MakeQuota, new_user: bool
) -> None:
    quota, another = make_quota(10, reserve=4), make_quota(10, reserve=4)
    assert await quota.used_up(120.0) == 120.0
    for each in (quota, another):
        assert 90 < await withheld(each, new_user=new_user) <= 120


async def test_calls_go_on_when_1uphealth_said(make_quota: MakeQuota) -> None:
    quota = make_quota(10)
    await quota.used_up(0.2)
    await asyncio.sleep(await withheld(quota) + 0.05)  # Redis' clock
    assert await made(quota, 20) == 10


async def test_a_429_that_names_no_time_stops_the_calls_for_a_part_of_the_period(
    make_quota: MakeQuota,
) -> None:
    quota = make_quota(10)
    assert await quota.used_up(None) == 180.0
    assert 120 < await withheld(make_quota(10)) <= 180


# --- Redis comes and goes ------------------------------------------------------------------------


async def test_a_flushed_redis_counts_from_zero_and_a_429_still_stops_the_calls(
    make_quota: MakeQuota, redis_url: str
) -> None:
    quota = make_quota(5)
    assert await made(quota, 5) == 5
    async with redis.asyncio.from_url(redis_url) as server:
        # The script cache too, as a restart would.
        await server.flushdb()
        await server.script_flush()

    assert await made(quota, 1) == 1
    await quota.used_up(60.0)

    assert await withheld(make_quota(5)) > 30


async def test_after_a_flush_a_process_still_keeps_to_the_429_that_it_got(
    make_quota: MakeQuota, redis_url: str
) -> None:
    quota = make_quota(5)
    await quota.used_up(60.0)
    async with redis.asyncio.from_url(redis_url) as server:
        await server.flushdb()
    assert await withheld(quota) > 30


async def test_without_redis_each_process_takes_a_small_share(
    make_quota: MakeQuota, tmp_path: Path
) -> None:
    with EmbeddedRedis(tmp_path) as server:
        quotas = [make_quota(300, reserve=50, url=server.url) for _ in range(4)]
        await call(quotas[0])
        server.kill()

        counts = [await made(quota, 40) for quota in quotas]
        assert counts == [12, 12, 12, 12]
        assert await withheld(quotas[0]) > HOUR - 60
        # New users have a share of their own without Redis too.
        assert await made(quotas[0], 40, new_user=True) == 3

        server.restart()
        fresh = make_quota(300, reserve=50, url=server.url)
        assert await made(fresh, 40) == 40


async def test_without_redis_a_429_stops_the_calls_of_this_process(
    make_quota: MakeQuota, tmp_path: Path
) -> None:
    with EmbeddedRedis(tmp_path) as server:
        quota = make_quota(300, url=server.url)
        await call(quota)
        server.kill()
        await quota.used_up(60.0)
        assert await withheld(quota, new_user=True) > 30


async def test_redis_that_goes_during_a_call_fails_nothing(
    make_quota: MakeQuota, tmp_path: Path
) -> None:
    with EmbeddedRedis(tmp_path) as server:
        quota = make_quota(300, url=server.url)
        async with quota.call(new_user=False):
            server.kill()
        await call(quota)


# --- what somebody else writes into Redis --------------------------------------------------------

_CALLS = "uplift:oneup:quota-calls"
_SUSPENDED = "uplift:oneup:quota-calls-suspended"
_TEN_YEARS = 10 * 365 * 86_400


@pytest.mark.parametrize("seconds", [_TEN_YEARS, None], ids=["ten years", "for ever"])
async def test_nothing_suspends_the_calls_for_more_than_an_hour(
    make_quota: MakeQuota, redis_url: str, seconds: int | None
) -> None:
    async with redis.asyncio.from_url(redis_url) as server:
        await server.set(_SUSPENDED, "garbage", ex=seconds)
        quota = make_quota(10)
        assert await quota.left() == (0, 0)
        assert await withheld(quota) <= HOUR
        assert 0 < await server.ttl(_SUSPENDED) <= HOUR


async def test_no_retry_after_suspends_the_calls_for_more_than_an_hour(
    make_quota: MakeQuota,
) -> None:
    quota = make_quota(10)
    assert await quota.used_up(float(_TEN_YEARS)) == HOUR
    assert await withheld(quota) <= HOUR


async def test_calls_in_the_future_count_for_one_period_from_now(
    make_quota: MakeQuota, redis_url: str
) -> None:
    async with redis.asyncio.from_url(redis_url) as server:
        later = 1000 * (time.time() + _TEN_YEARS)
        await server.zadd(_CALLS, {f"call {number}": later for number in range(5)} | {"x": "inf"})
        assert await withheld(make_quota(5)) <= HOUR + 1


@pytest.mark.parametrize("kind", ["text", "list", "hash", "too many"])
async def test_a_key_that_holds_something_else_or_too_much_begins_again(
    make_quota: MakeQuota, redis_url: str, kind: str
) -> None:
    async with redis.asyncio.from_url(redis_url) as server:
        match kind:
            case "text":
                await server.set(_CALLS, "garbage")
            case "list":
                await server.rpush(_CALLS, "garbage")
            case "hash":
                await server.hset(_CALLS, "garbage", "garbage")
            case _:
                now = 1000 * time.time()
                await server.zadd(_CALLS, {f"garbage {each}": now for each in range(10_000)})
        quota = make_quota(5)
        if kind != "too many":
            assert await quota.left() == (5, 5)
        assert await made(quota, 8) == 5
        assert await server.zcard(_CALLS) == 5
