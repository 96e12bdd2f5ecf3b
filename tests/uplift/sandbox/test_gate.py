"""Who may use the control API."""

from collections.abc import Iterator

import httpx
import pytest

from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.server import SandboxProcess
from uplift.sandbox.testing import SandboxServer

READING = ("resources", "counts", "requests", "faults")
CHANGING = ("grants", "reset")


@pytest.fixture
def http(sandbox: SandboxServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{sandbox.url}/_sandbox", trust_env=False) as client:
        yield client


@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer wrong", "Bearer caf\u00e9"])
def test_without_its_token_nothing_is_shown_or_changed(
    sandbox: SandboxServer, http: httpx.Client, given: str | None
) -> None:
    headers = {} if given is None else {b"Authorization": given.encode()}
    for name in READING:
        assert http.get(f"/{name}", headers=headers).status_code == 401
    for name in CHANGING:
        assert http.post(f"/{name}", headers=headers).status_code == 401
    for method in ("PUT", "POST", "DELETE"):
        assert http.request(method, "/faults", headers=headers).status_code == 401
    assert sandbox.requests() == []


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8090", "127.0.0.1.evil.example", ""]
)
def test_a_name_that_was_made_to_lead_here_is_refused_even_with_the_token(
    sandbox: SandboxServer, http: httpx.Client, host: str
) -> None:
    for name in (*READING, "health"):
        headers = {**sandbox.headers, "Host": host}
        assert http.get(f"/{name}", headers=headers).status_code in (400, 421)


@pytest.mark.parametrize("host", ["127.0.0.1:8090", "[::1]:8090", "localhost", "localhost:1"])
def test_an_address_and_localhost_are_right(
    sandbox: SandboxServer, http: httpx.Client, host: str
) -> None:
    assert http.get("/counts", headers={**sandbox.headers, "Host": host}).status_code == 200


def test_health_needs_no_token(http: httpx.Client) -> None:
    assert http.get("/health").status_code == 200


def test_each_sandbox_has_a_random_token_which_its_description_does_not_show() -> None:
    one, other = SandboxConfig(), SandboxConfig()
    assert one.control_token != other.control_token
    assert len(one.control_token) > 40
    assert one.control_token not in repr(one)


def test_records_as_they_came_are_shown_only_if_that_was_asked_for(
    sandbox: SandboxServer, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    server: SandboxProcess = sandbox._server
    monkeypatch.setattr(server._app.state.sandbox, "config", SandboxConfig())
    assert http.get("/resources?bytes=1", headers=sandbox.headers).status_code == 403
    assert http.get("/resources", headers=sandbox.headers).status_code == 200
