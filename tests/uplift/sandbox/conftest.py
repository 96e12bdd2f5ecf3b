from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from uplift.sandbox.testing import SandboxServer


class Client:
    """A plain HTTP client of one simulated user."""

    def __init__(self, sandbox: SandboxServer, app_user_id: str) -> None:
        self.sandbox = sandbox
        self.grant = sandbox.grant(app_user_id)
        self.user = str(self.grant["oneup_user_id"])
        self.http = httpx.Client(
            base_url=sandbox.url,
            headers={"Authorization": f"Bearer {self.grant['access_token']}"},
            trust_env=False,
            timeout=10,
        )

    def create(self, resource: dict[str, Any], version: str = "r4") -> httpx.Response:
        return self.http.post(f"/{version}/{resource['resourceType']}", json=resource)

    def get(self, path: str) -> httpx.Response:
        return self.http.get(path)

    def close(self) -> None:
        self.http.close()


def observation(id_: str | None = "o1", **more: Any) -> dict[str, Any]:
    resource: dict[str, Any] = {"resourceType": "Observation", "status": "final", "code": {}}
    return resource | ({"id": id_} if id_ else {}) | more


@pytest.fixture(autouse=True)
def no_errors_in_the_server(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    errors = [record for record in caplog.get_records("call") if record.levelname == "ERROR"]
    assert errors == []


@pytest.fixture(scope="session")
def shared_sandbox() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        yield server


@pytest.fixture
def sandbox(shared_sandbox: SandboxServer) -> SandboxServer:
    shared_sandbox.reset()
    return shared_sandbox


@pytest.fixture
def alice(sandbox: SandboxServer) -> Iterator[Client]:
    client = Client(sandbox, "alice")
    yield client
    client.close()
