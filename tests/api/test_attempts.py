"""GET /v1/uploads/{id}/attempts: what was tried, newest first."""

import httpx
from sqlalchemy import text

from tests.api.calls import NOBODYS_ID, assert_problem, submit
from uplift.ledger.attempts import MAX_ATTEMPTS
from uplift.ledger.database import Database

_ADD = text("""
    INSERT INTO attempts (lease_id, upload_id, opened_at, closed_at, outcome, status_code,
        duration_ms)
    SELECT gen_random_uuid(), CAST(:id AS uuid), begun, begun + interval '1 second',
        'http_503', 503, 900
    FROM (SELECT timestamptz '2026-11-23 10:00Z' + n * interval '1 minute' AS begun
          FROM generate_series(1, :count) AS n) AS times
""")
_OPEN = text("""
    INSERT INTO attempts (lease_id, upload_id, opened_at)
    VALUES (gen_random_uuid(), CAST(:id AS uuid), timestamptz '2026-11-24 10:00Z')
""")


async def test_attempts_are_listed_newest_first_and_a_running_one_has_no_outcome(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    id_ = (await submit(client))["id"]
    other = (await submit(client, id="another"))["id"]
    url = f"/v1/uploads/{id_}/attempts"
    assert (await client.get(url)).json() == {"attempts": []}
    async with database.transaction() as connection:
        await connection.execute(_ADD, {"id": id_, "count": 2})
        await connection.execute(_OPEN, {"id": id_})
        await connection.execute(_ADD, {"id": other, "count": 1})
    running, second, first = (await client.get(url)).json()["attempts"]
    assert running == {
        "openedAt": "2026-11-24T10:00:00Z",
        **dict.fromkeys(("closedAt", "outcome", "statusCode", "durationMs")),
    }
    assert second["openedAt"] == "2026-11-23T10:02:00Z"
    assert first == {
        "openedAt": "2026-11-23T10:01:00Z",
        "closedAt": "2026-11-23T10:01:01Z",
        "outcome": "http_503",
        "statusCode": 503,
        "durationMs": 900,
    }


async def test_of_many_attempts_the_latest_are_shown(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    id_ = (await submit(client))["id"]
    async with database.transaction() as connection:
        await connection.execute(_ADD, {"id": id_, "count": MAX_ATTEMPTS + 1})
    shown = (await client.get(f"/v1/uploads/{id_}/attempts")).json()["attempts"]
    assert len(shown) == MAX_ATTEMPTS
    assert shown[-1]["openedAt"] == "2026-11-23T10:02:00Z"


async def test_an_unknown_upload_has_no_attempts(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get(f"/v1/uploads/{NOBODYS_ID}/attempts"), 404)
