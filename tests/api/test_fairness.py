"""The rows of door.md about shares: what one caller does, and how the others fare."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

import httpx
import orjson
import pytest
from fastapi import FastAPI
from sqlalchemy import event

from tests import factories
from tests.api.calls import assert_problem, bearer, device_token, submit
from tests.api.serving import ApiServer, answer_on
from tests.factories import resource
from tests.keys import KEY_RING
from uplift.ledger.credentials import BACKEND, add_api_key
from uplift.ledger.database import Database
from uplift.settings import Settings
from uplift.wiring import Relay, open_relay

_MIB = 1024 * 1024
_NDJSON = "application/x-ndjson"
_JSON = "application/fhir+json"
_UPLOADS = "/v1/uploads?user=alice&fhirVersion=R4"
_BATCHES = "/v1/batches?user=alice&fhirVersion=R4"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "max_intake_bytes": 2 * _MIB,
            "max_concurrent_batches": 2,
            "max_long_polls": 8,
            "max_json_values": 10_000,
            "max_batch_lines": 1000,
            "max_batch_bytes": _MIB,
            "body_idle_seconds": 6.0,
            "min_body_bytes_per_second": 1000,
            "admission_wait_seconds": 10.0,
            "rate_limit_seconds": 6000.0,
        }
    )


@pytest.fixture
async def hostile(database: Database, settings: Settings) -> str:
    """A backend's key, in a ledger that knows alice."""
    async with open_relay(settings) as relay:
        await factories.user_without_grant(relay)
    return await _key(database)


@pytest.fixture
async def honest(database: Database, hostile: str) -> str:
    """Another backend's key."""
    return await _key(database)


async def _key(database: Database) -> str:
    async with database.transaction() as connection:
        return (await add_api_key(connection, KEY_RING, "backend", BACKEND))[1]


def _head(key: str, path: str, type_: str, *lines: str) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: uplift", f"Authorization: Bearer {key}"]
    return "\r\n".join([*head, f"Content-Type: {type_}", *lines, "", ""]).encode()


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


@asynccontextmanager
async def _client(server: ApiServer, key: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=server.url, headers={**bearer(key), "Content-Type": _JSON}, timeout=30
    ) as client:
        yield client


def _large() -> bytes:
    return orjson.dumps(resource(note=[{"text": "x" * (_MIB // 2)}]))


async def _accepted(client: httpx.AsyncClient, body: bytes) -> float:
    """The seconds in which a body is accepted."""
    began = time.monotonic()
    response = await client.post(_UPLOADS, content=body)
    assert response.status_code == 202, response.text
    return time.monotonic() - began


# Row 5


async def test_announced_bodies_that_do_not_come_take_nothing_from_anybody(
    server: ApiServer, hostile: str, honest: str
) -> None:
    with ExitStack() as open_:
        for _ in range(12):
            connection = open_.enter_context(server.connect())
            connection.sendall(_head(hostile, _UPLOADS, _JSON, f"Content-Length: {_MIB}") + b"{")
        async with _client(server, hostile) as same, _client(server, honest) as other:
            await same.get("/healthz")
            assert await _accepted(other, _large()) < 2
            assert await _accepted(same, _large()) < 2


async def test_a_body_that_drips_is_a_408_and_the_connection_closes(
    server: ApiServer, hostile: str
) -> None:
    def drip() -> tuple[int, dict[str, str], bytes]:
        with server.connect() as connection:
            connection.sendall(_head(hostile, _UPLOADS, _JSON, "Content-Length: 100000"))
            # Never a pause of three seconds, and yet far below the least rate.
            connection.settimeout(0.5)
            for _ in range(20):
                try:
                    connection.sendall(b" ")
                    connection.recv(1, socket.MSG_PEEK)
                except TimeoutError:
                    continue
                break
            connection.settimeout(1)
            return answer_on(connection)

    status, headers, body = await asyncio.to_thread(drip)
    problem = assert_problem(httpx.Response(status, headers=headers, content=body), 408)
    assert "1000 bytes per second" in problem["detail"]
    assert headers["connection"] == "close"


@contextmanager
def _stalled(server: ApiServer, key: str, count: int, sent: bytes) -> Iterator[None]:
    with ExitStack() as open_:
        for _ in range(count):
            connection = open_.enter_context(server.connect())
            connection.sendall(_head(key, _UPLOADS, _JSON, f"Content-Length: {_MIB}") + sent)
        yield


async def test_a_key_whose_slow_bodies_fill_everything_yields_to_another_within_a_second(
    server: ApiServer, hostile: str, honest: str
) -> None:
    # 12 times 200 KB is more than a process takes.
    with _stalled(server, hostile, 12, b" " * 200_000):
        async with _client(server, honest) as other:
            await other.get("/healthz")
            took = [await _accepted(other, _large()) for _ in range(3)]
    assert took[0] < 2, took  # a second, and the time of the request itself
    assert max(took[1:]) < 2


async def test_a_device_fills_its_eighth_and_nobody_else_waits(
    server: ApiServer, database: Database, honest: str
) -> None:
    token = await device_token(database, "alice")
    with _stalled(server, token, 20, b" " * 200_000):
        async with _client(server, honest) as other:
            await other.get("/healthz")
            assert await _accepted(other, _large()) < 0.4  # nobody needed to be interrupted


async def test_a_key_with_all_batches_yields_one_and_hears_what_was_accepted(
    server: ApiServer, hostile: str, honest: str
) -> None:
    line = orjson.dumps(resource(id="one"))
    with server.connect() as first, server.connect() as second:
        for connection in (first, second):
            connection.sendall(
                _head(hostile, _BATCHES, _NDJSON, "Transfer-Encoding: chunked")
                + _chunk(line + b"\n")
            )
            await asyncio.sleep(0.1)  # the first one waits longest
        async with _client(server, honest) as other:
            response = await other.post(
                _BATCHES, content=line + b"\n", headers={"Content-Type": _NDJSON}
            )
            assert response.status_code == 202, response.text
        status, headers, body = await asyncio.to_thread(answer_on, first)
        problem = assert_problem(httpx.Response(status, headers=headers, content=body), 503)
        assert "lists the accepted lines" in problem["detail"]
        second.sendall(b"0\r\n\r\n")
        assert (await asyncio.to_thread(answer_on, second))[0] == 202


# Row 6


async def test_blank_lines_are_charged_and_end_a_batch(
    server: ApiServer, hostile: str, honest: str
) -> None:
    ndjson = {"Content-Type": _NDJSON}
    async with _client(server, hostile) as client:
        line = orjson.dumps(resource(id="one")) + b"\n"
        response = await client.post(_BATCHES, content=line + b"\n" * 1000, headers=ndjson)
        assert (response.status_code, response.json()["accepted"]) == (202, 1)
        left = int(response.headers["ratelimit"].partition("r=")[2].partition(";")[0])
        assert left <= 100_000 - 900  # a few are back already
        for blank in (b"\n", b"\r\n", b" \n"):
            response = await client.post(_BATCHES, content=line + blank * 20_000, headers=ndjson)
            assert "blank lines" in assert_problem(response, 413)["detail"]


async def test_a_batch_over_the_cap_on_bytes_ends_and_says_what_was_accepted(
    server: ApiServer, hostile: str
) -> None:
    lines = [orjson.dumps(resource(id=f"l{n}", note=[{"text": "x" * 10_000}])) for n in range(200)]
    async with _client(server, hostile) as client:
        response = await client.post(
            _BATCHES, content=b"\n".join(lines), headers={"Content-Type": _NDJSON}
        )
        problem = assert_problem(response, 413)
        assert str(_MIB) in problem["detail"]
        path = problem["detail"].partition("/v1/batches/")[2].partition(" ")[0]
        listed = (await client.get(f"/v1/batches/{path}?limit=1000")).json()["lines"]
        assert 80 < len(listed) < 105


# Row 7


async def test_a_body_with_too_many_values_is_refused_before_they_are_built(
    server: ApiServer, hostile: str
) -> None:
    many = b'{"resourceType":"Observation","a":[' + b"[]," * 10_000 + b"[]]}"
    bundle = b'{"resourceType":"Bundle","type":"collection","entry":[' + many + b"]}"
    texts = orjson.dumps(resource(note=[{"text": "a, [b] {c}, " * 5000}]))
    async with _client(server, hostile) as client:
        for path in (_UPLOADS, _BATCHES):
            response = await client.post(path, content=many if path == _UPLOADS else bundle)
            assert "UPLIFT_MAX_JSON_VALUES" in assert_problem(response, 400)["detail"]
        assert (await client.post(_UPLOADS, content=texts)).status_code == 202
        batch = await client.post(
            _BATCHES, content=many + b"\n" + texts, headers={"Content-Type": _NDJSON}
        )
        assert [line.get("problem", {}).get("status") for line in batch.json()["lines"]] == [
            400,
            None,
        ], batch.text


# Row 8


async def test_readiness_in_a_loop_asks_the_database_once_a_second(
    app: FastAPI, relay: Relay, anybody: httpx.AsyncClient
) -> None:
    seen = 0

    def note(*arguments: object) -> None:
        nonlocal seen
        seen += "alembic_version" in str(arguments[2])

    event.listen(relay.database._engine.sync_engine, "before_cursor_execute", note)
    began = time.monotonic()
    answers = await asyncio.gather(*(anybody.get("/readyz") for _ in range(50)))
    passed = time.monotonic() - began
    # 503 on a machine that is too busy to answer within a second.
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert 1 <= seen <= 2 + 2 * passed  # the check's own, and what it asks before it


async def test_a_key_with_all_long_polls_yields_to_another_and_a_device_has_an_eighth(
    server: ApiServer, database: Database, hostile: str, honest: str
) -> None:
    token = await device_token(database, "alice")
    async with _client(server, hostile) as many, _client(server, honest) as other:
        url = (await submit(many))["statusUrl"]
        polls = [asyncio.create_task(many.get(f"{url}?wait=20")) for _ in range(8)]
        await asyncio.sleep(1)
        assert not any(poll.done() for poll in polls)
        refused = await many.get(f"{url}?wait=20")
        assert "UPLIFT_MAX_LONG_POLLS" in assert_problem(refused, 503)["detail"]
        mine = asyncio.create_task(other.get(f"{url}?wait=2"))
        done, _ = await asyncio.wait(polls, return_when=asyncio.FIRST_COMPLETED, timeout=1)
        assert [poll.result().json()["status"] for poll in done] == ["queued"]
        assert (await mine).json()["status"] == "queued"
        async with _client(server, token) as device:
            own = [device.get(f"{url}?wait=1.5") for _ in range(3)]
            statuses = sorted(answer.status_code for answer in await asyncio.gather(*own))
        assert statuses == [200, 503, 503]
        for poll in polls:
            poll.cancel()
        await asyncio.gather(*polls, return_exceptions=True)
