"""Uploads on a real socket: wrong lengths, slow and endless bodies, and senders that go away."""

import collections
import gzip
import itertools
import socket
import zlib
from collections.abc import Iterator
from contextlib import suppress

import httpx
import orjson
import pytest
from sqlalchemy import text

from tests.api.calls import assert_problem, bearer
from tests.api.serving import ApiServer, answer_on
from tests.factories import resource
from uplift.ledger.database import Database
from uplift.settings import Settings

_CAP = 100_000
_PATH = "/v1/uploads?user=alice&fhirVersion=R4"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_body_bytes": _CAP})


async def _count(database: Database) -> int:
    async with database.transaction() as connection:
        return int(await connection.scalar(text("SELECT count(*) FROM uploads")) or 0)


def _head(key: str, *lines: str, path: str = _PATH, method: str = "POST") -> bytes:
    return "\r\n".join(
        [
            f"{method} {path} HTTP/1.1",
            "Host: uplift",
            f"Authorization: Bearer {key}",
            "Content-Type: application/fhir+json",
            *lines,
            "",
            "",
        ]
    ).encode("latin-1")


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _of_size(size: int) -> bytes:
    body = orjson.dumps(resource(note=[{"text": ""}]))
    return body.replace(b'"text":""', b'"text":"' + b"x" * (size - len(body)) + b'"')


def _answer(connection: socket.socket) -> httpx.Response:
    status, headers, body = answer_on(connection)
    return httpx.Response(status, headers=headers, content=body)


async def test_a_body_of_exactly_the_limit_is_accepted_and_one_byte_more_is_not(
    server: ApiServer, key: str, database: Database
) -> None:
    async with httpx.AsyncClient(
        base_url=server.url, headers={**bearer(key), "Content-Type": "application/json"}
    ) as client:
        assert (await client.post(_PATH, content=_of_size(_CAP))).status_code == 202
        response = await client.post(_PATH, content=_of_size(_CAP + 1))
        assert str(_CAP) in assert_problem(response, 413)["detail"]
    assert await _count(database) == 1


@pytest.mark.parametrize("length", [str(_CAP + 1), "9" * 18, "0" * 30 + "9" * 12])
async def test_a_body_announced_as_too_large_is_refused_before_it_is_sent(
    server: ApiServer, key: str, length: str
) -> None:
    with server.connect() as connection:
        connection.sendall(_head(key, f"Content-Length: {length}"))
        response = _answer(connection)
    assert_problem(response, 413)
    assert response.headers["connection"] == "close"


async def test_a_chunked_body_is_refused_when_it_passes_the_limit(
    server: ApiServer, key: str, database: Database
) -> None:
    """No length is announced, and the body never ends: an API that reads it all never answers."""
    with server.connect() as connection:
        connection.sendall(_head(key, "Transfer-Encoding: chunked"))
        for _ in range(_CAP // 10_000 + 1):
            connection.sendall(_chunk(b" " * 10_000))
        response = _answer(connection)
    assert_problem(response, 413)
    assert await _count(database) == 0


async def test_a_body_that_never_ends_is_cut_off(server: ApiServer, key: str) -> None:
    with server.connect() as connection:
        connection.sendall(_head(key, "Transfer-Encoding: chunked"))
        endless = itertools.repeat(_chunk(b" " * 65_536))
        with pytest.raises(ConnectionError):  # the server closes the connection
            collections.deque(map(connection.sendall, endless), maxlen=0)


async def test_a_chunked_body_below_the_limit_is_accepted(
    server: ApiServer, key: str, database: Database
) -> None:
    body = orjson.dumps(resource())
    with server.connect() as connection:
        connection.sendall(_head(key, "Transfer-Encoding: chunked"))
        for start in range(0, len(body), 7):
            connection.sendall(_chunk(body[start : start + 7]))
        connection.sendall(b"0\r\n\r\n")
        assert _answer(connection).status_code == 202
    assert await _count(database) == 1


async def test_a_slow_body_does_not_delay_other_requests(server: ApiServer, key: str) -> None:
    body = orjson.dumps(resource())
    with server.connect() as slow:
        slow.sendall(_head(key, f"Content-Length: {len(body)}"))
        for byte in range(0, len(body), 40):
            slow.sendall(body[byte : byte + 40])
            async with httpx.AsyncClient(base_url=server.url) as other:
                assert (await other.get("/healthz")).status_code == 200
        assert _answer(slow).status_code == 202


async def test_only_the_announced_length_is_read(
    server: ApiServer, key: str, database: Database
) -> None:
    body = orjson.dumps(resource())
    with server.connect() as connection:
        connection.sendall(_head(key, f"Content-Length: {len(body) - 1}") + body)
        assert answer_on(connection)[0] == 400  # the rest is not HTTP, and uvicorn may say so first
    assert await _count(database) == 0


@pytest.mark.parametrize("framing", ["Content-Length: 5000", "Transfer-Encoding: chunked"])
async def test_a_sender_that_goes_away_leaves_no_upload_and_no_error(
    server: ApiServer,
    key: str,
    database: Database,
    framing: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    body = orjson.dumps(resource())
    with server.connect() as connection:
        connection.sendall(_head(key, framing))
        connection.sendall(_chunk(body) if "chunked" in framing else body)
    # The loop has handled the end of the first connection when it answers this one.
    with server.connect() as connection:
        connection.sendall(_head(key, "Content-Length: 2") + b"{}")
        assert_problem(_answer(connection), 400)
    assert await _count(database) == 0
    assert "error" not in capfd.readouterr().err


async def test_another_content_encoding_than_one_gzip_is_refused_in_whatever_form_it_is_named(
    server: ApiServer, key: str, database: Database
) -> None:
    body = orjson.dumps(resource())
    with server.connect() as connection:
        for encodings in (
            *(["gzip, gzip"], ["gzip", "GZIP"], ["deflate"], ["br"], ["x"]),
            *(["identity, deflate"], ["identity", "zstd"]),
        ):
            lines = [f"Content-Encoding: {each}" for each in encodings]
            connection.sendall(_head(key, f"Content-Length: {len(body)}", *lines) + body)
            response = _answer(connection)
            assert_problem(response, 415)
            assert response.headers["accept-encoding"] == "gzip"  # RFC 9110, 15.5.16
    assert await _count(database) == 0


async def test_a_body_may_be_gzip(server: ApiServer, key: str, database: Database) -> None:
    bodies = [gzip.compress(orjson.dumps(resource(id=f"o{number}"))) for number in range(4)]
    bodies[1] += gzip.compress(b"\n")  # a second member
    with server.connect() as connection:
        for coding, body in zip(("gzip", "GZip", "identity, gzip", "x-gzip"), bodies, strict=True):
            connection.sendall(
                _head(key, f"Content-Length: {len(body)}", f"Content-Encoding: {coding}") + body
            )
            assert _answer(connection).status_code == 202
    assert await _count(database) == 4


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        gzip.compress(b"{}" * 1000)[:-9],
        gzip.compress(b"{}") + b"rest",
        zlib.compress(b"{}"),
        b"\x1f\x8b",
    ],
    ids=["plain", "cut", "more after the end", "zlib", "only the magic number"],
)
async def test_what_is_not_gzip_is_a_400_that_says_so(
    server: ApiServer, key: str, database: Database, body: bytes
) -> None:
    with server.connect() as connection:
        connection.sendall(
            _head(key, f"Content-Length: {len(body)}", "Content-Encoding: gzip") + body
        )
        assert assert_problem(_answer(connection), 400)["code"] == "not_gzip"
    assert await _count(database) == 0


@pytest.mark.parametrize(
    "body",
    [b"", gzip.compress(b""), gzip.compress(b" \n")],
    ids=["nothing", "nothing in gzip", "space in gzip"],
)
@pytest.mark.parametrize("path", [_PATH, "/v1/batches?user=alice&fhirVersion=R4"])
async def test_an_empty_body_is_called_empty(
    server: ApiServer, key: str, body: bytes, path: str
) -> None:
    with server.connect() as connection:
        head = _head(key, f"Content-Length: {len(body)}", "Content-Encoding: gzip", path=path)
        connection.sendall(head + body)
        problem = assert_problem(_answer(connection), 400)
    assert problem["code"] == "not_json"
    assert "empty" in problem["detail"]


async def test_what_unpacks_to_more_than_the_limit_is_refused_before_it_is_there(
    server: ApiServer, key: str
) -> None:
    bomb = gzip.compress(bytes(64 * 1024 * 1024), 1)
    with server.connect() as connection:
        connection.sendall(
            _head(key, f"Content-Length: {len(bomb)}", "Content-Encoding: gzip") + bomb[:100_000]
        )
        assert_problem(_answer(connection), 413)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"\x1f\x8b\x08\x08" + bytes(6) + b"name" * 3_000_000, 413),
        (b"\x1f\x8b\x08" + bytes(7) + b"\x00\x00\x00\xff\xff" * 2_000_000, 413),
        (gzip.compress(b"") * 200 + gzip.compress(b"{}"), 400),
    ],
    ids=["a name without end", "empty blocks", "many members"],
)
async def test_gzip_that_unpacks_to_nothing_ends_as_well(
    server: ApiServer, key: str, body: bytes, status: int
) -> None:
    with server.connect() as connection:
        head = _head(key, "Transfer-Encoding: chunked", "Content-Encoding: gzip")
        with suppress(ConnectionError):  # the answer comes before the end
            connection.sendall(head + _chunk(body))
        assert_problem(_answer(connection), status)


async def test_identity_is_not_an_encoding(server: ApiServer, key: str) -> None:
    body = orjson.dumps(resource())
    with server.connect() as connection:
        connection.sendall(
            _head(key, f"Content-Length: {len(body)}", "Content-Encoding: Identity") + body
        )
        assert _answer(connection).status_code == 202


async def test_another_content_type_is_a_415_that_names_the_accepted_ones(
    server: ApiServer, key: str
) -> None:
    async with httpx.AsyncClient(base_url=server.url, headers=bearer(key)) as client:
        for content_type in ("text/plain", "application/xml", "multipart/json", ""):
            response = await client.post(
                _PATH, content=orjson.dumps(resource()), headers={"Content-Type": content_type}
            )
            assert_problem(response, 415)
            assert "application/fhir+json" in response.headers["accept"]


async def test_a_connection_still_works_after_a_refusal_with_an_unread_body(
    server: ApiServer, key: str
) -> None:
    body = orjson.dumps(resource())
    with server.connect() as connection:
        for secret, status in (("wrong", 401), (key, 202), ("wrong", 401), (key, 202)):
            connection.sendall(_head(secret, f"Content-Length: {len(body)}") + body)
            assert _answer(connection).status_code == status


_HOSTILE_TARGETS = [
    "/v1/uploads/%00",
    "/v1/users/%",
    "/v1/users/%zz",
    "/v1/users/%FF%FE",
    "/v1/users/..%2F..%2Fetc",
    "/v1/uploads?user=%",
    "/v1/uploads?user=%00&&&==",
    "/v1/uploads?" + "status=queued&" * 3000,
    "/" + "x" * 50_000,
    "//",
    "/v1/uploads#x",
    "http://elsewhere/v1/uploads/x",
    "*",
]


async def test_hostile_request_targets_never_make_the_api_fail(server: ApiServer, key: str) -> None:
    for target in _HOSTILE_TARGETS:
        with server.connect() as connection:
            connection.sendall(_head(key, path=target, method="GET"))
            status, headers, _ = answer_on(connection)
        assert status < 500, target
        if status >= 400 and headers["content-type"] != "text/plain; charset=utf-8":
            assert headers["content-type"] == "application/problem+json"


@pytest.fixture
def long_poll(server: ApiServer, key: str) -> Iterator[tuple[socket.socket, str]]:
    """A connection that waits for an upload to settle, and that upload's address."""
    body = orjson.dumps(resource())
    with server.connect() as connection:
        connection.sendall(_head(key, f"Content-Length: {len(body)}") + body)
        url = _answer(connection).headers["location"]
        connection.sendall(_head(key, path=f"{url}?wait=30", method="GET"))
        yield connection, url


async def test_a_long_poll_delays_nobody_and_ends_with_the_server(
    server: ApiServer, key: str, long_poll: tuple[socket.socket, str]
) -> None:
    connection, url = long_poll
    async with httpx.AsyncClient(base_url=server.url, headers=bearer(key)) as client:
        assert (await client.get(url)).json()["status"] == "queued"
    connection.setblocking(False)
    with pytest.raises(BlockingIOError):
        connection.recv(1)
