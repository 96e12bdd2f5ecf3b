"""What many tests of the API need: callers, submissions, and the check of a problem."""

import io
import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import orjson
from sqlalchemy import text

from tests.factories import resource
from tests.keys import KEY_RING
from uplift.ledger import uploads
from uplift.ledger.credentials import BACKEND, Scope, add_api_key, add_device_token
from uplift.ledger.database import Database
from uplift.ledger.transitions import Change, change_state
from uplift.ledger.uploads import UploadRow
from uplift.ledger.users import find_user, key_context
from uplift.lifecycle import State
from uplift.problem_types import BY_CODE
from uplift.sealing import KeyRing, WrappedKey

PROBLEM_JSON = "application/problem+json"
NOBODYS_ID = "01900000-0000-7000-8000-000000000000"


@dataclass(frozen=True, slots=True)
class Keys:
    """One secret of each kind of API key."""

    backend: str
    operator: str


def bearer(secret: str) -> dict[str, str]:
    """The header that presents a credential."""
    return {"Authorization": f"Bearer {secret}"}


async def make_keys(database: Database) -> Keys:
    """A backend's and an operator's key."""
    async with database.transaction() as connection:
        _, backend = await add_api_key(connection, KEY_RING, "backend", BACKEND)
        _, operator = await add_api_key(
            connection, KEY_RING, "operator", frozenset({Scope.OPERATOR})
        )
    return Keys(backend, operator)


async def device_token(database: Database, user: str, seconds: float = 600) -> str:
    """A token of a device of that user. It is expired if `seconds` is negative."""
    async with database.transaction() as connection:
        found = await find_user(connection, user)
        assert found is not None
        return (await add_device_token(connection, KEY_RING, found.id, seconds))[0]


async def submit(client: httpx.AsyncClient, user: str = "alice", **elements: Any) -> dict[str, Any]:
    """Submit a resource; its status."""
    response = await client.post(
        "/v1/uploads",
        params={"user": user, "fhirVersion": "R4", "source": "hospital-a"},
        content=orjson.dumps(resource(**elements)),
        headers={"Content-Type": "application/fhir+json"},
    )
    assert response.status_code == 202, response.text
    return dict(response.json())


async def read_row(database: Database, upload_id: str) -> UploadRow:
    """The row of an upload in the ledger."""
    async with database.transaction() as connection:
        return (await uploads.get_uploads(connection, [UUID(upload_id)]))[UUID(upload_id)]


async def stored_body(database: Database, key_ring: KeyRing, upload_id: str) -> bytes:
    """The stored bytes of an upload, opened."""
    row = await read_row(database, upload_id)
    async with database.transaction() as connection:
        sealed = await connection.scalar(
            text("SELECT sealed_body FROM uploads WHERE id = :id"), {"id": row.id}
        )
    key = key_ring.unwrap(WrappedKey(row.master_key_id, row.wrapped_key), key_context(row.user_id))
    return key.open(bytes(sealed or b""), uploads.body_context(row.id))


async def move(database: Database, upload_id: str, target: State, **more: Any) -> None:
    """Bring a queued upload into a state with the ledger's own transitions, as a worker does."""
    id_ = UUID(upload_id)
    if target in (State.SENDING, State.PARKED, State.CANCELLED, State.SUPERSEDED):
        steps = [Change(upload_id=id_, source=State.QUEUED, target=target, **more)]
    else:
        steps = [
            Change(
                upload_id=id_,
                source=State.QUEUED,
                target=State.SENDING,
                new_lease_id=id_,
                lease_seconds=60.0,
                attempt_seconds=30.0,
                clock=60.0,
            ),
            Change(upload_id=id_, source=State.SENDING, target=target, lease_id=id_, **more),
        ]
    for step in steps:
        async with database.transaction() as connection:
            assert await change_state(connection, [step]) == {id_}


def assert_problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """The problem in a response. Fails if it is not a problem with that status (RFC 9457)."""
    assert response.status_code == status, f"{response.status_code}: {response.text}"
    assert response.headers["content-type"] == PROBLEM_JSON
    problem: dict[str, Any] = response.json()
    assert set(problem) - {"errors"} == {"type", "code", "title", "status", "detail"}
    kind = BY_CODE[problem["code"]]
    assert (problem["type"], problem["title"]) == (kind.uri, kind.title)
    assert problem["status"] == status == kind.status
    assert problem["detail"]
    for error in problem.get("errors", []):
        assert set(error) == {"where", "what"}
        assert all(isinstance(each, str) and each for each in error.values())
    return problem


def events(log: io.StringIO) -> list[dict[str, Any]]:
    """The events of a log in JSON."""
    return [json.loads(line) for line in log.getvalue().splitlines()]
