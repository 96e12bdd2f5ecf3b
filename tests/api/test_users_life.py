"""/v1/users later: lists, summaries, revoked device tokens, erasure, and the audit trail."""

import asyncio
from uuid import UUID

import httpx
from sqlalchemy import text

from tests import factories
from tests.api.calls import NOBODYS_ID, Keys, assert_problem, bearer, device_token, move, submit
from tests.keys import KEY_RING
from uplift.ledger import audit, grants, parking
from uplift.ledger.audit import Event
from uplift.ledger.credentials import BACKEND, add_api_key, find_credential
from uplift.ledger.database import Database
from uplift.ledger.users import find_user
from uplift.lifecycle import State
from uplift.queues import UPLOADS
from uplift.sandbox.testing import SandboxServer
from uplift.wiring import Relay

_GRANT = {"accessToken": "access-1", "refreshToken": "refresh-1", "expiresIn": 7200}


async def end_grant(database: Database, name: str) -> None:
    """End the grant, as after a refusal by 1upHealth."""
    async with database.transaction() as connection:
        user = await find_user(connection, name)
        assert user is not None
        assert await grants.end_grant(connection, user.id, 1)


async def names(client: httpx.AsyncClient, **query: str | int) -> list[str]:
    """All names of the list, from all its pages."""
    found: list[str] = []
    url: str | None = str(httpx.URL("/v1/users", params=query))
    while url is not None:
        page = (await client.get(url)).json()
        found += [user["appUserId"] for user in page["users"]]
        url = page["next"]
    return found


async def test_users_are_listed_the_newest_first(client: httpx.AsyncClient, relay: Relay) -> None:
    added = [f"user-{number}" for number in (5, 3, 1, 2, 4)]
    for name in added:
        await factories.user_without_grant(relay, name)
    for limit in (1, 2, 5, 6):
        assert await names(client, limit=limit) == added[::-1]
        assert await names(client, limit=limit, order="asc") == added


async def test_one_list_has_all_people_who_have_to_authorise_again(
    client: httpx.AsyncClient, relay: Relay, database: Database
) -> None:
    for name in ("a", "b", "c", "d", "e"):
        await client.put(f"/v1/users/{name}/grant", json=_GRANT)
    await factories.user_without_grant(relay, "never")
    for name in ("b", "d", "e"):
        await end_grant(database, name)
    for limit in (1, 2, 100):
        assert await names(client, grant="needs_authorization", limit=limit) == ["e", "d", "b"]
    assert await names(client, grant="active", limit=1) == ["c", "a"]
    assert await names(client, grant="none") == ["never"]
    shown = (await client.get("/v1/users", params={"grant": "needs_authorization"})).json()
    assert shown["users"][0] == (await client.get("/v1/users/e")).json()
    await client.put("/v1/users/d/grant", json=_GRANT)
    assert await names(client, grant="needs_authorization") == ["e", "b"]


async def test_a_wrong_query_for_users_is_a_400(client: httpx.AsyncClient) -> None:
    for query in ({"grant": "dead"}, {"limit": "0"}, {"limit": "501"}, {"after": "alice"}):
        assert_problem(await client.get("/v1/users", params=query), 400)


async def test_a_summary_counts_by_status_and_by_type_and_says_when_all_is_there(
    client: httpx.AsyncClient, alice: str, bob: str, database: Database
) -> None:
    empty = (await client.get("/v1/users/alice/summary")).json()
    assert empty == {
        "appUserId": "alice",
        "grant": "none",
        "syncToken": (await client.get("/v1/users/alice")).json()["syncToken"],
        "complete": True,
        "total": 0,
        "byStatus": dict.fromkeys(State, 0),
        "byType": {},
    }
    observations = [await submit(client, id=f"o{number}") for number in range(3)]
    condition = await submit(client, id="c", resourceType="Condition")
    await submit(client, user="bob", id="o1")
    await move(database, observations[0]["id"], State.DELIVERED)
    await move(database, observations[1]["id"], State.REJECTED)
    await move(database, condition["id"], State.PARKED, clock=60.0)
    counted = (await client.get("/v1/users/alice/summary")).json()
    assert (counted["complete"], counted["total"]) == (False, 4)
    counts = {"delivered": 1, "rejected": 1, "parked": 1, "queued": 1}
    assert {state: count for state, count in counted["byStatus"].items() if count} == counts
    assert counted["byType"] == {
        "Observation": {"delivered": 1, "rejected": 1, "queued": 1},
        "Condition": {"parked": 1},
    }
    # An upload that waits for a worker or a person is not at its end.
    await move(database, observations[2]["id"], State.CANCELLED)
    assert (await client.get("/v1/users/alice/summary")).json()["complete"] is False
    async with database.transaction() as connection:
        user = await find_user(connection, "alice")
        assert user is not None
        await parking.release_parked(connection, user.id)
    await move(database, condition["id"], State.REFUSED)
    assert (await client.get("/v1/users/alice/summary")).json()["complete"] is True


async def test_a_device_reads_the_summary_of_its_own_user_only(
    anybody: httpx.AsyncClient, alice: str, bob: str, database: Database
) -> None:
    token = bearer(await device_token(database, "alice"))
    own = await anybody.get("/v1/users/alice/summary", headers=token)
    assert (own.status_code, own.json()["appUserId"]) == (200, "alice")
    for other in ("bob", "nobody"):
        assert_problem(await anybody.get(f"/v1/users/{other}/summary", headers=token), 403)


async def test_a_device_token_is_revoked_at_once_and_no_other(
    client: httpx.AsyncClient, anybody: httpx.AsyncClient, alice: str, bob: str
) -> None:
    path = "/v1/users/alice/device-tokens"
    first, second = [(await client.post(path, json={"expiresIn": 60})).json() for _ in range(2)]
    other = (await client.post("/v1/users/bob/device-tokens", json={"expiresIn": 60})).json()

    async def works(token: dict[str, str]) -> bool:
        response = await anybody.get("/v1/uploads", headers=bearer(token["token"]))
        return response.status_code == 200

    assert [await works(token) for token in (first, second, other)] == [True, True, True]
    for _ in range(2):
        assert (await client.delete(f"{path}/{first['id']}")).status_code == 204
    assert [await works(token) for token in (first, second, other)] == [False, True, True]
    # Not through another user, and only device tokens.
    assert_problem(await client.delete(f"{path}/{other['id']}"), 404)
    assert_problem(await client.delete(f"{path}/{NOBODYS_ID}"), 404)
    assert_problem(await client.delete(f"{path}/x"), 400)
    assert [await works(token) for token in (first, second, other)] == [False, True, True]
    for _ in range(2):
        assert (await client.delete(path)).status_code == 204
    assert [await works(token) for token in (first, second, other)] == [False, False, True]


async def test_an_api_key_is_not_revoked_as_a_device_token(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    async with database.transaction() as connection:
        key_id, secret = await add_api_key(connection, KEY_RING, "other", BACKEND)
    assert_problem(await client.delete(f"/v1/users/alice/device-tokens/{key_id}"), 404)
    async with database.transaction() as connection:
        assert await find_credential(connection, KEY_RING, secret) is not None


async def test_an_erased_user_is_gone_and_may_come_back(
    client: httpx.AsyncClient, anybody: httpx.AsyncClient, database: Database
) -> None:
    await client.put("/v1/users/carol/grant", json=_GRANT)
    status = await submit(client, user="carol")
    token = bearer(await device_token(database, "carol"))

    response = await client.delete("/v1/users/carol")
    kept = {"upstream": "keep", "leftUpstream": 0, "problem": None, "history": []}
    gone = {"status": "erased", "sending": 0, "unreadableBy": None, **kept}
    assert (response.status_code, response.json()) == (200, gone)
    for path in ("/v1/users/carol", "/v1/users/carol/summary", status["statusUrl"]):
        assert_problem(await client.get(path), 404)
    assert_problem(await client.delete("/v1/users/carol"), 404)
    assert_problem(await anybody.get("/v1/uploads", headers=token), 401)
    assert_problem(await client.get("/v1/uploads", params={"user": "carol"}), 404)
    assert (await client.get("/v1/uploads")).json()["uploads"] == []
    assert await names(client) == []

    await client.put("/v1/users/carol/grant", json=_GRANT)
    again = await submit(client, user="carol")
    assert (again["duplicate"], again["status"]) == (False, "queued")


async def test_erasing_an_unknown_name_is_a_404_that_asks_to_check_the_spelling(
    client: httpx.AsyncClient, alice: str
) -> None:
    problem = assert_problem(await client.delete("/v1/users/Alice"), 404)
    assert "spelling" in problem["detail"] or "never there" in problem["detail"]
    assert (await client.get("/v1/users/alice")).status_code == 200


async def test_while_a_worker_sends_erasing_is_a_202_that_says_when_to_ask_again(
    client: httpx.AsyncClient, relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay, "carol")
    status = await submit(client, user="carol")
    upstream.faults({"kind": "slow", "seconds": 1.5, "match": {"api": "fhir"}})
    sending = asyncio.create_task(relay.deliverer.deliver(UPLOADS))
    async with asyncio.timeout(20):
        while not any(rule["fired"] for rule in upstream.fault_rules()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    response = await client.delete("/v1/users/carol", params={"wait": 0})
    assert (response.status_code, response.json()) == (
        202,
        {
            "status": "erasing",
            "sending": 1,
            "unreadableBy": None,
            "upstream": "keep",
            "leftUpstream": 0,
            "problem": None,
            "history": [],
        },
    )
    assert int(response.headers["retry-after"]) >= 1
    assert_problem(await client.get(status["statusUrl"]), 404)
    assert (await client.delete("/v1/users/carol", params={"wait": 20})).status_code == 200
    await sending
    assert_problem(await client.delete("/v1/users/carol", params={"wait": -1}), 400)


async def trail(database: Database) -> list[Event]:
    async with database.transaction() as connection:
        return await audit.list_events(connection)


async def test_every_action_is_in_the_audit_trail_with_its_actor(
    client: httpx.AsyncClient,
    anybody: httpx.AsyncClient,
    keys: Keys,
    database: Database,
    upstream: SandboxServer,
) -> None:
    await client.post("/v1/users", json={"appUserId": "carol"})
    await client.post("/v1/users", json={"appUserId": "carol"})
    await client.put("/v1/users/carol/grant", json=_GRANT)
    path = "/v1/users/carol/device-tokens"
    token = (await client.post(path, json={"expiresIn": 60})).json()
    upload = await submit(client, user="carol")
    await submit(client, user="carol")  # a duplicate: nothing happened
    other = await anybody.post(
        "/v1/uploads",
        json={"fhirVersion": "R4", "resource": factories.resource(id="by-device")},
        headers=bearer(token["token"]),
    )
    await client.get(upload["statusUrl"])  # is not audited
    await client.delete(f"{path}/{token['id']}")
    async with database.transaction() as connection:
        found = await find_credential(connection, KEY_RING, keys.backend)
        pseudonym = await connection.scalar(text("SELECT pseudonym FROM users"))
    assert found is not None
    await client.delete("/v1/users/carol")

    key, device = f"key:{found.id}", f"device:{token['id']}"
    events = [event for event in await trail(database) if event.pseudonym is not None]
    assert [(event.actor, event.action, event.upload_id) for event in events] == [
        (key, "user_added", None),
        (key, "grant_obtained", None),
        (key, "grant_brought", None),
        (key, "device_token_made", None),
        (key, "upload_accepted", UUID(upload["id"])),
        (device, "upload_accepted", UUID(other.json()["id"])),
        (key, "device_token_revoked", None),
        (key, "user_erased", None),
    ]
    assert {event.pseudonym for event in events} == {pseudonym}
    assert events[3].credential_id == events[6].credential_id == UUID(token["id"])


async def test_a_request_that_is_refused_leaves_no_event(
    client: httpx.AsyncClient,
    anybody: httpx.AsyncClient,
    keys: Keys,
    alice: str,
    database: Database,
) -> None:
    before = await trail(database)
    operator = bearer(keys.operator)
    await anybody.delete("/v1/users/alice", headers=operator)
    await anybody.post("/v1/users", json={"appUserId": "carol"}, headers=operator)
    await anybody.delete("/v1/users/alice/device-tokens", headers=operator)
    await client.post("/v1/users/alice/device-tokens", json={"expiresIn": 0})
    await client.post("/v1/uploads", content=b"{")
    await client.delete("/v1/users/nobody")
    assert await trail(database) == before
