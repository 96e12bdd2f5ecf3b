"""The deployment's token: fetched once for all processes, sealed in Redis, and renewed early."""

import asyncio
import base64
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import parse_qs

import orjson
import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from pydantic import SecretStr
from redis.exceptions import ConnectionError as RedisAway

from tests.keys import KEY_RING
from tests.uplift.destinations.remote import Connection, Remote, serve
from uplift.destinations.destination import ClientCredentialsLogin, ClientStyle
from uplift.destinations.http_client import open_http
from uplift.errors import LoginFailed, TokenUnavailable
from uplift.tokens import shared_token
from uplift.tokens.ask_for_token import ask_for_token
from uplift.tokens.shared_token import SharedToken


class Clock:
    """Seconds since 1970, as a test wants."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Endpoint:
    """A token endpoint that gives one token after the other."""

    def __init__(self, *, status: int = 200, expires_in: Any = 3600, **body: Any) -> None:
        self.status, self.expires_in, self.body = status, expires_in, body
        self.given = 0

    async def __call__(self, connection: Connection) -> None:
        while True:
            await connection.read()
            self.given += 1
            token = {"access_token": f"token-{self.given}", "expires_in": self.expires_in}
            body = token if self.status == 200 else self.body
            await connection.response(self.status, orjson.dumps(body))


class Process:
    """A process of the deployment."""

    def __init__(
        self, remote: Remote, redis: Any, clock: Callable[[], float], **login: Any
    ) -> None:
        given = {"client_id": "up lift", "secret": SecretStr("s:e/c"), "scope": "system/*.write"}
        self.http = open_http(connections=2)
        own = ClientCredentialsLogin(token_url=f"{remote.url}/token", **{**given, **login})
        self.login = SharedToken(
            ("hapi",),
            lambda now: ask_for_token(self.http, own, remote.url, now=now),
            redis,
            KEY_RING,
            now=clock,
        )

    async def token(self, **how: Any) -> str:
        return (await self.login.token(**how)).value


@pytest.fixture
def redis() -> FakeAsyncRedis:
    return FakeAsyncRedis(server=FakeServer())


async def test_the_client_is_named_in_a_header_or_in_the_body(redis: FakeAsyncRedis) -> None:
    async with serve(Endpoint()) as remote:
        for style in ClientStyle:
            process = Process(remote, FakeAsyncRedis(server=FakeServer()), Clock(), style=style)
            assert await process.token() == f"token-{len(remote.requests)}"
            await process.http.aclose()
    basic, post = remote.requests
    # RFC 6749, 2.3.1: both are form-encoded, and then form the pair.
    pair = base64.b64encode(b"up%20lift:s%3Ae%2Fc").decode()
    assert basic.header("Authorization") == f"Basic {pair}"
    assert parse_qs(basic.body.decode()) == {
        "grant_type": ["client_credentials"],
        "scope": ["system/*.write"],
    }
    assert post.header("Authorization") is None
    assert parse_qs(post.body.decode())["client_id"] == ["up lift"]
    assert parse_qs(post.body.decode())["client_secret"] == ["s:e/c"]


async def test_it_is_fetched_once_for_all_processes(redis: FakeAsyncRedis) -> None:
    async with serve(Endpoint()) as remote:
        processes = [Process(remote, redis, Clock()) for _ in range(4)]
        tokens = await asyncio.gather(*(each.token() for each in processes for _ in range(5)))
        for each in processes:
            await each.http.aclose()
    assert set(tokens) == {"token-1"}
    assert len(remote.requests) == 1


async def test_it_is_sealed_in_redis_and_ends_there_by_itself(redis: FakeAsyncRedis) -> None:
    async with serve(Endpoint(expires_in=100)) as remote:
        process = Process(remote, redis, Clock())
        await process.token()
        await process.http.aclose()
    (key,) = await redis.keys("*")
    kept = await redis.get(key)
    assert isinstance(kept, bytes)
    assert b"token-1" not in kept
    assert b"hapi" not in key
    assert 0 < await redis.ttl(key) <= 100


@pytest.mark.parametrize(("expires_in", "renewed_after"), [(3600, 3300), (200, 100)])
async def test_it_is_renewed_before_it_ends(
    redis: FakeAsyncRedis, expires_in: int, renewed_after: float
) -> None:
    clock = Clock()
    async with serve(Endpoint(expires_in=expires_in)) as remote:
        process = Process(remote, redis, clock)
        assert await process.token() == "token-1"
        clock.now += renewed_after - 1
        assert await process.token() == "token-1"
        clock.now += 1
        assert await process.token() == "token-2"
        await process.http.aclose()


async def test_a_refused_token_is_replaced_once_for_all(redis: FakeAsyncRedis) -> None:
    async with serve(Endpoint()) as remote:
        one, other = Process(remote, redis, Clock()), Process(remote, redis, Clock())
        old = await one.login.token()
        assert await other.token() == "token-1"
        assert await one.token(refused=old) == "token-2"
        assert await other.token(refused=old) == "token-2"
        for each in (one, other):
            await each.http.aclose()
    assert len(remote.requests) == 2


async def test_while_the_endpoint_is_away_the_old_token_serves_until_its_end(
    redis: FakeAsyncRedis,
) -> None:
    clock, endpoint = Clock(), Endpoint(expires_in=200)
    async with serve(endpoint) as remote:
        process = Process(remote, redis, clock)
        await process.token()
        endpoint.status = 503
        clock.now += 150
        assert await process.token() == "token-1"
        clock.now += 51
        with pytest.raises(TokenUnavailable) as raised:
            await process.token()
        await process.http.aclose()
    assert not isinstance(raised.value, LoginFailed)
    assert raised.value.code == "http_503"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 302])
async def test_an_endpoint_that_refuses_is_the_deployments_fault(
    redis: FakeAsyncRedis, status: int
) -> None:
    async with serve(Endpoint(status=status, said="no")) as remote:
        process = Process(remote, redis, Clock())
        for _ in range(20):
            with pytest.raises(LoginFailed) as raised:
                await process.token()
        await process.http.aclose()
    assert raised.value.code == f"http_{status}"
    assert len(remote.requests) == 1, "it asks again after a pause"


async def test_without_redis_each_process_fetches_its_own() -> None:
    class Away:
        async def _fail(self, *_: Any, **__: Any) -> None:
            raise RedisAway

        get = set = delete = _fail

    async with serve(Endpoint()) as remote:
        processes = [Process(remote, cast("Any", Away()), Clock()) for _ in range(2)]
        for each in processes:
            assert await each.token() == await each.token()
            await each.http.aclose()
    assert len(remote.requests) == 2


async def test_a_mark_that_lasts_stops_nobody_for_long(
    redis: FakeAsyncRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_token, "_WAIT_SECONDS", 0.3)
    async with serve(Endpoint()) as remote:
        process = Process(remote, redis, Clock())
        assert await process.login._may_fetch()
        (mark,) = await redis.keys("*")
        await redis.persist(mark)
        assert await process.token() == "token-1"
        await process.http.aclose()


async def test_what_another_key_ring_sealed_is_fetched_again(redis: FakeAsyncRedis) -> None:
    async with serve(Endpoint()) as remote:
        process = Process(remote, redis, Clock())
        await process.token()
        (key,) = await redis.keys("*")
        await redis.set(key, b'{"master":"gone","key":"","sealed":""}')
        other = Process(remote, redis, Clock())
        assert await other.token() == "token-2"
        for each in (process, other):
            await each.http.aclose()
