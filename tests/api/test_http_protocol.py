"""Connections and requests as no HTTP client sends them, at a running API."""

import asyncio
import collections
import io
import itertools
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import orjson
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text

from tests.api.calls import events
from tests.api.serving import ApiServer, answer_on
from tests.factories import resource
from uplift.ledger.database import Database
from uplift.settings import Settings

_IDLE_SECONDS = 1.5
_HEAD_SECONDS = 1.0
_CONNECTIONS = 12
_UPGRADES = [
    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
    "Connection: upgrade\r\nUpgrade: websocket",
    "Upgrade: h2c\r\nConnection: keep-alive\r\nConnection: Upgrade",
    "connection:Upgrade\r\nupgrade:TLS/1.2, h2c",
]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "api_idle_seconds": _IDLE_SECONDS,
            "api_head_seconds": _HEAD_SECONDS,
            "api_max_connections": _CONNECTIONS,
        }
    )


def _request(
    method: str, path: str, *lines: str, key: str = "", body: bytes = b"", version: str = "1.1"
) -> bytes:
    head = [f"{method} {path} HTTP/{version}", "Host: uplift", *lines]
    if key:
        head += [f"Authorization: Bearer {key}", "Content-Type: application/fhir+json"]
    if body:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode("latin-1")


def _answers(connection: socket.socket) -> Iterator[tuple[int, dict[str, str], bytes]]:
    """The answers on a connection, also those that arrive together."""
    received = b""
    while True:
        while b"\r\n\r\n" not in received:
            chunk = connection.recv(65536)
            if not chunk:
                return
            received += chunk
        head, _, received = received.partition(b"\r\n\r\n")
        first, *lines = head.decode().lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        size = int(headers["content-length"])
        while len(received) < size:
            received += connection.recv(65536)
        yield int(first.split(" ")[1]), headers, received[:size]
        received = received[size:]


@contextmanager
def _held(server: ApiServer, count: int) -> Iterator[list[socket.socket]]:
    """So many connections, open to the end of the block."""
    with ExitStack() as stack:
        yield [stack.enter_context(server.connect()) for _ in range(count)]


def _check_responds(server: ApiServer) -> None:
    """Somebody else gets an answer."""
    with server.connect() as honest:
        honest.sendall(_request("GET", "/healthz"))
        assert answer_on(honest)[0] == 200


def _is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def _problem(answer: tuple[int, dict[str, str], bytes], status: int) -> dict[str, Any]:
    assert answer[0] == status
    assert answer[1]["content-type"] == "application/problem+json"
    assert answer[1]["connection"] == "close"
    problem: dict[str, Any] = orjson.loads(answer[2])
    assert problem["status"] == status
    return problem


def test_a_body_is_read_although_the_head_asks_for_another_protocol(
    server: ApiServer, key: str
) -> None:
    body = orjson.dumps(resource())
    path = "/v1/uploads?user=alice&fhirVersion=R4"
    for upgrade in _UPGRADES:
        head = _request("POST", path, upgrade, key=key, body=body)
        with server.connect() as connection:
            for _ in range(2):  # and the connection goes on
                connection.sendall(head + body)
                assert answer_on(connection)[0] == 202, upgrade


@pytest.mark.parametrize("method", ["POST", "GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
async def test_a_body_never_becomes_a_second_request(
    server: ApiServer, key: str, database: Database, method: str
) -> None:
    erasing = _request("DELETE", "/v1/users/alice", key=key)
    for upgrade in (*_UPGRADES, "X-Nothing: special"):
        with server.connect() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(_request(method, "/healthz", upgrade, body=erasing))
            await asyncio.sleep(0.02)
            connection.sendall(erasing)  # the body, in a segment of its own
            connection.sendall(_request("GET", "/healthz", "Connection: close"))
            answers = list(_answers(connection))
        assert len(answers) == 2, upgrade
        assert answers[1][0] == 200
        async with database.transaction() as ledger:
            left = "SELECT count(*) FROM users WHERE erased_at IS NULL"
            assert await ledger.scalar(text(left)) == 1, upgrade


def test_every_request_on_a_connection_is_checked(server: ApiServer) -> None:
    good = _request("GET", "/healthz")
    with server.connect() as connection:
        connection.sendall(good + good + b"GET /healthz HTTP/1.1\r\n\r\n" + good)
        answers = list(_answers(connection))
    assert [each[0] for each in answers] == [200, 200, 400]


def test_pipelined_requests_are_answered_in_order(server: ApiServer, key: str) -> None:
    body = orjson.dumps(resource())
    upload = _request("POST", "/v1/uploads?user=alice&fhirVersion=R4", key=key, body=body) + body
    with server.connect() as connection:
        connection.sendall(
            upload + _request("GET", "/healthz") + upload + _request("GET", "/v1/nothing")
        )
        answers = _answers(connection)
        assert [next(answers)[0] for _ in range(4)] == [202, 200, 202, 404]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (_request("POST", "/v1/uploads", "Transfer-Encoding: gzip, chunked"), 501),
        (_request("POST", "/v1/uploads", "Transfer-Encoding: chunked", "Content-Length: 3"), 400),
        (_request("CONNECT", "/healthz"), 501),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (_request("GET", "/healthz", "X-Long: " + "v" * 70_000), 431),
        (_request("GET", "/healthz", *("X-Name: value" for _ in range(5_000))), 431),
    ],
    ids=lambda each: repr(each)[:50],
)
def test_a_head_that_is_refused_gets_a_problem_and_the_end(
    server: ApiServer, head: bytes, status: int
) -> None:
    with server.connect() as connection:
        connection.sendall(head)
        _problem(answer_on(connection), status)
        assert _is_closed(connection)


def test_a_head_request_that_is_refused_gets_no_body(server: ApiServer, key: str) -> None:
    chunked = _request("HEAD", "/healthz", "Transfer-Encoding: chunked")
    for sent in (b"HEAD /healthz HTTP/1.1\r\n\r\n", chunked + b"none\r\n"):
        with server.connect() as connection:
            connection.sendall(sent)
            received = b"".join(iter(lambda: connection.recv(65536), b""))
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert not body


def test_a_body_that_turns_out_wrong_after_the_answer_gets_no_second_answer(
    server: ApiServer,
) -> None:
    with server.connect() as connection:
        connection.sendall(_request("POST", "/v1/nothing", "Transfer-Encoding: chunked"))
        assert answer_on(connection)[0] == 404
        connection.sendall(b"none\r\n")
        assert _is_closed(connection)


def test_a_refused_connection_is_counted_and_logged_with_its_peer(
    server: ApiServer, log: io.StringIO
) -> None:
    def counted() -> float:
        labels = {"why": "host"}
        return REGISTRY.get_sample_value("uplift_connection_refusals_total", labels) or 0.0

    before = counted()
    with server.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        _problem(answer_on(connection), 400)
    assert counted() == before + 1
    [line] = [each for each in events(log) if each["event"] == "connection_refused"]
    assert (line["why"], line["peer"]) == ("host", "127.0.0.1")


def test_chunks_that_are_none_are_refused(server: ApiServer, key: str) -> None:
    with server.connect() as connection:
        path = "/v1/uploads?user=alice&fhirVersion=R4"
        connection.sendall(_request("POST", path, "Transfer-Encoding: chunked", key=key))
        connection.sendall(b"5\r\nhelloXX\r\n0\r\n\r\n")
        _problem(answer_on(connection), 400)
        assert _is_closed(connection)


def test_an_endless_header_takes_no_memory_and_no_time(server: ApiServer) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: uplift\r\nX-Endless: ")
        endless = itertools.repeat(b"v" * 1024)
        with pytest.raises(ConnectionError):
            collections.deque(map(connection.sendall, endless), maxlen=0)


def test_http_1_0_needs_no_host(server: ApiServer) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert answer_on(connection)[0] == 200
        assert _is_closed(connection)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json", "/v1/nothing"])
def test_head_is_get_without_a_body(server: ApiServer, path: str) -> None:
    with server.connect() as connection:
        connection.sendall(_request("GET", path))
        status, headers, _ = answer_on(connection)
        connection.sendall(_request("HEAD", path) + _request("GET", "/healthz"))
        received = b""
        while b'"alive"' not in received:
            received += connection.recv(65536)
    first, _, second = received.partition(b"\r\n\r\n")
    assert first.startswith(f"HTTP/1.1 {status} ".encode())
    assert f"content-length: {headers['content-length']}".encode() in first.lower()
    assert second.startswith(b"HTTP/1.1 200")


def test_a_half_sent_head_ends_after_its_time(server: ApiServer) -> None:
    with server.connect() as connection:
        started = time.monotonic()
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: uplift\r\n")
        for _ in range(3):  # what comes slowly does not buy time
            time.sleep(_HEAD_SECONDS / 4)
            connection.sendall(b"X: 1\r\n")
        _problem(answer_on(connection), 408)
        assert _is_closed(connection)
    assert time.monotonic() - started >= _HEAD_SECONDS * 0.9


def test_an_idle_connection_is_kept_for_longer_than_proxies_keep_it() -> None:
    assert Settings().api_idle_seconds >= 75  # nginx and most load balancers: 60


def test_an_idle_connection_is_kept_for_its_time_and_then_closed(server: ApiServer) -> None:
    with server.connect() as connection, server.connect() as silent:
        for _ in range(2):
            connection.sendall(_request("GET", "/healthz"))
            assert answer_on(connection)[0] == 200
            time.sleep(_IDLE_SECONDS * 0.6)
        started = time.monotonic()
        assert _is_closed(connection)
        assert time.monotonic() - started < _IDLE_SECONDS * 2
        assert _is_closed(silent)


def test_half_sent_heads_do_not_keep_others_out(server: ApiServer) -> None:
    """The longest idle connection is closed first, then the oldest with half a head."""
    with _held(server, _CONNECTIONS * 3) as held:
        for each in held:
            with suppress(ConnectionError):
                each.sendall(b"GET /healthz HTTP/1.1\r\n")
        _check_responds(server)


@pytest.mark.parametrize(
    "sent", [b"\r\n", _request("GET", "/healthz") + b"\r\n"], ids=["first", "after a request"]
)
def test_an_empty_line_does_not_keep_a_connection(server: ApiServer, sent: bytes) -> None:
    with server.connect() as connection:
        connection.settimeout(_IDLE_SECONDS * 3)
        connection.sendall(sent)
        while connection.recv(65536):
            pass


@pytest.mark.parametrize(
    "sent",
    [
        _request("GET", "/healthz") + b"GET / HT",
        _request("GET", "/healthz") + b"\r\n",
        _request("POST", "/v1/uploads", "Content-Length: 9"),
        _request("GET", "/docs/swagger-ui-bundle.js") * 20,
    ],
    ids=["half a head", "an empty line", "a body not sent", "answers not read"],
)
def test_connections_that_wait_for_their_peer_do_not_keep_others_out(
    server: ApiServer, sent: bytes
) -> None:
    with _held(server, _CONNECTIONS) as held:
        for each in held:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # little is on its way
            each.sendall(sent)
        time.sleep(1)
        _check_responds(server)


def test_bodies_that_stand_still_do_not_keep_others_out(server: ApiServer, key: str) -> None:
    head = _request("POST", "/v1/uploads", "Content-Length: 100", key=key)
    with _held(server, _CONNECTIONS * 2) as held:
        for each in held:
            with suppress(ConnectionError):
                each.sendall(head + b"{")
        time.sleep(1)
        for _ in range(3):
            _check_responds(server)


def test_queues_of_wrong_credentials_do_not_keep_others_out(server: ApiServer) -> None:
    wrong = _request("GET", "/v1/uploads", key="wrong") * 50
    with _held(server, _CONNECTIONS) as held:
        for each in held:
            each.sendall(wrong)
        began = time.monotonic()
        _check_responds(server)
        assert time.monotonic() - began < 5


def test_an_answer_that_is_not_read_ends_with_its_connection(server: ApiServer) -> None:
    with server.connect() as connection:
        connection.sendall(_request("GET", "/docs/swagger-ui-bundle.js") * 20)
        time.sleep(_IDLE_SECONDS * 2.5)
        answers = 0
        while part := connection.recv(65536):
            answers += part.count(b"HTTP/1.1 200")
        assert answers < 20


def test_nothing_follows_an_answer_to_a_caller_that_asked_before_its_body(
    server: ApiServer, key: str
) -> None:
    """It may send its body or not: the next head must not be taken for it, nor the other way."""
    body = orjson.dumps(resource())
    with server.connect() as connection:
        connection.sendall(_request("POST", "/v1/uploads", "Expect: 100-continue", body=body))
        status, headers, _ = answer_on(connection)
        assert (status, headers["connection"]) == (401, "close")
        assert _is_closed(connection)
    head = _request(
        "POST", "/v1/uploads?user=alice&fhirVersion=R4", "Expect: 100-continue", key=key, body=body
    )
    with server.connect() as connection:
        connection.sendall(head)
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        assert answer_on(connection)[0] == 202
        assert _is_closed(connection)


def test_a_second_empty_line_before_a_head_is_refused(server: ApiServer) -> None:
    with server.connect() as connection:
        for _ in range(2):
            connection.sendall(b"\r\n" + _request("GET", "/healthz"))
            assert answer_on(connection)[0] == 200
        connection.sendall(b"\r\n")
        time.sleep(0.05)
        connection.sendall(b"\r\n")
        _problem(answer_on(connection), 400)


def test_a_body_that_nobody_reads_does_not_hold_the_connection_or_lose_the_answer(
    server: ApiServer,
) -> None:
    body = b"x" * 200_000
    with server.connect() as connection:
        connection.sendall(_request("POST", "/v1/uploads", body=body) + body)
        assert answer_on(connection)[0] == 401
        connection.sendall(_request("GET", "/healthz"))
        assert answer_on(connection)[0] == 200
