"""POST /v1/uploads: what is accepted, what the API answers, and what it stores."""

import asyncio
import base64
import sys
from types import CodeType, FrameType
from uuid import UUID

import httpx
import orjson
import pytest
import redis.asyncio
from sqlalchemy import text

from tests.api.calls import assert_problem, bearer, device_token, read_row, stored_body, submit
from tests.factories import resource
from uplift.intake.sealed import sealed
from uplift.intake.submission import parse
from uplift.ledger.database import Database
from uplift.queues import UPLOADS
from uplift.redis_connection import redis_url
from uplift.sealing import KeyRing
from uplift.settings import Settings

_JSON = {"Content-Type": "application/json"}
_LABELS = {"user": "alice", "fhirVersion": "R4"}


async def _post(
    client: httpx.AsyncClient,
    body: bytes,
    params: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    return await client.post(
        "/v1/uploads", content=body, params=params, headers={**_JSON, **(headers or {})}
    )


async def _count(database: Database) -> int:
    async with database.transaction() as connection:
        return int(await connection.scalar(text("SELECT count(*) FROM uploads")) or 0)


async def test_a_bare_resource_is_accepted_and_its_status_is_at_location(
    client: httpx.AsyncClient, alice: str
) -> None:
    response = await _post(
        client, orjson.dumps(resource()), {**_LABELS, "source": "s", "recordId": "r"}
    )
    assert response.status_code == 202
    status = response.json()
    UUID(status["id"])
    assert response.headers["location"] == status["statusUrl"] == f"/v1/uploads/{status['id']}"
    assert status == {
        "id": status["id"],
        "status": "queued",
        "reason": "new",
        "final": False,
        "user": "alice",
        "destination": "oneup",
        "fhirVersion": "R4",
        "resourceType": "Observation",
        "batch": None,
        "attempts": 0,
        "duplicate": False,
        "possibleDuplicate": False,
        "maybeOverwritten": False,
        "maybeStored": False,
        "cancelRequested": False,
        "createdAt": status["createdAt"],
        "updatedAt": status["createdAt"],
        "nextAttemptAt": status["createdAt"],
        "deliveredAt": None,
        "receipt": None,
        "issues": {"total": 0, "issue": []},
        "lastResponse": None,
        "statusUrl": status["statusUrl"],
    }
    assert (await client.get(response.headers["location"])).json() == status


async def test_the_resource_of_an_envelope_is_stored_byte_for_byte(
    client: httpx.AsyncClient, alice: str, database: Database, key_ring: KeyRing
) -> None:
    inner = (
        b'{ "valueDecimal": 72.500,\n\t"resourceType":"Observation", "note":"\\u00fc \xc3\xbc" }'
    )
    body = b'{"user":"alice","fhirVersion":"4.0.1","source":null, "resource" : ' + inner + b"\n}"
    response = await _post(client, body)
    assert response.status_code == 202
    assert response.json()["fhirVersion"] == "R4"
    assert await stored_body(database, key_ring, response.json()["id"]) == inner


async def test_a_bare_resource_is_stored_byte_for_byte(
    client: httpx.AsyncClient, alice: str, database: Database, key_ring: KeyRing
) -> None:
    body = b' {"resourceType":"Observation","resource":{}, "value":1.00}\r\n'
    response = await _post(client, body, _LABELS)
    assert await stored_body(database, key_ring, response.json()["id"]) == body


async def test_the_body_is_sealed_in_the_ledger(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    await submit(client, note="xylophone-canary")
    async with database.transaction() as connection:
        for table in ("uploads", "records", "users", "grants", "attempts"):
            rows = await connection.execute(text(f"SELECT {table}::text FROM {table}"))  # noqa: S608
            shown = "\n".join(rows.scalars())
            assert "canary" not in shown
            assert b"canary".hex() not in shown
            assert "obs-1" not in shown


async def test_the_envelope_counts_more_than_the_query(
    client: httpx.AsyncClient, alice: str, bob: str
) -> None:
    envelope = {"user": "alice", "fhirVersion": "DSTU2", "resource": resource()}
    response = await _post(client, orjson.dumps(envelope), {"user": "bob", "fhirVersion": "R4"})
    assert (response.json()["user"], response.json()["fhirVersion"]) == ("alice", "DSTU2")


async def test_the_query_completes_the_envelope(client: httpx.AsyncClient, alice: str) -> None:
    response = await _post(client, orjson.dumps({"resource": resource()}), _LABELS)
    assert (response.json()["user"], response.json()["fhirVersion"]) == ("alice", "R4")


async def test_every_json_content_type_of_fhir_is_accepted(
    client: httpx.AsyncClient, alice: str
) -> None:
    for content_type in (
        "application/json",
        "application/fhir+json",
        "application/json+fhir",
        "Application/FHIR+JSON; charset=UTF-8; fhirVersion=4.0",
    ):
        response = await _post(
            client, orjson.dumps(resource()), _LABELS, {"Content-Type": content_type}
        )
        assert response.status_code == 202, content_type


async def test_versions_can_have_healthkits_names(client: httpx.AsyncClient, alice: str) -> None:
    shown = {}
    for given in ("DSTU2", "1.0.2", "STU3", "3.0.1", "R4", "4.0.1"):
        response = await _post(
            client, orjson.dumps(resource()), {"user": "alice", "fhirVersion": given}
        )
        assert response.status_code == 202
        shown[given] = response.json()["fhirVersion"]
    assert shown == {
        "DSTU2": "DSTU2",
        "1.0.2": "DSTU2",
        "STU3": "STU3",
        "3.0.1": "STU3",
        "R4": "R4",
        "4.0.1": "R4",
    }


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/fhir+json; fhirVersion=4.0", 202),
        ("application/fhir+json; charset=utf-8; FHIRVERSION=4.0", 202),
        ('application/fhir+json;fhirVersion="4.0"', 202),
        ("application/fhir+json; fhirVersion=1.0", 400),
        ("application/json;charset=utf-8; fhirVersion = 1.0 ; a=b", 400),
        ('application/fhir+json;fhirversion="1.0"', 400),
        ("application/fhir+json; fhirVersion=", 202),  # it names none
    ],
)
async def test_a_content_type_that_names_another_version_is_refused(
    client: httpx.AsyncClient, alice: str, content_type: str, status: int
) -> None:
    headers = {"Content-Type": content_type}
    response = await _post(client, orjson.dumps(resource()), _LABELS, headers)
    assert response.status_code == status
    if status == 400:
        problem = assert_problem(response, 400)
        assert problem["code"] == "fhir_version"
        assert "1.0" in problem["detail"]
        assert "R4" in problem["detail"]


async def test_invalid_fhir_is_accepted_for_the_worker_to_judge(
    client: httpx.AsyncClient, alice: str
) -> None:
    response = await _post(client, b'{"resourceType":"NoSuchType","a":[null]}', _LABELS)
    assert response.status_code == 202


async def test_the_same_record_again_is_the_first_upload_and_a_duplicate(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    first = await submit(client)
    again = await submit(client)
    assert again == {**first, "duplicate": True}
    assert await _count(database) == 1


async def test_key_order_and_white_space_do_not_make_a_new_upload(
    client: httpx.AsyncClient, alice: str
) -> None:
    labels = {**_LABELS, "recordId": "r"}
    first = await _post(client, b'{"resourceType":"Basic","a":1,"b":2}', labels)
    again = await _post(client, b'{ "b":2, "a":1.0, "resourceType":"Basic"}', labels)
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["location"] == first.headers["location"]


async def test_new_content_of_a_record_is_a_new_upload_that_supersedes_the_unsent(
    client: httpx.AsyncClient, alice: str
) -> None:
    first = await submit(client, status="preliminary")
    second = await submit(client, status="final")
    assert second["id"] != first["id"]
    assert not second["duplicate"]
    older = (await client.get(first["statusUrl"])).json()
    assert (older["status"], older["reason"], older["final"]) == (
        "superseded",
        "newer_version",
        True,
    )


async def test_two_users_can_have_the_same_record(
    client: httpx.AsyncClient, alice: str, bob: str
) -> None:
    assert (await submit(client, "alice"))["id"] != (await submit(client, "bob"))["id"]


async def test_equal_records_at_the_same_time_are_one_upload(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    responses = await asyncio.gather(*(submit(client) for _ in range(8)))
    assert len({response["id"] for response in responses}) == 1
    assert sorted(response["duplicate"] for response in responses) == [False] + [True] * 7
    assert await _count(database) == 1


async def test_202_is_sent_only_after_the_commit(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    """A trigger runs at COMMIT, after every statement, and waits for a lock of this test."""
    async with database.transaction() as connection:
        await connection.execute(
            text("""
            CREATE FUNCTION wait_at_commit() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_advisory_xact_lock(77); RETURN NULL; END $$
            """)
        )
        await connection.execute(
            text("""
            CREATE CONSTRAINT TRIGGER wait_at_commit AFTER INSERT ON uploads
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait_at_commit()
            """)
        )
    try:
        async with database.transaction() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(77)"))
            response = asyncio.create_task(submit(client))
            while not await connection.scalar(
                text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            ):
                assert not response.done(), "202 was sent while the commit was under way"
                await asyncio.sleep(0.01)
            assert not response.done()
        status = await response
        assert (await read_row(database, status["id"])).state == "queued"
    finally:
        async with database.transaction() as connection:
            await connection.execute(text("DROP FUNCTION wait_at_commit CASCADE"))


async def test_after_a_failed_commit_there_is_no_202_and_nothing_is_enqueued(
    client: httpx.AsyncClient, alice: str, database: Database, settings: Settings
) -> None:
    async with database.transaction() as connection:
        await connection.execute(
            text("""
            CREATE FUNCTION fail_at_commit() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '57P01'; END $$
            """)
        )
        await connection.execute(
            text("""
            CREATE CONSTRAINT TRIGGER fail_at_commit AFTER INSERT ON uploads
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fail_at_commit()
            """)
        )
    async with redis.asyncio.from_url(redis_url(settings)) as queue:
        await queue.delete(UPLOADS)
        try:
            response = await _post(client, orjson.dumps(resource()), _LABELS)
        finally:
            async with database.transaction() as connection:
                await connection.execute(text("DROP FUNCTION fail_at_commit CASCADE"))
        assert_problem(response, 503)
        assert await _count(database) == 0
        kept = await submit(
            client
        )  # enqueued after anything that the failed one could have enqueued
        popped = await queue.blpop([UPLOADS], timeout=10)
        assert popped is not None
        assert await queue.llen(UPLOADS) == 0
    arguments, *_ = orjson.loads(base64.b64decode(orjson.loads(popped[1])["body"]))
    assert arguments == [[kept["id"]]]


_UNREADABLE = [
    b"",
    b"not json",
    b"{",
    b"[]",
    b'"text"',
    b"null",
    b"42",
    b"{}",
    b'{"resourceType": 3}',
    b'{"resourceType": ""}',
    b'{"resourceType": "No Such"}',
    b'{"resourceType": "Caf\xc3\xa9"}',
    b'{"resourceType":"Basic","x":NaN}',
    b'{"resourceType":"Basic","x":1e999}',
    b'{"resourceType":"Basic","x":"\\ud800"}',
    b'{"resourceType":"Basic","x":"\xff"}',
    b'\xef\xbb\xbf{"resourceType":"Basic"}',
    '{"resourceType":"Basic"}'.encode("utf-16"),
    b'{"resourceType":"Basic"} {"resourceType":"Basic"}',
    b'{"resource": null}',
    b'{"resource": []}',
    b'{"resource": {}}',
    b'{"resource": {"resourceType":"Basic"}, "user": 7}',
    b'{"resource": {"resourceType":"Basic"}, "user": ""}',
    b'{"resource": {"resourceType":"Basic"}, "user": "a\\u0000b"}',
    b'{"resource": {"resourceType":"Basic"}, "user": "a\\u001fb"}',
    b'{"resource": {"resourceType":"Basic"}, "user": "' + b"x" * 257 + b'"}',
    b'{"resource": {"resourceType":"Basic"}, "fhirVersion": ["R4"]}',
    b'{"resource": {"resourceType":"Basic"}, "fhirVersion": "R 4"}',
    b'{"resource": {"resourceType":"Basic"}, "fhirVersion": ""}',
    b'{"resource": {"resourceType":"Basic"}, "source": "' + b"x" * 1025 + b'"}',
    b'{"resource": {"resourceType":"Basic"}, "recordId": "' + b"x" * 1025 + b'"}',
    b'{"resourceType":"Basic","x":' + b"[" * 300 + b"]" * 300 + b"}",
    b'{"resourceType":"Basic","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"resource": {"resourceType":"Basic","x":' + b'{"a":' * 1000 + b"1" + b"}" * 1001 + b"}",
]


async def test_an_unreadable_body_is_a_400_that_quotes_nothing(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    for body in _UNREADABLE:
        response = await _post(client, body, _LABELS)
        assert response.status_code == 400, body[:80]
        problem = assert_problem(response, 400)
        assert "No Such" not in problem["detail"]
        assert "R 4" not in problem["detail"]
    assert await _count(database) == 0


async def test_a_missing_fhir_version_is_a_400_that_says_what_to_send(
    client: httpx.AsyncClient, alice: str
) -> None:
    response = await _post(client, orjson.dumps(resource()), {"user": "alice"})
    assert "fhirVersion" in assert_problem(response, 400)["detail"]


async def test_a_backend_must_name_a_user(client: httpx.AsyncClient, alice: str) -> None:
    response = await _post(client, orjson.dumps(resource()), {"fhirVersion": "R4"})
    assert "user" in assert_problem(response, 400)["detail"]


async def test_an_unknown_user_is_a_404_and_nothing_is_kept(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    response = await _post(
        client, orjson.dumps(resource()), {"user": "nobody", "fhirVersion": "R4"}
    )
    assert "POST /v1/users" in assert_problem(response, 404)["detail"]
    assert await _count(database) == 0


async def test_a_device_submits_for_its_own_user_only(
    anybody: httpx.AsyncClient, alice: str, bob: str, database: Database
) -> None:
    headers = bearer(await device_token(database, "alice"))
    for user, status in (({"user": "bob"}, 403), ({}, 202), ({"user": "alice"}, 202)):
        labels = {**user, "fhirVersion": "R4"}
        for response in (
            await _post(anybody, orjson.dumps(resource()), labels, headers),
            await _post(anybody, orjson.dumps({**labels, "resource": resource()}), None, headers),
        ):
            assert response.status_code == status
            if status == 202:
                assert response.json()["user"] == "alice"
            else:
                assert_problem(response, status)
                assert await _count(database) == 0


async def test_a_device_cannot_find_out_which_users_exist(
    anybody: httpx.AsyncClient, alice: str, bob: str, database: Database
) -> None:
    headers = bearer(await device_token(database, "alice"))
    responses = [
        await _post(anybody, orjson.dumps(resource()), {"user": name, "fhirVersion": "R4"}, headers)
        for name in ("bob", "nobody")
    ]
    assert responses[0].json() == responses[1].json()
    assert responses[0].status_code == responses[1].status_code == 403


@pytest.mark.parametrize(("note_bytes", "in_the_loop"), [(1_000, True), (200_000, False)])
async def test_a_large_body_is_read_and_sealed_outside_the_event_loop(
    client: httpx.AsyncClient,
    alice: str,
    database: Database,
    key_ring: KeyRing,
    note_bytes: int,
    in_the_loop: bool,
) -> None:
    body = orjson.dumps(resource(note=[{"text": "n" * note_bytes}]))
    called: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            called.add(frame.f_code)

    sys.setprofile(note)  # only of this thread, which runs the loop
    try:
        response = await _post(client, body, _LABELS)
    finally:
        sys.setprofile(None)
    assert response.status_code == 202
    assert (parse.__code__ in called, sealed.__code__ in called) == (in_the_loop, in_the_loop)
    assert await stored_body(database, key_ring, response.json()["id"]) == body
