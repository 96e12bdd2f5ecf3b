"""What a client sees on the wire, by plain sockets."""

import json
import socket
import time
from urllib.parse import urlsplit

import httpx
import pytest

from tests.uplift.sandbox.conftest import Client, observation
from uplift.sandbox.app import create_app
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.testing import SandboxServer


def connect(sandbox: SandboxServer) -> socket.socket:
    address = urlsplit(sandbox.url)
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=5)


def request(client: Client) -> bytes:
    body = json.dumps(observation()).encode()
    head = (
        "POST /r4/Observation HTTP/1.1\r\nHost: sandbox\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {client.grant['access_token']}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def server_tasks(sandbox: SandboxServer) -> int:
    return len(sandbox._server.server_state.tasks)


def until_server_tasks(sandbox: SandboxServer, count: int) -> None:
    deadline = time.monotonic() + 5
    while server_tasks(sandbox) != count and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server_tasks(sandbox) == count


def read_to_end(connection: socket.socket) -> bytes:
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


@pytest.mark.parametrize("commit", [False, True])
def test_a_cut_closes_without_a_byte(alice: Client, commit: bool) -> None:
    alice.sandbox.faults({"kind": "cut", "commit": commit})
    with connect(alice.sandbox) as connection:
        connection.sendall(request(alice))
        assert read_to_end(connection) == b""
    assert alice.sandbox.counts()["total"]["versions"] == int(commit)
    logged = alice.sandbox.requests()[-1]
    assert (logged["status"], logged["fault"]) == (None, "cut")


@pytest.mark.parametrize("commit", [False, True])
def test_a_reset_is_a_reset(alice: Client, commit: bool) -> None:
    alice.sandbox.faults({"kind": "reset", "commit": commit})
    with connect(alice.sandbox) as connection:
        connection.sendall(request(alice))
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert alice.sandbox.counts()["total"]["versions"] == int(commit)


@pytest.mark.parametrize("commit", [True, False])
def test_half_an_answer_promises_more_than_it_sends(alice: Client, commit: bool) -> None:
    alice.sandbox.faults({"kind": "half_answer", "commit": commit})
    with connect(alice.sandbox) as connection:
        connection.sendall(request(alice))
        head, _, body = read_to_end(connection).partition(b"\r\n\r\n")
    promised = next(
        int(line.partition(b":")[2])
        for line in head.splitlines()
        if line.lower().startswith(b"content-length")
    )
    assert head.startswith(b"HTTP/1.1 201" if commit else b"HTTP/1.1 200")
    assert 0 < len(body) < promised
    assert alice.sandbox.counts()["total"]["versions"] == int(commit)


@pytest.mark.parametrize("commit", [False, True])
def test_a_stall_says_nothing_and_ends(alice: Client, commit: bool) -> None:
    alice.sandbox.faults({"kind": "stall", "seconds": 0.5, "commit": commit})
    with connect(alice.sandbox) as connection:
        connection.sendall(request(alice))
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        assert alice.sandbox.counts()["total"]["versions"] == int(commit)
        connection.settimeout(5)
        assert read_to_end(connection) == b""


def test_a_stall_ends_when_the_client_gives_up(alice: Client) -> None:
    alice.sandbox.faults({"kind": "stall", "seconds": 60, "count": 1})
    with connect(alice.sandbox) as connection:
        connection.sendall(request(alice))
        while not alice.sandbox.requests(api="fhir"):
            time.sleep(0.01)
        # The answer to the log may come before its own task has ended.
        until_server_tasks(alice.sandbox, 1)
    until_server_tasks(alice.sandbox, 0)


def test_a_kept_connection_works_until_it_is_cut(alice: Client) -> None:
    alice.sandbox.faults({"kind": "cut", "skip": 1})
    with connect(alice.sandbox) as connection:
        connection.sendall(request(alice))
        assert connection.recv(65536).startswith(b"HTTP/1.1 201")
        connection.sendall(request(alice))
        assert read_to_end(connection) == b""


def test_a_client_that_leaves_in_the_middle_of_its_body_stores_nothing(alice: Client) -> None:
    with connect(alice.sandbox) as connection:
        connection.sendall(request(alice)[:-5])
    deadline = time.monotonic() + 5
    faults: list[str | None] = []
    while faults != ["client_disconnected"] and time.monotonic() < deadline:
        faults = [entry["fault"] for entry in alice.sandbox.requests()]
    assert faults == ["client_disconnected"]
    assert alice.sandbox.requests()[0]["status"] is None
    assert alice.sandbox.resources() == []


def test_a_stopping_sandbox_lets_go_of_what_waits() -> None:
    with SandboxServer() as sandbox:
        bob = Client(sandbox, "bob")
        rules = [{"kind": "stall", "seconds": 300, "count": 1}, {"kind": "slow", "seconds": 300}]
        sandbox.faults(*rules)
        held = [connect(sandbox), connect(sandbox)]
        for connection in held:
            connection.sendall(request(bob))
        while len(sandbox.requests()) < len(held):
            time.sleep(0.01)
        sandbox.faults({"kind": "cut", "commit_after": 300})
        with connect(sandbox) as connection:
            connection.sendall(request(bob))
            assert read_to_end(connection) == b""
        bob.close()
    # Had anything waited on, uvicorn would have cancelled it with an error in its log.
    for connection in held:
        connection.close()


async def test_a_cut_without_a_real_connection_says_what_it_needs() -> None:
    config = SandboxConfig()
    transport = httpx.ASGITransport(create_app(config))
    headers = {"Authorization": f"Bearer {config.control_token}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        armed = await client.put("/_sandbox/faults", json=[{"kind": "cut"}], headers=headers)
        assert armed.status_code == 200
        with pytest.raises(RuntimeError, match=r"sandbox\.server\.serve"):
            await client.get("/r4/Observation")
