"""What a server like HAPI has, and uploads to it, one attempt after the other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson

from tests import factories
from tests.uplift.delivery.delivering import deliver
from uplift.intake.accept import Accepted
from uplift.intake.submission import parse
from uplift.ledger.uploads import UploadRow
from uplift.lifecycle import State
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings
from uplift.wiring import Relay, open_relay

_FRESH = {"Cache-Control": "no-cache"}
# To read what is trusted takes longer than a request.
_TLS = httpx.create_ssl_context()
_TYPES = ("Patient", "Observation", "DiagnosticReport")

_REPORT = {
    "resourceType": "DiagnosticReport",
    "id": "report-1",
    "status": "final",
    "code": {"text": "Panel"},
    "subject": {"reference": "Patient/p1"},
    "result": [{"reference": "Observation/obs-1", "display": "Heart rate"}],
}


async def report(relay: Relay, **elements: Any) -> Accepted:
    """A report of `obs-1`, committed."""
    body = orjson.dumps({**_REPORT, **elements})
    labels = factories.submission().labels
    return await relay.acceptor.accept("alice", parse(body, labels))


@asynccontextmanager
async def relay_of(settings: Settings) -> AsyncIterator[Relay]:
    """A relay whose only user's records go to its default destination."""
    async with open_relay(settings) as opened:
        await opened.provisioner.provision("alice")
        yield opened


def stored(hapi: SandboxServer, resource_type: str = "Observation") -> list[dict[str, Any]]:
    """The resources of a type that the server has."""
    address = f"{hapi.url}/r4/{resource_type}?_count=100"
    return _of(httpx.get(address, headers=_FRESH, trust_env=False, verify=_TLS))


def _of(response: httpx.Response) -> list[dict[str, Any]]:
    return [entry["resource"] for entry in response.json().get("entry", [])]


def there(hapi: SandboxServer) -> dict[str, str]:
    """What the server has: the versions, by `Type/id`."""
    return {
        f"{kind}/{each['id']}": each["meta"]["versionId"]
        for kind in _TYPES
        for each in stored(hapi, kind)
    }


def sends(hapi: SandboxServer, resource_type: str = "Observation") -> list[tuple[str, str]]:
    """The requests for that type: the method, and the address below the base."""
    return [
        (each["method"], each["path"])
        for each in hapi.requests()
        if f"/{resource_type}" in each["path"]
    ]


async def ended(relay: Relay, upload: Accepted, attempts: int = 40) -> UploadRow:
    """The upload once it has ended."""
    for _ in range(attempts):
        row = await deliver(relay, upload)
        if row.state.final:
            return row
        await asyncio.sleep(0.1)  # the limiter slows down while answers are missing
    raise AssertionError(f"{row.state} {row.reason} {row.last_response}")


async def push(relay: Relay) -> None:
    """Three observations, and a report that refers to one of them, until they are delivered."""
    uploads = [await factories.accepted(relay, id=f"obs-{number}") for number in range(1, 4)]
    for upload in (*uploads, await report(relay)):
        assert not upload.duplicate
        row = await ended(relay, upload)
        assert (row.state, row.reason) == (State.DELIVERED, None)


def delete_at(hapi: SandboxServer, resource_id: str) -> None:
    """Somebody else deletes what is there."""
    address = f"{hapi.url}/r4/Observation/{resource_id}"
    httpx.delete(address, trust_env=False, verify=_TLS).raise_for_status()


def put_at(hapi: SandboxServer, resource: dict[str, Any]) -> None:
    """Somebody else writes an R4 resource under its own id."""
    address = f"{hapi.url}/r4/{resource['resourceType']}/{resource['id']}"
    httpx.put(address, json=resource, trust_env=False, verify=_TLS).raise_for_status()
