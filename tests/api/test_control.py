"""Redrive, cancel and pause over HTTP: who may, the answers, and that repeating is safe."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from tests.api.calls import (
    NOBODYS_ID,
    Keys,
    assert_problem,
    bearer,
    device_token,
    move,
    read_row,
    submit,
)
from uplift.ledger.audit import list_events
from uplift.ledger.database import Database
from uplift.lifecycle import State


@pytest.fixture
async def operator(app: FastAPI, keys: Keys) -> AsyncIterator[httpx.AsyncClient]:
    """The operator's client."""
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://uplift",
        headers=bearer(keys.operator),
    ) as client:
        yield client


async def _dead(
    client: httpx.AsyncClient, database: Database, state: State = State.EXPIRED, **elements: Any
) -> str:
    upload_id = str((await submit(client, **elements))["id"])
    await move(database, upload_id, state, maybe_sent=False)
    return upload_id


async def _actions(database: Database, upload_id: str) -> list[str]:
    async with database.transaction() as connection:
        events = await list_events(connection)
    return [event.action for event in events if event.upload_id == UUID(upload_id)]


async def test_a_dead_letter_is_redriven_and_a_repeated_request_changes_nothing(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    upload_id = await _dead(client, database)
    first = await client.post(f"/v1/uploads/{upload_id}/redrive")
    assert first.status_code == 202
    told = first.json()
    assert (told["status"], told["reason"], told["attempts"]) == ("queued", "redriven", 0)
    assert told["final"] is False
    second = await client.post(f"/v1/uploads/{upload_id}/redrive")
    assert (second.status_code, second.json()) == (200, told)
    assert await _actions(database, upload_id) == ["upload_accepted", "upload_redriven"]


async def test_a_dead_letter_with_a_newer_version_is_superseded(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    upload_id = await _dead(client, database)
    await submit(client, status="amended")
    response = await client.post(f"/v1/uploads/{upload_id}/redrive")
    assert (response.status_code, response.json()["status"]) == (200, "superseded")
    problem = assert_problem(await client.post(f"/v1/uploads/{upload_id}/redrive"), 409)
    assert "newer version" in problem["detail"]


async def test_an_upload_that_cannot_be_redriven_says_why(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    upload_id = await _dead(client, database)
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE uploads SET sealed_body = NULL"))
    problem = assert_problem(await client.post(f"/v1/uploads/{upload_id}/redrive"), 409)
    assert "not kept any more" in problem["detail"]
    assert_problem(await client.post(f"/v1/uploads/{NOBODYS_ID}/redrive"), 404)


async def test_many_are_redriven_by_a_filter(
    client: httpx.AsyncClient, operator: httpx.AsyncClient, alice: str, bob: str, database: Database
) -> None:
    expired = await _dead(client, database, id="o1")
    refused = await _dead(client, database, State.REFUSED, id="o2")
    bobs = await _dead(client, database, user="bob")

    async def ask(**wanted: Any) -> dict[str, Any]:
        response = await operator.post("/v1/uploads/redrive", json=wanted)
        assert response.status_code == 200, response.text
        return dict(response.json())

    nothing = {"queued": 0, "superseded": 0, "left": {}, "after": None}
    assert await ask(reason="crashes_worker") == nothing
    assert await ask(updatedBefore="2020-01-01T00:00:00Z") == nothing
    assert await ask(batch=NOBODYS_ID) == nothing
    assert await ask(user="bob", resourceType="Condition") == nothing
    assert await ask(status=["expired"], user="alice") == {**nothing, "queued": 1}
    assert await ask(all=True) == {**nothing, "queued": 2}
    assert await ask(all=True) == nothing
    for upload_id in (expired, refused, bobs):
        row = await read_row(database, upload_id)
        assert (row.state, row.reason) == (State.QUEUED, "redriven")
        assert (await _actions(database, upload_id)).count("upload_redriven") == 1


async def test_a_redrive_that_does_not_say_which_uploads_is_refused_with_the_reason(
    client: httpx.AsyncClient, operator: httpx.AsyncClient, alice: str, database: Database
) -> None:
    """test_control_schemas.py has all of them."""
    upload_id = await _dead(client, database)
    response = await operator.post("/v1/uploads/redrive", json={})
    problem = assert_problem(response, 400)
    assert problem["errors"][0]["what"].startswith("Give a filter")
    assert (await read_row(database, upload_id)).state is State.EXPIRED


async def test_a_waiting_upload_is_tried_now(
    client: httpx.AsyncClient, operator: httpx.AsyncClient, alice: str, database: Database
) -> None:
    ids = [(await submit(client, id=f"o{number}"))["id"] for number in range(3)]
    async with database.transaction() as connection:
        await connection.execute(
            text("UPDATE uploads SET next_attempt_at = now() + interval '1 hour', reason = 'held'")
        )
    for _ in range(2):
        response = await client.post(f"/v1/uploads/{ids[0]}/try-now")
        assert response.status_code == 200
        assert response.json()["nextAttemptAt"] <= datetime.now(UTC).isoformat()
    assert await _actions(database, ids[0]) == ["upload_accepted", "upload_tried_now"]
    assert_problem(await client.post(f"/v1/uploads/{NOBODYS_ID}/try-now"), 404)
    for wanted, tried in (({"reason": "retry"}, 0), ({"user": alice}, 2), ({"all": True}, 0)):
        response = await operator.post("/v1/uploads/try-now", json=wanted)
        assert (response.status_code, response.json()) == (200, {"tried": tried}), wanted
    for wrong in ({}, {"all": True, "user": alice}, {"status": ["queued"]}, {"user": "nobody"}):
        refused = await operator.post("/v1/uploads/try-now", json=wrong)
        assert refused.status_code == (404 if wrong == {"user": "nobody"} else 400)


async def test_a_redrive_of_an_unknown_users_uploads_is_a_404(operator: httpx.AsyncClient) -> None:
    assert_problem(await operator.post("/v1/uploads/redrive", json={"user": "nobody"}), 404)


async def test_an_unsent_upload_is_cancelled_at_once_and_repeating_it_is_safe(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    upload_id = (await submit(client))["id"]
    first = await client.delete(f"/v1/uploads/{upload_id}")
    assert first.status_code == 200
    told = first.json()
    assert (told["status"], told["reason"]) == ("cancelled", "cancelled_by_owner")
    second = await client.delete(f"/v1/uploads/{upload_id}")
    assert (second.status_code, second.json()) == (200, told)
    assert await _actions(database, upload_id) == ["upload_accepted", "upload_cancelled"]
    again = await submit(client)
    assert (again["duplicate"], again["status"]) == (False, "queued")


async def test_an_upload_that_a_worker_sends_is_marked_for_cancelling(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    upload_id = (await submit(client))["id"]
    await move(
        database,
        upload_id,
        State.SENDING,
        new_lease_id=UUID(upload_id),
        lease_seconds=60.0,
        attempt_seconds=30.0,
    )
    etag = (await client.get(f"/v1/uploads/{upload_id}")).headers["etag"]
    for _ in range(2):
        response = await client.delete(f"/v1/uploads/{upload_id}")
        assert response.status_code == 202
        assert (response.json()["status"], response.json()["cancelRequested"]) == ("sending", True)
    assert (await client.get(f"/v1/uploads/{upload_id}")).headers["etag"] != etag
    assert (await _actions(database, upload_id)).count("upload_cancelled") == 1


async def test_a_delivered_upload_cannot_be_taken_back(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    upload_id = (await submit(client))["id"]
    await move(database, upload_id, State.DELIVERED, maybe_sent=False)
    problem = assert_problem(await client.delete(f"/v1/uploads/{upload_id}"), 409)
    assert "cannot be taken back" in problem["detail"]
    assert_problem(await client.delete(f"/v1/uploads/{NOBODYS_ID}"), 404)


async def test_a_device_cancels_its_own_users_uploads_and_no_others(
    client: httpx.AsyncClient,
    anybody: httpx.AsyncClient,
    alice: str,
    bob: str,
    database: Database,
) -> None:
    hers, his = (await submit(client, "alice"))["id"], (await submit(client, "bob"))["id"]
    anybody.headers.update(bearer(await device_token(database, "alice")))
    assert (await anybody.delete(f"/v1/uploads/{hers}")).status_code == 200
    assert_problem(await anybody.delete(f"/v1/uploads/{his}"), 404)
    assert (await read_row(database, his)).state is State.QUEUED


async def test_pauses_are_listed_until_they_end(
    client: httpx.AsyncClient, operator: httpx.AsyncClient, alice: str
) -> None:
    first = await operator.put("/v1/users/alice/pause")
    assert (first.status_code, first.json()["user"]) == (200, "alice")
    assert (await operator.put("/v1/users/alice/pause")).json() == first.json()
    everybody = (await operator.put("/v1/pause")).json()
    assert everybody["user"] is None
    assert (await client.get("/v1/pauses")).json() == {"pauses": [first.json(), everybody]}
    assert (await submit(client))["status"] == "queued"
    for _ in range(2):
        assert (await operator.delete("/v1/users/alice/pause")).status_code == 204
    assert (await client.get("/v1/users/alice")).json()["paused"] is True
    for _ in range(2):
        assert (await operator.delete("/v1/pause")).status_code == 204
    assert (await client.get("/v1/users/alice")).json()["paused"] is False
    assert (await client.get("/v1/pauses")).json() == {"pauses": []}
    assert_problem(await operator.put("/v1/users/nobody/pause"), 404)
    assert_problem(await operator.delete("/v1/users/nobody/pause"), 404)


async def test_dead_letters_are_listed_by_reason_type_and_time(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    ids = [await _dead(client, database, id=f"o{n}") for n in range(2)]
    async with database.transaction() as connection:
        await connection.execute(
            text(
                "UPDATE uploads SET reason = 'gave_up', resource_type = 'Condition',"
                " updated_at = timestamptz '2026-01-01 00:00Z' WHERE id = :id"
            ),
            {"id": UUID(ids[1])},
        )

    async def listed(**query: str) -> list[str]:
        found: list[str] = []
        page = (await client.get("/v1/uploads", params={**query, "limit": "1"})).json()
        while page["next"] is not None:
            found += [upload["id"] for upload in page["uploads"]]
            page = (await client.get(page["next"])).json()
        return found

    assert await listed(status="expired") == ids[::-1]
    assert await listed(reason="gave_up") == ids[1:]
    assert await listed(resourceType="Condition") == ids[1:]
    assert await listed(resourceType="Observation") == ids[:1]
    assert await listed(fhirVersion="DSTU2") == []
    assert await listed(fhirVersion="R4") == ids[::-1]
    assert await listed(updatedBefore="2026-01-01T01:00:01+01:00") == ids[1:]
    assert await listed(updatedSince="2026-01-01T01:00:01+01:00") == ids[:1]
    for query in (
        "reason=none",
        "resourceType=1",
        "fhirVersion=R5",
        "updatedSince=2026",
        "updatedBefore=2026-01-01T00:00:00",
    ):
        assert_problem(await client.get(f"/v1/uploads?{query}"), 400)
