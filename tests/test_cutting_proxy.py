"""The proxy that real servers are tested behind spoils answers, and loses no request."""

import time
from collections.abc import Iterator

import httpx
import pytest

from tests.cutting_proxy import CuttingProxy, Spoiling
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.testing import SandboxServer


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxServer]:
    with SandboxServer(SandboxConfig(like="hapi")) as sandbox:
        yield sandbox


def put(client: httpx.Client, name: str) -> int | str:
    """The status, or how the request failed."""
    body = {"resourceType": "Patient", "id": name}
    try:
        return client.put(f"/r4/Patient/{name}", json=body).status_code
    except httpx.TransportError as error:
        return type(error).__name__


def outcomes(server: SandboxServer, *spoilings: Spoiling) -> list[int | str]:
    server.reset()
    with (
        CuttingProxy(server.url, spoilings=spoilings, late_seconds=0.2) as proxy,
        httpx.Client(base_url=proxy.url, trust_env=False, timeout=1) as client,
    ):
        found = [put(client, f"p{number}") for number in range(6)]
        assert client.get("/r4/metadata").status_code == 200
        until_stored(server, 6)
        assert sum(proxy.spoiled.values()) == 2
        return found


def until_stored(server: SandboxServer, count: int) -> None:
    limit = time.monotonic() + 5
    while server.counts()["total"]["resources"] < count:
        assert time.monotonic() < limit, "a request was lost"
        time.sleep(0.02)


def test_each_third_answer_is_cut_after_the_commit(server: SandboxServer) -> None:
    lost = "RemoteProtocolError"
    assert outcomes(server, "cut") == [201, 201, lost, 201, 201, lost]


def test_a_gateway_answers_for_the_server(server: SandboxServer) -> None:
    assert outcomes(server, "gateway_timeout", "late") == [201, 201, 504, 201, 201, 504]


def test_an_answer_never_comes(server: SandboxServer) -> None:
    assert outcomes(server, "stall", "cut") == [
        *(201, 201, "ReadTimeout"),
        *(201, 201, "RemoteProtocolError"),
    ]


def test_a_late_commit_comes_after_its_answer_and_a_second_write_is_not_late(
    server: SandboxServer,
) -> None:
    server.reset()
    with (
        CuttingProxy(server.url, every=1, spoilings=("late", "gateway_timeout")) as proxy,
        httpx.Client(base_url=proxy.url, trust_env=False) as client,
    ):
        assert put(client, "alice") == 504
        assert server.counts()["total"]["resources"] == 0
        assert put(client, "alice") == 504
        assert server.counts()["total"]["resources"] == 1
        assert dict(proxy.spoiled) == {"late": 1, "gateway_timeout": 1}
