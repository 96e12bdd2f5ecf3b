"""What crosses the socket: how often, how complete, and what is proven when it breaks."""

import asyncio
import contextlib
import gzip
import itertools
import socket
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import aiohttp
import httpx
import orjson
import pytest

from tests.uplift.destinations.known import hapi, oneup
from tests.uplift.destinations.remote import Answering, Connection, Remote, serve
from uplift.destinations.client import FhirClient
from uplift.destinations.http_client import open_http
from uplift.destinations.receipts import Receipt
from uplift.destinations.requests import Create, Put, Update, Upsert, Write
from uplift.destinations.responses import Response, ResponseKind
from uplift.errors import ConfigurationError
from uplift.fhir.versions import FhirVersion
from uplift.settings import Settings

Kind = Literal["create", "update", "put", "upsert", "look_up"]
KINDS: tuple[Kind, ...] = ("create", "update", "put", "upsert", "look_up")
WRITES: dict[Kind, Callable[[str], Write]] = {
    "create": lambda _: Create(),
    "update": Update,
    "put": Put,
    "upsert": Upsert,
}

# Spacing, number spelling and escapes that any re-writing would change.
BODY = b'{ "resourceType":"Observation",\n"id":"1","value": 72.50, "text":"\\u00fc \xc3\xbc" }'
TOKEN = "the-token"
STORED = b'{"resourceType":"Observation","id":"1","meta":{"versionId":"2"}}'


@asynccontextmanager
async def client(
    url: str, *, connections: int = 10, connect: float = 10.0, **settings: Any
) -> AsyncIterator[FhirClient]:
    """A client of that server, as the relay opens it."""
    http = open_http(connections=connections)
    http.timeout = httpx.Timeout(60.0, connect=connect)
    try:
        yield FhirClient(http, oneup(url), Settings(**settings))
    finally:
        await http.aclose()


async def ask(
    fhir: FhirClient,
    kind: Kind,
    *,
    within: float = 5.0,
    body: bytes = BODY,
    token: str = TOKEN,
    resource_id: str = "1",
) -> Response:
    """One request of that kind."""
    deadline = time.monotonic() + within
    if kind == "look_up":
        return await fhir.look_up(
            authorization=f"Bearer {token}",
            version=FhirVersion.R4,
            resource_type="Observation",
            resource_id=resource_id,
            deadline=deadline,
        )
    return await fhir.write(
        authorization=f"Bearer {token}",
        version=FhirVersion.R4,
        resource_type="Observation",
        write=WRITES[kind](resource_id),
        body=body,
        deadline=deadline,
    )


async def settled(remote: Remote) -> None:
    """Time for a second request to arrive, if there is one."""
    await asyncio.sleep(0.05)


async def store(connection: Connection) -> None:
    """Respond as a good server does, until the client closes the connection."""
    while True:
        await connection.read()
        await connection.response(body=STORED)


# --- how a request may break ---------------------------------------------------------------------


async def cut_before_reading(connection: Connection) -> None:
    connection.writer.close()


async def reset_before_reading(connection: Connection) -> None:
    connection.reset()


async def cut_within_head(connection: Connection) -> None:
    await connection.reader.readexactly(20)
    connection.writer.close()


async def cut_after_request(connection: Connection) -> None:
    await connection.read()


async def reset_after_request(connection: Connection) -> None:
    await connection.read()
    connection.reset()


async def half_a_status_line(connection: Connection) -> None:
    await connection.read()
    await connection.send(b"HTTP/1.1 20")


async def half_a_head(connection: Connection) -> None:
    await connection.read()
    await connection.send(b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\n")


async def half_a_body(connection: Connection) -> None:
    await connection.read()
    await connection.send(
        b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
        + STORED
    )


async def reset_in_the_body(connection: Connection) -> None:
    await half_a_body(connection)
    connection.reset()


async def half_a_chunk(connection: Connection) -> None:
    await connection.read()
    await connection.send(
        b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n3e8\r\n" + STORED
    )


async def a_wrong_chunk(connection: Connection) -> None:
    await connection.read()
    await connection.send(
        b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n"
    )


async def no_http(connection: Connection) -> None:
    await connection.read()
    await connection.send(b"220 mail.example.com ESMTP\r\n")


async def a_head_without_end(connection: Connection) -> None:
    await connection.read()
    await connection.send(b"HTTP/1.1 201 Created\r\nX-Long: " + b"a" * 100_000)


async def not_what_its_encoding_says(connection: Connection) -> None:
    await connection.read()
    await connection.response(201, STORED, {"Content-Encoding": "gzip"})


async def a_cut_gzip(connection: Connection) -> None:
    await connection.read()
    await connection.response(201, gzip.compress(STORED)[:-12], {"Content-Encoding": "gzip"})


async def stall(connection: Connection) -> None:
    await connection.read()
    await asyncio.sleep(60)


async def stall_in_the_body(connection: Connection) -> None:
    await half_a_body(connection)
    await asyncio.sleep(60)


async def trickle(connection: Connection) -> None:
    await half_a_body(connection)
    while True:
        await asyncio.sleep(0.01)
        await connection.send(b" ")


AFTER_THE_REQUEST = [
    (cut_after_request, "connection_lost"),
    (reset_after_request, "connection_lost"),
    (half_a_status_line, "connection_lost"),
    (half_a_head, "connection_lost"),
    (half_a_body, "connection_lost"),
    (reset_in_the_body, "connection_lost"),
    (half_a_chunk, "connection_lost"),
    (a_wrong_chunk, "connection_lost"),
    (no_http, "connection_lost"),
    (a_head_without_end, "connection_lost"),
    (not_what_its_encoding_says, "connection_lost"),
    (stall, "no_answer"),
    (stall_in_the_body, "no_answer"),
    (trickle, "no_answer"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("breaking", "code"), AFTER_THE_REQUEST, ids=[each.__name__ for each, _ in AFTER_THE_REQUEST]
)
async def test_a_request_that_arrived_is_unknown_and_never_repeated(
    kind: Kind, breaking: Answering, code: str
) -> None:
    async with serve(breaking) as remote, client(remote.url) as fhir:
        response = await ask(fhir, kind, within=0.2)
        await settled(remote)

    assert response == Response(ResponseKind.UNKNOWN, code)
    assert (len(remote.requests), remote.connections) == (1, 1)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "GET"])
@pytest.mark.parametrize("breaking", [each for each, _ in AFTER_THE_REQUEST])
async def test_no_method_is_repeated_by_the_libraries_below(
    method: str, breaking: Answering
) -> None:
    async with serve(breaking) as remote:
        http = open_http(connections=2)
        with contextlib.suppress(httpx.HTTPError, aiohttp.ClientError, TimeoutError):
            async with asyncio.timeout(0.2):
                await http.request(method, remote.url)
        await settled(remote)
        await http.aclose()

    assert (len(remote.requests), remote.connections) == (1, 1)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_response_that_does_not_unpack_completely_is_unknown(kind: Kind) -> None:
    async with serve(a_cut_gzip) as remote, client(remote.url) as fhir:
        response = await ask(fhir, kind)
        await settled(remote)

    assert response.kind is ResponseKind.UNKNOWN
    assert len(remote.requests) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "breaking",
    [cut_before_reading, reset_before_reading, cut_within_head],
    ids=lambda breaking: breaking.__name__,
)
async def test_a_connection_that_ends_before_the_request_is_read_is_not_tried_again(
    kind: Kind, breaking: Answering
) -> None:
    async with serve(breaking) as remote, client(remote.url) as fhir:
        response = await ask(fhir, kind)
        await settled(remote)

    # From here it looks the same as a cut after reading, once a byte of the body is on its way.
    assert response == Response(ResponseKind.UNKNOWN, "connection_lost")
    assert (len(remote.requests), remote.connections) == (0, 1)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cut_within_a_large_body_is_unknown(kind: Kind) -> None:
    async def cut_within_body(connection: Connection) -> None:
        await connection.reader.readexactly(1_000_000 if kind != "look_up" else 20)
        connection.reset()

    async with serve(cut_within_body) as remote, client(remote.url) as fhir:
        response = await ask(fhir, kind, body=b" " * 8_000_000)
        await settled(remote)

    assert response.kind is ResponseKind.UNKNOWN
    assert (len(remote.requests), remote.connections) == (0, 1)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refused_connection_is_proven_not_sent(kind: Kind, closed_port: int) -> None:
    async with client(f"http://127.0.0.1:{closed_port}") as fhir:
        assert await ask(fhir, kind) == Response(ResponseKind.NOT_SENT, "no_connection")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("host", ["a" * 64 + ".invalid", "user:password@127.0.0.1"])
async def test_nothing_is_sent_to_an_address_that_cannot_be_used(kind: Kind, host: str) -> None:
    async with client(f"http://{host}") as fhir:
        response = await ask(fhir, kind)

    # A look-up has nothing to prove: it sends nothing that can be stored.
    outcome = ResponseKind.UNKNOWN if kind == "look_up" else ResponseKind.NOT_SENT
    assert response == Response(outcome, "unusable_address")


@pytest.fixture
def full_backlog() -> Iterator[int]:
    """A port whose queue of connections is full, so that the kernel answers no more SYNs."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        probe = stack.enter_context(socket.socket())
        probe.settimeout(0.1)
        try:
            probe.connect(address)
        except TimeoutError:
            yield address[1]
        else:
            pytest.skip("another kernel: it takes connections beyond a listener's backlog")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_connect_time_out_is_proven_not_sent(kind: Kind, full_backlog: int) -> None:
    async with client(f"http://127.0.0.1:{full_backlog}", connect=0.15) as fhir:
        assert await ask(fhir, kind) == Response(ResponseKind.NOT_SENT, "no_connection")


@pytest.mark.parametrize("kind", WRITES)
async def test_a_deadline_while_connecting_is_proven_not_sent(
    kind: Kind, full_backlog: int
) -> None:
    async with client(f"http://127.0.0.1:{full_backlog}") as fhir:
        assert await ask(fhir, kind, within=0.15) == Response(ResponseKind.NOT_SENT, "no_answer")


@pytest.mark.parametrize("kind", WRITES)
async def test_a_deadline_while_all_connections_are_busy_is_proven_not_sent(kind: Kind) -> None:
    async with serve(stall) as remote, client(remote.url, connections=1) as fhir:
        first = asyncio.create_task(ask(fhir, kind, within=0.6))
        await asyncio.sleep(0.1)
        second = await ask(fhir, kind, within=0.2)

        assert second.kind is ResponseKind.NOT_SENT
        assert (await first).kind is ResponseKind.UNKNOWN
        await settled(remote)

    assert len(remote.requests) == 1


@pytest.mark.parametrize("within", [0.0, -1.0, -1000.0])
@pytest.mark.parametrize("kind", WRITES)
@pytest.mark.parametrize("warm", [False, True], ids=["new connection", "kept connection"])
async def test_after_the_deadline_not_a_byte_of_the_body_is_sent(
    kind: Kind, within: float, warm: bool
) -> None:
    received = bytearray()

    async def listen(connection: Connection) -> None:
        if warm:
            await connection.read()
            await connection.response(body=STORED)
        while data := await connection.reader.read(1000):
            received.extend(data)

    async with serve(listen) as remote, client(remote.url) as fhir:
        if warm:
            assert (await ask(fhir, kind)).kind is ResponseKind.STORED
        response = await ask(fhir, kind, within=within)
        await settled(remote)

    assert response.kind is ResponseKind.NOT_SENT
    assert b"Observation" not in received.partition(b"\r\n\r\n")[2]


async def test_a_process_that_was_frozen_while_connecting_sends_no_body() -> None:
    received = bytearray()

    async def listen(connection: Connection) -> None:
        # The whole process, as by SIGSTOP: connected, but past the deadline when it goes on.
        time.sleep(0.5)  # noqa: ASYNC251
        while data := await connection.reader.read(1000):
            received.extend(data)

    async with serve(listen) as remote, client(remote.url) as fhir:
        response = await ask(fhir, "create", within=0.3)
        await settled(remote)

    assert response.kind is ResponseKind.NOT_SENT
    assert b"Observation" not in received.partition(b"\r\n\r\n")[2]


async def test_the_deadline_bounds_the_wait_for_a_response() -> None:
    async with serve(stall) as remote, client(remote.url) as fhir:
        started = time.monotonic()
        response = await ask(fhir, "create", within=0.2)
        took = time.monotonic() - started

    assert response == Response(ResponseKind.UNKNOWN, "no_answer")
    assert took < 30  # the server would have stalled for 60


async def test_the_deadline_bounds_the_sending_of_a_body_that_nobody_reads() -> None:
    async def read_nothing(connection: Connection) -> None:
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(60)

    async with serve(read_nothing) as remote, client(remote.url) as fhir:
        response = await ask(fhir, "create", within=0.3, body=b" " * 50_000_000)

    assert response == Response(ResponseKind.UNKNOWN, "no_answer")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_connection_that_ended_while_idle_is_replaced(kind: Kind) -> None:
    async def once(connection: Connection) -> None:
        await connection.read()
        await connection.response(body=STORED)

    async with serve(once) as remote, client(remote.url) as fhir:
        first = await ask(fhir, kind)
        await asyncio.sleep(0.1)
        second = await ask(fhir, kind)
        await settled(remote)

    assert {first.kind, second.kind} <= {ResponseKind.STORED, ResponseKind.FOUND}
    assert (len(remote.requests), remote.connections) == (2, 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["cut", "reset"])
async def test_a_kept_connection_that_ends_as_it_is_used_is_unknown_and_not_replaced(
    kind: Kind, end: str
) -> None:
    """A server closes an idle connection while the next request is on its way to it."""

    async def answer_one_and_hear_another(connection: Connection) -> None:
        await connection.read()
        await connection.response(body=STORED)
        await connection.read()
        if end == "reset":
            connection.reset()

    async with serve(answer_one_and_hear_another) as remote, client(remote.url) as fhir:
        await ask(fhir, kind)
        second = await ask(fhir, kind)
        await settled(remote)

    assert second == Response(ResponseKind.UNKNOWN, "connection_lost")
    assert (len(remote.requests), remote.connections) == (2, 1)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_closes_each_connection_gets_each_request_once(kind: Kind) -> None:
    async def once(connection: Connection) -> None:
        await connection.read()
        await connection.response(body=STORED, headers={"Connection": "close"})

    async with serve(once) as remote, client(remote.url) as fhir:
        responses = [await ask(fhir, kind) for _ in range(20)]

    assert {response.kind for response in responses} <= {ResponseKind.STORED, ResponseKind.FOUND}
    assert len(remote.requests) == 20


async def test_a_cancelled_request_is_not_repeated() -> None:
    async with serve(stall) as remote, client(remote.url) as fhir:
        sending = asyncio.create_task(ask(fhir, "create"))
        await asyncio.sleep(0.1)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await settled(remote)

    assert (len(remote.requests), remote.connections) == (1, 1)


# --- what is sent --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("create", "POST /base/r4/Observation HTTP/1.1"),
        ("update", "POST /base/r4/Observation/1 HTTP/1.1"),
        ("put", "PUT /base/r4/Observation/1 HTTP/1.1"),
        (
            "upsert",
            "PUT /base/r4/Observation?identifier=urn:uplift:record%7C1 HTTP/1.1",
        ),
        ("look_up", "GET /base/r4/Observation/1 HTTP/1.1"),
    ],
)
async def test_requests_are_what_1uphealth_documents(kind: Kind, line: str) -> None:
    async with serve(store) as remote, client(f"{remote.url}/base/") as fhir:
        response = await ask(fhir, kind)

    (request,) = remote.requests
    assert request.line == line
    assert request.header("Authorization") == f"Bearer {TOKEN}"
    assert request.header("Accept") == "application/json"
    assert request.header("Transfer-Encoding") is None
    assert request.header("User-Agent") == "uplift"
    assert request.header("Host") == remote.url.removeprefix("http://")
    assert request.header("Prefer") is None
    assert response.receipt == Receipt("1", "2")


@pytest.mark.parametrize("asked", [Put("1", if_match="7"), Upsert("1", if_match="7")])
async def test_requests_to_other_servers_say_what_they_want(asked: Write) -> None:
    headers = {"X-Name": "value", "Accept": "text/html"}
    async with serve(store) as remote:
        http = open_http(connections=1)
        fhir = FhirClient(http, hapi(remote.url, tenant="clinic", headers=headers), Settings())
        await fhir.write(
            authorization="",
            version=FhirVersion.R4,
            resource_type="Observation",
            write=asked,
            body=BODY,
            deadline=time.monotonic() + 5,
        )
        await fhir.look_up(
            authorization="Basic abc",
            version=FhirVersion.R4,
            resource_type="Observation",
            resource_id="1",
            deadline=time.monotonic() + 5,
        )
        await http.aclose()

    write, read = remote.requests
    assert write.line.startswith("PUT /r4/clinic/Observation")
    assert write.header("If-Match") == 'W/"7"'
    assert write.header("Prefer") == "return=representation"
    assert write.header("Content-Type") == write.header("Accept") == "application/fhir+json"
    assert write.header("Authorization") is None
    assert write.header("X-Name") == read.header("X-Name") == "value"
    assert read.header("Cache-Control") == "no-cache"
    assert read.header("Authorization") == "Basic abc"
    assert read.header("Prefer") is None


@pytest.mark.parametrize("kind", WRITES)
@pytest.mark.parametrize(
    "body", [BODY, b"{}", bytes(range(256)) * 40_000], ids=["small", "smallest", "10 MB"]
)
async def test_a_body_arrives_byte_for_byte(kind: Kind, body: bytes) -> None:
    async with serve(store) as remote, client(remote.url) as fhir:
        await ask(fhir, kind, body=body)

    (request,) = remote.requests
    assert request.body == body
    assert request.header("Content-Length") == str(len(body))
    assert request.header("Content-Type") == "application/json"
    assert request.header("Content-Encoding") is None


async def test_a_look_up_has_no_body() -> None:
    async with serve(store) as remote, client(remote.url) as fhir:
        await ask(fhir, "look_up")

    (request,) = remote.requests
    assert request.header("Content-Length") is None
    assert request.header("Content-Type") is None


PATH_SEGMENTS = [
    ("Az-09.x", "Az-09.x"),
    ("a_b", "a_b"),
    ("x" * 200, "x" * 200),
    ("a/b", "a%2Fb"),
    ("../Patient/2", "..%2FPatient%2F2"),
    ("/", "%2F"),
    ("a%2Fb", "a%252Fb"),
    ("%2e%2e", "%252e%252e"),
    ("...", "..."),
    ("a b", "a%20b"),
    (" ", "%20"),
    ("a+b", "a%2Bb"),
    ("a?b=c", "a%3Fb=c"),
    ("a#b", "a%23b"),
    ("a\\b", "a%5Cb"),
    ("a\r\nX-Injected: 1", "a%0D%0AX-Injected:%201"),
    ("a\0b", "a%00b"),
    ("ü", "%C3%BC"),
    ("http://x/y", "http:%2F%2Fx%2Fy"),
    ("$everything", "$everything"),
    ("~;,:@&='()*!", "~;,:@&='()*!"),
]


@pytest.mark.parametrize("kind", ["look_up", "update"])
async def test_an_id_is_one_path_segment(kind: Kind) -> None:
    async with serve(store) as remote, client(remote.url) as fhir:
        for resource_id, _ in PATH_SEGMENTS:
            await ask(fhir, kind, resource_id=resource_id)

    arrived = [request.line.split(" ")[1] for request in remote.requests]
    assert arrived == [f"/r4/Observation/{segment}" for _, segment in PATH_SEGMENTS]
    assert all(request.header("X-Injected") is None for request in remote.requests)


@pytest.mark.parametrize(
    ("kind", "outcome"), [("look_up", ResponseKind.UNKNOWN), ("update", ResponseKind.HOLD)]
)
@pytest.mark.parametrize("resource_id", [".", ".."])
async def test_an_id_that_no_url_can_address_is_sent_nowhere(
    kind: Kind, outcome: ResponseKind, resource_id: str
) -> None:
    """FHIR allows `..` as an id; as a path it is the address of something else."""
    async with serve(store) as remote, client(remote.url) as fhir:
        response = await ask(fhir, kind, resource_id=resource_id)

    assert response == Response(outcome, "unaddressable_id")
    assert remote.connections == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("token", ["a\nb", "a\r\nX-Injected: 1", "é", "\0", "a\x7f"])
async def test_a_token_that_no_header_can_carry_counts_as_refused(kind: Kind, token: str) -> None:
    async with serve(store) as remote, client(remote.url) as fhir:
        response = await ask(fhir, kind, token=token)

    assert response == Response(ResponseKind.UNAUTHORIZED, "unusable_token")
    assert remote.connections == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_cookies_are_never_sent_back(kind: Kind) -> None:
    async def with_cookie(connection: Connection) -> None:
        while True:
            await connection.read()
            await connection.response(
                body=STORED, headers={"Set-Cookie": "session=canary; Path=/; Domain=127.0.0.1"}
            )

    async with serve(with_cookie) as remote, client(remote.url) as fhir:
        for _ in range(3):
            await ask(fhir, kind)

    assert [request.header("Cookie") for request in remote.requests] == [None] * 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_never_followed(kind: Kind, status: int) -> None:
    async with serve(store) as elsewhere:

        async def redirect(connection: Connection) -> None:
            await connection.read()
            await connection.response(status, headers={"Location": f"{elsewhere.url}/r4/login"})

        async with serve(redirect) as remote, client(remote.url) as fhir:
            response = await ask(fhir, kind)

    assert response.kind is (ResponseKind.UNKNOWN if kind == "look_up" else ResponseKind.HOLD)
    assert response.status_code == status
    assert (len(remote.requests), elsewhere.connections) == (1, 0)


@pytest.mark.parametrize("kind", KINDS)
async def test_proxies_from_the_environment_are_ignored(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(store) as proxy, serve(store) as remote:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
            monkeypatch.setenv(name.upper(), proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with client(remote.url) as fhir:
            await ask(fhir, kind)

    assert (len(remote.requests), proxy.connections) == (1, 0)


# --- what comes back -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["gzip", "chunked", "until the end"])
async def test_responses_are_read_in_every_form(kind: Kind, form: str) -> None:
    async def answer_so(connection: Connection) -> None:
        await connection.read()
        match form:
            case "gzip":
                await connection.response(
                    body=gzip.compress(STORED), headers={"Content-Encoding": "gzip"}
                )
            case "chunked":
                await connection.send(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                    b"Transfer-Encoding: chunked\r\n\r\n"
                    + b"".join(b"1\r\n%c\r\n" % byte for byte in STORED)
                    + b"0\r\n\r\n"
                )
            case _:
                await connection.send(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + STORED
                )

    async with serve(answer_so) as remote, client(remote.url) as fhir:
        response = await ask(fhir, kind)

    assert response.kind is (ResponseKind.FOUND if kind == "look_up" else ResponseKind.STORED)
    assert response.receipt == Receipt("1", "2")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip bomb"])
async def test_a_response_without_end_is_not_read_to_its_end(kind: Kind, packed: bool) -> None:
    sent = 0

    async def flood(connection: Connection) -> None:
        nonlocal sent
        await connection.read()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        if packed:
            bomb = gzip.compress(b" " * 50_000_000)
            await connection.send(head + b"Content-Encoding: gzip\r\n\r\n" + bomb)
            return
        await connection.send(head + b"\r\n")
        for _ in range(1000):
            await connection.send(b" " * 100_000)
            sent += 100_000

    async with serve(flood) as remote, client(remote.url, max_body_bytes=1000) as fhir:
        response = await ask(fhir, kind)
        await settled(remote)

    assert response == Response(ResponseKind.UNKNOWN, "response_too_large")
    assert sent < 50_000_000
    assert len(remote.requests) == 1


async def packed_thrice(connection: Connection) -> None:
    await connection.read()
    bomb = gzip.compress(gzip.compress(gzip.compress(b" " * 50_000_000)))
    await connection.response(201, bomb, {"Content-Encoding": "gzip, gzip, gzip"})


async def packed_in_two_headers(connection: Connection) -> None:
    await connection.read()
    body = gzip.compress(gzip.compress(STORED))
    head = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\n"
    head += b"Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n"
    await connection.send(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)


async def packed_otherwise(connection: Connection) -> None:
    await connection.read()
    await connection.response(201, zlib.compress(STORED), {"Content-Encoding": "deflate"})


async def more_than_the_packed(connection: Connection) -> None:
    await connection.read()
    await connection.send(
        b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\n"
        b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(STORED)
    )
    await asyncio.sleep(0.01)
    await connection.send(b"more")


async def a_large_head(connection: Connection) -> None:
    await connection.read()
    lines = {f"X-{number}": "a" * 1000 for number in range(70)}
    await connection.response(201, STORED, lines)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "packing",
    [packed_thrice, packed_in_two_headers, packed_otherwise, more_than_the_packed, a_large_head],
    ids=lambda packing: packing.__name__,
)
async def test_a_response_that_costs_too_much_to_read_is_unknown(
    kind: Kind, packing: Answering
) -> None:
    async with serve(packing) as remote, client(remote.url) as fhir:
        response = await ask(fhir, kind)
        await settled(remote)

    assert response == Response(ResponseKind.UNKNOWN, "connection_lost")
    assert len(remote.requests) == 1


async def test_a_coding_of_no_content_is_no_error() -> None:
    async def refuse(connection: Connection) -> None:
        await connection.read()
        await connection.response(401, b"", {"Content-Encoding": "gzip"})

    async with serve(refuse) as remote, client(remote.url) as fhir:
        response = await ask(fhir, "create")

    assert response.kind is ResponseKind.UNAUTHORIZED
    assert remote.requests[0].header("Accept-Encoding") == "gzip"


async def test_the_stored_resource_may_be_as_large_as_the_largest_upload() -> None:
    large = orjson.dumps({"resourceType": "Observation", "id": "1", "note": "x" * 1_000_000})

    async def echo(connection: Connection) -> None:
        request = await connection.read()
        await connection.response(201, request.body)

    async with serve(echo) as remote, client(remote.url, max_body_bytes=len(large)) as fhir:
        response = await ask(fhir, "create", body=large)

    assert response.kind is ResponseKind.STORED


@pytest.mark.parametrize("kind", WRITES)
async def test_a_response_before_the_body_was_read_counts(kind: Kind) -> None:
    async def too_large(connection: Connection) -> None:
        await connection.reader.readuntil(b"\r\n\r\n")
        await connection.response(413)
        await asyncio.sleep(60)

    async with serve(too_large) as remote, client(remote.url) as fhir:
        response = await ask(fhir, kind, body=b" " * 50_000_000)

    assert response == Response(ResponseKind.REFUSED, "http_413", 413)


async def test_an_interim_response_is_not_the_response() -> None:
    async def early_hints(connection: Connection) -> None:
        await connection.read()
        await connection.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n")
        await connection.response(body=STORED)

    async with serve(early_hints) as remote, client(remote.url) as fhir:
        assert (await ask(fhir, "create")).kind is ResponseKind.STORED


@pytest.mark.parametrize("retry_after", [None, "7"])
async def test_status_and_headers_reach_the_classification(retry_after: str | None) -> None:
    async def busy(connection: Connection) -> None:
        while True:
            await connection.read()
            headers = {"Retry-After": retry_after} if retry_after else None
            await connection.response(429, b'{"message":"Too Many Requests"}', headers)

    async with serve(busy) as remote, client(remote.url) as fhir:
        response = await ask(fhir, "create")

    seconds = float(retry_after) if retry_after else None
    assert response == Response(ResponseKind.BUSY, "http_429", 429, seconds)


async def test_only_for_an_update_a_404_is_an_absence() -> None:
    async def nothing_here(connection: Connection) -> None:
        while True:
            await connection.read()
            await connection.response(404, b'{"message":"Not Found"}')

    async with serve(nothing_here) as remote, client(remote.url) as fhir:
        outcomes = {kind: (await ask(fhir, kind)).kind for kind in KINDS}

    assert outcomes == {
        "create": ResponseKind.HOLD,
        "update": ResponseKind.ABSENT,
        "put": ResponseKind.HOLD,
        "upsert": ResponseKind.HOLD,
        "look_up": ResponseKind.ABSENT,
    }


# --- many at once --------------------------------------------------------------------------------


async def test_two_hundred_requests_are_in_flight_at_once() -> None:
    all_here = asyncio.Event()

    async def wait_for_all(connection: Connection) -> None:
        await connection.read()
        if len(connection.remote.requests) == 200:
            all_here.set()
        await all_here.wait()
        await connection.response(body=STORED)

    async with serve(wait_for_all) as remote, client(remote.url, connections=200) as fhir:
        bodies = [orjson.dumps({"resourceType": "Observation", "n": n}) for n in range(200)]
        responses = await asyncio.gather(
            *(ask(fhir, "create", body=body, within=20) for body in bodies)
        )

    assert {response.kind for response in responses} == {ResponseKind.STORED}
    assert sorted(request.body for request in remote.requests) == sorted(bodies)


async def test_each_response_belongs_to_its_request_among_many() -> None:
    """No response may reach another request: the record of one user would reach another user."""
    turns = itertools.cycle([0.0, 0.02, 0.005])

    async def echo_late(connection: Connection) -> None:
        while True:
            request = await connection.read()
            await asyncio.sleep(next(turns))
            if b'"cut"' in request.body:
                await connection.send(b"HTTP/1.1 201 Created\r\nContent-Length: 50\r\n\r\n{")
                return
            await connection.response(201, request.body)

    async with serve(echo_late) as remote, client(remote.url, connections=20) as fhir:
        names = [str(n) for n in range(300)]
        responses = await asyncio.gather(
            *(
                ask(
                    fhir,
                    "create",
                    body=orjson.dumps({"resourceType": "Observation", "id": name})
                    if int(name) % 7
                    else b'{"cut": 1}',
                    # Some give up while their answer is on its way.
                    within=0.3 if int(name) % 5 else 0.015,
                )
                for name in names
            )
        )

    stored = [
        (n, a) for n, a in zip(names, responses, strict=True) if a.kind is ResponseKind.STORED
    ]
    assert stored
    assert all(response.receipt == Receipt(name, None) for name, response in stored)
    assert len(remote.requests) <= 300


@pytest.mark.parametrize("url", ["", "api.1up.health", "ftp://api.1up.health"])
async def test_an_address_that_is_no_url_is_a_configuration_error(url: str) -> None:
    http = open_http(connections=1)
    try:
        with pytest.raises(ConfigurationError, match="UPLIFT_ONEUP_FHIR_URL"):
            FhirClient(http, oneup(bases={FhirVersion.R4: url}), Settings())
    finally:
        await http.aclose()
