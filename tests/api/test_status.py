"""GET /v1/uploads/{id}: the status, its ETag, Retry-After, and receipts."""

import httpx
import orjson

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
from uplift.ledger.database import Database
from uplift.ledger.uploads import receipt_context
from uplift.ledger.users import key_context
from uplift.lifecycle import Reason, State
from uplift.sealing import KeyRing, WrappedKey


async def test_a_status_has_an_etag_and_no_shared_cache_keeps_it(
    client: httpx.AsyncClient, alice: str
) -> None:
    response = await client.get((await submit(client))["statusUrl"])
    assert response.status_code == 200
    assert response.headers["etag"] == '"1"'
    assert response.headers["cache-control"] == "no-store"


async def test_the_etag_changes_with_the_state(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    status = await submit(client)
    before = await client.get(status["statusUrl"])
    await move(database, status["id"], State.PARKED, clock=60.0)
    after = await client.get(status["statusUrl"], headers={"If-None-Match": before.headers["etag"]})
    assert after.status_code == 200
    assert after.headers["etag"] != before.headers["etag"]
    assert after.json()["status"] == "parked"


async def test_a_known_status_is_a_304_without_a_body(
    client: httpx.AsyncClient, alice: str
) -> None:
    url = (await submit(client))["statusUrl"]
    for tags in ('"1"', 'W/"1"', '"0", "1"', '"0",W/"1" , "7"', "*", ', "1",,'):
        response = await client.get(url, headers={"If-None-Match": tags})
        assert response.status_code == 304, tags
        assert response.content == b""
        # RFC 9110, 15.4.5: what a 200 would have said of caching, a 304 says too.
        assert response.headers["etag"] == '"1"'
        assert response.headers["cache-control"] == "no-store"
        assert "retry-after" in response.headers


async def test_if_none_match_may_come_in_several_lines(
    client: httpx.AsyncClient, alice: str
) -> None:
    url = (await submit(client))["statusUrl"]
    lines = [("If-None-Match", '"0"'), ("If-None-Match", '"1"')]
    assert (await client.get(url, headers=lines)).status_code == 304


async def test_another_etag_than_the_current_one_gets_the_whole_status(
    client: httpx.AsyncClient, alice: str
) -> None:
    url = (await submit(client))["statusUrl"]
    for tags in ("", '"2"', "1", '"11"', "garbage \xff"):
        response = await client.get(url, headers=[(b"If-None-Match", tags.encode("latin-1"))])
        assert response.status_code == 200, tags


async def test_retry_after_of_a_due_upload_is_a_second(
    client: httpx.AsyncClient, alice: str
) -> None:
    url = (await submit(client))["statusUrl"]
    assert (await client.get(url)).headers["retry-after"] == "1"


async def test_retry_after_of_an_upload_that_waits_is_until_it_is_due_but_at_most_a_minute(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    for delay, expected in ((20.0, range(18, 21)), (3600.0, range(60, 61))):
        status = await submit(client, id=f"o{delay}")
        await move(database, status["id"], State.QUEUED, reason=Reason.RETRY, delay=delay)
        assert int((await client.get(status["statusUrl"])).headers["retry-after"]) in expected


async def test_retry_after_of_a_parked_upload_is_a_minute_because_it_waits_for_a_person(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    status = await submit(client)
    await move(database, status["id"], State.PARKED, clock=60.0)
    assert (await client.get(status["statusUrl"])).headers["retry-after"] == "60"


async def test_a_final_status_has_no_retry_after(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    for state in (
        State.REJECTED,
        State.REFUSED,
        State.EXPIRED,
        State.DELIVERED,
        State.CANCELLED,
    ):
        status = await submit(client, id=state)
        await move(database, status["id"], state)
        response = await client.get(status["statusUrl"])
        assert response.json()["status"] == state
        assert response.json()["final"] is True
        assert "retry-after" not in response.headers
        assert response.json()["nextAttemptAt"] is None


async def test_a_delivered_upload_shows_its_receipt(
    client: httpx.AsyncClient, alice: str, database: Database, key_ring: KeyRing
) -> None:
    status = await submit(client)
    row = await read_row(database, status["id"])
    key = key_ring.unwrap(WrappedKey(row.master_key_id, row.wrapped_key), key_context(row.user_id))
    receipt = {
        "id": "A1-77",
        "version": None,
        "stored_at": "2026-01-01T12:00:00+00:00",
        "sha256": "5e",
    }
    await move(
        database,
        status["id"],
        State.DELIVERED,
        last_response="http_201",
        sealed_receipt=key.seal(orjson.dumps(receipt), receipt_context(row.id)),
    )
    shown = (await client.get(status["statusUrl"])).json()
    assert (shown["status"], shown["final"], shown["attempts"]) == ("delivered", True, 1)
    assert shown["receipt"] == {
        "id": "A1-77",
        "version": None,
        "storedAt": "2026-01-01T12:00:00Z",
        "sha256": "5e",
        "sentSha256": None,
    }
    assert shown["lastResponse"] == "http_201"
    assert shown["deliveredAt"] is not None
    listed = (await client.get("/v1/uploads")).json()["uploads"]
    assert listed == [shown]


async def test_a_rejected_upload_shows_its_issues(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    issues = {
        "total": 51,
        "issue": [
            {
                "severity": "error",
                "code": "required",
                "expression": ["Observation.code"],
                "diagnostics": "This element is required.",
            }
        ],
    }
    status = await submit(client)
    await move(database, status["id"], State.REJECTED, reason=Reason.INVALID, issues=issues)
    shown = (await client.get(status["statusUrl"])).json()
    assert shown["issues"] == issues
    assert shown["reason"] == "invalid"


async def test_a_status_says_that_1uphealth_may_have_the_record(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    status = await submit(client)
    await move(
        database,
        status["id"],
        State.QUEUED,
        reason=Reason.SETTLING,
        maybe_sent=True,
        possible_duplicate=True,
        delay=60.0,
    )
    shown = (await client.get(status["statusUrl"])).json()
    assert (shown["maybeStored"], shown["possibleDuplicate"]) == (True, True)


async def test_anothers_upload_and_an_unknown_one_are_the_same_404_to_a_device(
    client: httpx.AsyncClient,
    anybody: httpx.AsyncClient,
    alice: str,
    bob: str,
    database: Database,
) -> None:
    status = await submit(client, "alice")
    headers = bearer(await device_token(database, "bob"))
    hers = await anybody.get(status["statusUrl"], headers=headers)
    unknown = await anybody.get(f"/v1/uploads/{NOBODYS_ID}", headers=headers)
    assert assert_problem(hers, 404) == assert_problem(unknown, 404)
    for response in (hers, unknown):
        del response.headers["x-request-id"]  # each request's own
    assert dict(hers.headers) == dict(unknown.headers)
    known = await anybody.get(
        status["statusUrl"], headers={**headers, "If-None-Match": '"1"'}, params={"wait": 5}
    )
    assert_problem(known, 404)


async def test_an_operator_and_a_device_read_what_a_backend_submitted(
    client: httpx.AsyncClient,
    anybody: httpx.AsyncClient,
    alice: str,
    database: Database,
    keys: Keys,
) -> None:
    url = (await submit(client, "alice"))["statusUrl"]
    expected = (await client.get(url)).json()
    for secret in (keys.operator, await device_token(database, "alice")):
        assert (await anybody.get(url, headers=bearer(secret))).json() == expected


async def test_an_id_that_is_no_uuid_is_a_400(client: httpx.AsyncClient) -> None:
    for upload_id in ("1", "not-a-uuid", "%00", NOBODYS_ID + "0", "\u2603", "..%2F"):
        problem = assert_problem(await client.get(f"/v1/uploads/{upload_id}"), 400)
        assert [error["where"] for error in problem["errors"]] == ["path.upload_id"]
