"""Batches over real sockets: broken and slow connections, and the memory of the process."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Iterator

import httpx
import orjson
import pytest
from uuid_utils.compat import uuid4

from tests.api.api_process import api_process, peak_of
from tests.api.calls import assert_problem, bearer
from tests.api.serving import ApiServer, answer_on
from tests.api.test_batches import NDJSON, envelope
from tests.factories import resource
from uplift.ledger.database import Database
from uplift.settings import Settings

_MIB = 1024 * 1024


@pytest.fixture
def idle() -> float:
    """For so many seconds a body may bring nothing."""
    return 20.0


@pytest.fixture
def settings(settings: Settings, idle: float) -> Settings:
    return settings.model_copy(
        update={
            "max_batch_lines": 500,
            "max_concurrent_batches": 2,
            "admission_wait_seconds": 0.5,
            "body_idle_seconds": idle,
        }
    )


def _head(key: str, batch_id: object, *lines: str, path: str = "/v1/batches") -> bytes:
    return "\r\n".join(
        [
            f"POST {path}?user=alice&batch={batch_id} HTTP/1.1",
            "Host: uplift",
            f"Authorization: Bearer {key}",
            f"Content-Type: {NDJSON}",
            *(lines or ["Transfer-Encoding: chunked"]),
            "",
            "",
        ]
    ).encode()


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _client(server: ApiServer, key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=server.url, headers={**bearer(key), "Content-Type": NDJSON}, timeout=60
    )


async def _begun(client: httpx.AsyncClient, batch_id: object) -> None:
    """Return when the API reads the lines of the batch."""
    async with asyncio.timeout(20):
        while (await client.get(f"/v1/batches/{batch_id}")).status_code != 200:
            pass
    # One more answer: the loop has gone on with the batch before it.
    await client.get("/healthz")


async def _closed(client: httpx.AsyncClient, batch_id: object) -> dict[str, object]:
    """The batch, when it is closed."""
    async with asyncio.timeout(20):
        while True:
            response = await client.get(f"/v1/batches/{batch_id}")
            if response.status_code == 200 and response.json()["closed"]:
                return dict(response.json())
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("reset", [True, False])
async def test_after_a_broken_connection_complete_lines_are_accepted_and_listed(
    server: ApiServer, key: str, *, reset: bool
) -> None:
    batch_id = uuid4()
    async with _client(server, key) as client:
        with server.connect() as connection:
            whole = b"".join(envelope(number) + b"\n" for number in range(120))
            connection.sendall(_head(key, batch_id) + _chunk(whole) + _chunk(envelope(120)[:-9]))
            await _begun(client, batch_id)
            if reset:
                linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        batch = await _closed(client, batch_id)
        assert (batch["broken"], batch["total"], batch["accepted"]) == (True, 120, 120)
        lines = (await client.get(f"/v1/batches/{batch_id}/lines?limit=1000")).json()["lines"]
        assert [line["line"] for line in lines] == list(range(1, 121))
        # Sent again, nothing is stored twice, and the line that was cut becomes a new upload.
        body = whole + envelope(120)
        again = (await client.post("/v1/batches?user=alice", content=body)).json()
        assert (again["accepted"], again["duplicates"], again["broken"]) == (1, 120, False)


@pytest.mark.parametrize("idle", [1.0])
async def test_a_batch_that_stalls_ends_with_a_problem_that_says_where_its_lines_are(
    server: ApiServer, key: str
) -> None:
    batch_id = uuid4()
    with server.connect() as connection:
        connection.sendall(_head(key, batch_id) + _chunk(envelope(1) + b"\n" + envelope(2)))
        status, headers, body = await asyncio.to_thread(answer_on, connection)
    problem = assert_problem(httpx.Response(status, headers=headers, content=body), 408)
    assert f"/v1/batches/{batch_id}/lines" in problem["detail"]
    async with _client(server, key) as client:
        batch = await _closed(client, batch_id)
    assert (batch["broken"], batch["accepted"]) == (True, 1)


@pytest.mark.parametrize("idle", [1.0])
async def test_an_upload_that_stalls_is_a_408(server: ApiServer, key: str) -> None:
    with server.connect() as connection:
        head = _head(key, uuid4(), "Content-Length: 100", path="/v1/uploads")
        head = re.sub(rb"&batch=\S+", b"", head.replace(NDJSON.encode(), b"application/json"))
        connection.sendall(head + b"{")
        status, headers, body = await asyncio.to_thread(answer_on, connection)
    assert_problem(httpx.Response(status, headers=headers, content=body), 408)
    assert headers["connection"] == "close"


async def test_lines_over_the_limit_are_skipped_and_the_connection_goes_on(
    server: ApiServer, key: str
) -> None:
    async with _client(server, key) as client:
        body = b"".join(envelope(number) + b"\n" for number in range(5000))
        batch = (await client.post("/v1/batches?user=alice", content=body)).json()
        assert (batch["accepted"], batch["problems"], batch["broken"]) == (500, 1, True)
        assert (await client.get(batch["statusUrl"])).status_code == 200


async def test_batches_over_the_limit_wait_and_then_hear_when_to_come_back(
    server: ApiServer, key: str
) -> None:
    with server.connect() as one, server.connect() as two:
        async with _client(server, key) as client:
            for connection in (one, two):
                batch_id = uuid4()
                connection.sendall(_head(key, batch_id) + _chunk(envelope(1) + b"\n"))
                await _begun(client, batch_id)
            refused = await client.post("/v1/batches?user=alice", content=envelope(2))
            assert_problem(refused, 503)
            assert int(refused.headers["Retry-After"]) > 0
            single = await client.post(
                "/v1/uploads?user=alice",
                content=envelope(3),
                headers={"Content-Type": "application/json"},
            )
            assert single.status_code == 202
            one.sendall(b"0\r\n\r\n")
            status, _, _ = await asyncio.to_thread(answer_on, one)
            assert status == 202
            assert (
                await client.post("/v1/batches?user=alice", content=envelope(2))
            ).status_code == 202


def _lines(count: int, offset: int = 0) -> Iterator[bytes]:
    for number in range(offset, offset + count):
        text = f"{number:08}" * 200
        yield envelope(number, resource=resource(id=f"{number}", note=[{"text": text}])) + b"\n"


async def _stream(lines: Iterator[bytes]) -> AsyncIterator[bytes]:
    for line in lines:
        yield line


async def test_thousands_of_lines_in_one_request_leave_the_process_small(
    database: Database, settings: Settings, key: str
) -> None:
    count = 8_000
    async with (
        api_process(settings) as (process, url),
        httpx.AsyncClient(base_url=url, headers=bearer(key), timeout=300) as client,
    ):
        headers = {"Content-Type": NDJSON}
        path = "/v1/batches?user=alice"
        # The memory that the process keeps from its first work does not count.
        await client.post(path, content=_stream(_lines(500, count)), headers=headers)
        async with (
            peak_of(process) as peak,
            client.stream(
                "POST", path, content=_stream(_lines(count)), headers=headers
            ) as response,
        ):
            assert response.status_code == 202
            text = b"".join([chunk async for chunk in response.aiter_bytes()])
        batch = orjson.loads(text)
        assert (batch["accepted"], len(batch["lines"])) == (count, count)
        assert [line["line"] for line in batch["lines"]] == list(range(1, count + 1))
        # The body alone has 14 MiB, and several times as much when it is parsed.
        assert peak.growth < 14 * _MIB
