"""Idempotency-Key: the same request again has the same answer, and happens once."""

import asyncio
from typing import Any

import httpx
import orjson
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text

from tests import factories
from tests.api.calls import Keys, assert_problem, bearer, device_token, make_keys
from tests.api.serving import ApiServer
from tests.factories import resource
from tests.uplift.ledger import rows
from uplift.api.idempotency import read_key
from uplift.ledger.database import Database
from uplift.sealing import KeyRing
from uplift.wiring import Relay

_KEY = "8e03978e-40d5-43e8-bc93-6894a57f9324"


async def post(
    client: httpx.AsyncClient,
    key: str | list[str] | None = _KEY,
    *,
    secret: str | None = None,
    query: dict[str, str] | None = None,
    **elements: Any,
) -> httpx.Response:
    keys = [key] if isinstance(key, str) else (key or [])
    headers = [("Idempotency-Key", each) for each in keys]
    headers += list(bearer(secret).items()) if secret else []
    return await client.post(
        "/v1/uploads",
        params={"user": "alice", "fhirVersion": "R4", "source": "hospital-a", **(query or {})},
        content=orjson.dumps(resource(**elements)),
        headers=[("Content-Type", "application/fhir+json"), *headers],
    )


async def accepted(client: httpx.AsyncClient, *args: Any, **more: Any) -> dict[str, Any]:
    response = await post(client, *args, **more)
    assert response.status_code == 202, response.text
    status: dict[str, Any] = response.json()
    assert response.headers["location"] == status["statusUrl"]
    return status


async def count(database: Database) -> int:
    async with database.transaction() as connection:
        return int((await connection.execute(text("SELECT count(*) FROM uploads"))).scalar_one())


async def test_an_answer_that_was_given_before_says_so(
    client: httpx.AsyncClient, alice: str
) -> None:
    answers = [await post(client, key) for key in (_KEY, _KEY, None, None, "another", "another")]
    assert [each.headers.get("idempotent-replayed") for each in answers] == [
        *(None, "true"),
        *(None, None),
        *(None, "true"),
    ]


async def test_the_same_request_again_has_the_same_answer(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    first = await accepted(client)
    assert await accepted(client) == first
    assert first["duplicate"] is False
    assert await accepted(client, f'"{_KEY}"') == first  # quoted, it is the same key
    assert await count(database) == 1


async def test_a_request_that_spells_the_fhir_version_differently_is_the_same(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    first = await accepted(client, query={"fhirVersion": "R4"})
    assert await accepted(client, query={"fhirVersion": "4.0.1"}) == first
    assert await count(database) == 1


async def test_the_same_request_again_is_not_counted_as_accepted(
    client: httpx.AsyncClient, alice: str
) -> None:
    def counted() -> list[float]:
        return [
            REGISTRY.get_sample_value(
                "uplift_submissions_total", {"kind": "single", "outcome": outcome}
            )
            or 0.0
            for outcome in ("accepted", "duplicate")
        ]

    before = counted()
    for _ in range(3):
        await accepted(client)
    assert counted() == [before[0] + 1, before[1] + 2]


async def test_the_answer_to_a_duplicate_stays_a_duplicate(
    client: httpx.AsyncClient, alice: str
) -> None:
    there = await accepted(client, None)
    for _ in range(2):
        again = await accepted(client)
        assert (again["id"], again["duplicate"]) == (there["id"], True)


async def test_a_late_retry_does_not_make_an_old_version_current(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    first = await accepted(client, "one", status="preliminary")
    second = await accepted(client, "two", status="final")
    late = await accepted(client, "one", status="preliminary")
    assert (late["id"], late["status"]) == (first["id"], "superseded")
    assert (await client.get(second["statusUrl"])).json()["status"] == "queued"
    assert await count(database) == 2


async def test_another_request_with_the_key_is_refused_and_nothing_is_accepted(
    client: httpx.AsyncClient, alice: str, bob: str, database: Database
) -> None:
    first = await accepted(client)
    others: list[dict[str, Any]] = [
        {"status": "amended"},
        {"query": {"fhirVersion": "STU3"}},
        {"query": {"source": "hospital-b"}},
        {"query": {"recordId": "r"}},
        {"query": {"user": "bob"}},
    ]
    for other in others:
        problem = assert_problem(await post(client, **other), 422)
        assert "key of its own" in problem["detail"]
    assert await count(database) == 1
    assert await accepted(client) == first


async def test_a_refused_request_can_be_corrected_and_sent_with_the_same_key(
    client: httpx.AsyncClient, alice: str
) -> None:
    assert_problem(await post(client, query={"fhirVersion": "?"}), 400)
    assert_problem(await post(client, query={"user": "nobody"}), 404)
    await accepted(client)


async def test_after_a_day_the_key_can_be_used_for_another_request(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    first = await accepted(client)
    async with database.transaction() as connection:
        await connection.execute(
            text("UPDATE idempotency_keys SET expires_at = expires_at - interval '1 day'")
        )
    other = await accepted(client, status="amended")
    assert other["id"] != first["id"]
    assert await accepted(client, status="amended") == other


async def test_the_same_key_of_two_callers_is_two_keys(
    client: httpx.AsyncClient, alice: str, bob: str, database: Database
) -> None:
    backend = await accepted(client)
    alices = await accepted(client, secret=await device_token(database, "alice"), status="amended")
    bobs = await accepted(client, secret=await device_token(database, "bob"), query={"user": "bob"})
    assert len({backend["id"], alices["id"], bobs["id"]}) == 3


@pytest.mark.parametrize(
    ("values", "key"),
    [
        (["x"], "x"),
        (["x" * 255], "x" * 255),
        (['"with space, and \\" and \\\\"'], 'with space, and " and \\'),
        (["a:b/c=;,"], "a:b/c=;,"),
        ([f'"{_KEY}"'], _KEY),
        ([f" {_KEY} "], _KEY),
        ([""], None),
        ([" "], None),
        (['""'], None),
        (["x" * 256], None),
        (['"open'], None),
        (['in"side'], None),
        (["two words"], None),
        (["\u00e9"], None),
        (['"\u00e9"'], None),
        (["a", "b"], None),
    ],
)
def test_a_key_is_one_string_of_up_to_255_printable_characters(
    values: list[str], key: str | None
) -> None:
    assert read_key(values) == key


async def test_a_request_with_a_wrong_key_is_refused_and_nothing_is_accepted(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    for key in ("", "x" * 256, ["a", "b"]):
        assert "255" in assert_problem(await post(client, key), 400)["detail"]
    assert await count(database) == 0


async def test_equal_requests_at_the_same_time_are_one_request(
    server: ApiServer, database: Database, key_ring: KeyRing
) -> None:
    keys = await make_keys(database)
    await rows.add_user(database, key_ring)
    async with httpx.AsyncClient(base_url=server.url, headers=bearer(keys.backend)) as client:
        responses = await asyncio.gather(*(post(client) for _ in range(12)))
        statuses = [response.json() for response in responses]
        assert {response.status_code for response in responses} == {202}
        assert {(each["id"], each["duplicate"]) for each in statuses} == {
            (statuses[0]["id"], False)
        }
        different = await asyncio.gather(*(post(client, "k", id=f"o{n}") for n in range(6)))
    assert sorted(response.status_code for response in different) == [202] + [422] * 5
    assert await count(database) == 2


async def test_nothing_of_a_key_survives_its_user(
    client: httpx.AsyncClient, relay: Relay, alice: str, database: Database
) -> None:
    token = await device_token(database, "alice")
    await accepted(client)
    await accepted(client, secret=token, status="amended")
    assert (await client.delete("/v1/users/alice")).status_code == 200
    async with database.transaction() as connection:
        left = await connection.scalar(text("SELECT count(*) FROM idempotency_keys"))
    assert left == 0
    assert_problem(await post(client), 404)
    await factories.user_without_grant(relay, "alice")
    assert (await accepted(client))["duplicate"] is False


async def test_a_key_of_a_user_being_erased_is_free_for_a_new_user_of_that_name(
    client: httpx.AsyncClient, relay: Relay, alice: str, database: Database
) -> None:
    first = await accepted(client)
    async with database.transaction() as connection:
        await connection.execute(
            text("UPDATE users SET erased_at = now(), master_key_id = NULL, wrapped_key = NULL")
        )
    await factories.user_without_grant(relay, "alice")
    again = await accepted(client)
    assert again["id"] != first["id"]
    assert await accepted(client) == again


async def test_only_hashes_of_the_key_and_of_the_request_are_kept(
    client: httpx.AsyncClient, alice: str, database: Database, keys: Keys
) -> None:
    await accepted(client, "canary-key", note=[{"text": "canary-note"}])
    async with database.transaction() as connection:
        kept = str((await connection.execute(text("SELECT * FROM idempotency_keys"))).all())
    assert "canary" not in kept
    assert b"canary".hex() not in kept
