"""Batches over HTTP: what is accepted, the result of each line, and who may read it."""

import gzip
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest
from fastapi import FastAPI
from jsonschema_rs import Draft202012Validator
from sqlalchemy import text
from uuid_utils.compat import uuid4

from tests.api.calls import (
    NOBODYS_ID,
    Keys,
    assert_problem,
    bearer,
    device_token,
    move,
    read_row,
    stored_body,
    submit,
)
from tests.factories import resource
from uplift.ledger.database import Database
from uplift.lifecycle import State
from uplift.sealing import KeyRing
from uplift.settings import Settings

NDJSON = "application/x-ndjson"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_body_bytes": 100_000, "max_batch_lines": 300})


def observation(number: int, **elements: Any) -> dict[str, Any]:
    return resource(id=f"obs-{number}", **elements)


def envelope(number: int, **more: Any) -> bytes:
    return orjson.dumps(
        {"fhirVersion": "R4", "source": "hospital-a", "resource": observation(number), **more}
    )


def bundle(*entries: Any, type_: Any = "collection") -> bytes:
    return orjson.dumps({"resourceType": "Bundle", "type": type_, "entry": list(entries)})


async def post(
    client: httpx.AsyncClient,
    content: bytes,
    content_type: str = NDJSON,
    *,
    user: str | None = "alice",
    headers: dict[str, str] | None = None,
    **query: str,
) -> httpx.Response:
    params = {**query, **({"user": user} if user else {})}
    return await client.post(
        "/v1/batches",
        params=params,
        content=content,
        headers={"Content-Type": content_type, **(headers or {})},
    )


async def submitted(client: httpx.AsyncClient, *lines: bytes, **query: Any) -> dict[str, Any]:
    """The answer to a batch of these lines."""
    response = await post(client, b"\n".join(lines), **query)
    assert response.status_code == 202, response.text
    return dict(response.json())


def statuses(batch: dict[str, Any]) -> list[str]:
    """For each line its status, `duplicate`, or the status of its problem."""
    return [
        str(line["problem"]["status"])
        if "problem" in line
        else ("duplicate" if line["duplicate"] else line["status"])
        for line in batch["lines"]
    ]


async def test_every_line_is_committed_and_has_a_result(
    client: httpx.AsyncClient, alice: str, database: Database, key_ring: KeyRing
) -> None:
    response = await post(client, b"".join(envelope(number) + b"\n" for number in range(150)))
    assert response.status_code == 202
    batch = response.json()
    assert response.headers["Location"] == batch["statusUrl"] == f"/v1/batches/{batch['id']}"
    assert (batch["user"], batch["total"], batch["accepted"]) == ("alice", 150, 150)
    assert (batch["closed"], batch["broken"]) == (True, False)
    assert [line["line"] for line in batch["lines"]] == list(range(1, 151))
    assert statuses(batch) == ["queued"] * 150
    for number in (0, 149):
        upload_id = batch["lines"][number]["id"]
        assert (await read_row(database, upload_id)).batch_id == UUID(batch["id"])
        kept = await stored_body(database, key_ring, upload_id)
        assert kept == orjson.dumps(observation(number))


async def test_one_wrong_line_does_not_affect_the_others(
    client: httpx.AsyncClient, alice: str
) -> None:
    await submit(client, id="obs-9")
    long = orjson.dumps(observation(5, note=[{"text": "x" * 100_001}]))
    batch = await submitted(
        client,
        envelope(1),
        b"{",
        b"",
        long,
        envelope(2, user="bob"),
        envelope(9),
        envelope(2, user="alice"),
        envelope(2),
    )
    assert statuses(batch) == ["queued", "400", "413", "400", "duplicate", "queued", "duplicate"]
    assert [line["line"] for line in batch["lines"]] == [1, 2, 4, 5, 6, 7, 8]
    assert (batch["accepted"], batch["duplicates"], batch["problems"]) == (2, 2, 3)
    problem = batch["lines"][2]["problem"]
    assert problem["title"] == "The body is too large"
    assert "100000 bytes" in problem["detail"]


async def test_each_name_of_ndjson_is_accepted(client: httpx.AsyncClient, alice: str) -> None:
    results = []
    for content_type in (
        NDJSON,
        "application/ndjson",
        "application/fhir+ndjson",
        "Application/X-NDJSON; charset=utf-8",
    ):
        results += statuses((await post(client, envelope(1), content_type)).json())
    assert results == ["queued", "duplicate", "duplicate", "duplicate"]


async def test_bare_resources_get_the_labels_of_the_batch(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    lines = [orjson.dumps(observation(1)), envelope(2, fhirVersion="1.0.2")]
    assert statuses(await submitted(client, *lines)) == ["400", "queued"]
    batch = await submitted(client, *lines, fhirVersion="4.0.1", source="hospital-a")
    assert statuses(batch) == ["queued", "duplicate"]
    assert (await read_row(database, batch["lines"][0]["id"])).fhir_version == "R4"


async def test_a_line_of_another_version_than_the_content_type_names_is_a_problem_of_that_line(
    client: httpx.AsyncClient, alice: str
) -> None:
    lines = [envelope(1), envelope(2, fhirVersion="1.0.2"), orjson.dumps(observation(3))]
    of_lines = f"{NDJSON}; fhirVersion=4.0"
    batch = (await post(client, b"\n".join(lines), of_lines)).json()
    assert statuses(batch) == ["queued", "400", "queued"]
    assert "4.0" in batch["lines"][1]["problem"]["detail"]
    assert "DSTU2" in batch["lines"][1]["problem"]["detail"]


@pytest.mark.parametrize("content_type", [NDJSON, "application/fhir+json"])
async def test_a_batch_whose_query_and_content_type_name_two_versions_is_refused(
    client: httpx.AsyncClient, alice: str, content_type: str
) -> None:
    response = await post(client, bundle(), f"{content_type}; fhirVersion=1.0", fhirVersion="R4")
    problem = assert_problem(response, 400)
    assert problem["code"] == "fhir_version"
    assert "1.0" in problem["detail"]
    assert "R4" in problem["detail"]
    assert (await client.get("/v1/batches")).json()["batches"] == []


async def test_each_entry_of_a_bundle_is_an_upload(
    client: httpx.AsyncClient, alice: str, database: Database, key_ring: KeyRing
) -> None:
    first = b'{ "resourceType" : "Observation", "id": "a", "valueDecimal": 1.50 }'
    body = (
        b'{"resourceType":"Bundle","type":"collection","entry":[{"resource":'
        + first
        + b'},{"resource":"text"},{"resource":{"id":"without type"}},'
        b'{"resource":{"resourceType":"Patient","id":"b"}}]}'
    )
    for content_type, result in (
        ("application/fhir+json", "queued"),
        ("application/json", "duplicate"),
    ):
        response = await post(client, body, content_type, fhirVersion="R4")
        batch = response.json()
        assert statuses(batch) == [result, "400", "400", result]
        assert await stored_body(database, key_ring, batch["lines"][0]["id"]) == first


async def test_half_a_surrogate_pair_in_one_entry_of_a_bundle_refuses_that_entry_only(
    client: httpx.AsyncClient, alice: str
) -> None:
    body = bundle(
        {"resource": observation(1)},
        {"resource": observation(2, note=[{"text": "HALF"}])},
        {"resource": observation(3)},
    ).replace(b"HALF", b"\\ud800")
    batch = (await post(client, body, "application/fhir+json", fhirVersion="R4")).json()
    assert statuses(batch) == ["queued", "400", "queued"]
    assert "surrogate" in batch["lines"][1]["problem"]["detail"]


async def test_a_body_that_is_not_a_bundle_of_uploads_is_not_a_batch(
    client: httpx.AsyncClient, alice: str
) -> None:
    """test_batch_bodies.py has all of them."""
    for body in (b"{", bundle(type_="message")):
        assert_problem(await post(client, body, "application/fhir+json"), 400)
    assert (await client.get("/v1/batches")).json() == {"batches": [], "next": None}


async def test_a_bundle_without_entries_is_an_empty_batch(
    client: httpx.AsyncClient, alice: str
) -> None:
    response = await post(client, bundle(), "application/fhir+json")
    assert response.status_code == 202
    assert response.json()["lines"] == []


@pytest.mark.parametrize("body", [b"", b"\n", b"\r\n \n"])
async def test_a_batch_without_a_line_is_refused_and_nothing_of_it_stays(
    client: httpx.AsyncClient, alice: str, body: bytes
) -> None:
    assert "no line" in assert_problem(await post(client, body), 400)["detail"]
    assert (await client.get("/v1/batches")).json()["batches"] == []


async def test_other_content_types_and_encodings_are_refused(
    client: httpx.AsyncClient, alice: str
) -> None:
    for content_type, encoding in (
        ("text/plain", ""),
        ("application/jsonl", ""),
        (NDJSON, "deflate"),
        ("application/fhir+json", "br"),
    ):
        headers = {"Content-Encoding": encoding} if encoding else {}
        assert_problem(await post(client, envelope(1), content_type, headers=headers), 415)


async def test_a_batch_may_be_gzip(client: httpx.AsyncClient, alice: str) -> None:
    lines = gzip.compress(b"\n".join(envelope(number) for number in range(3)))
    response = await post(client, lines, NDJSON, headers={"Content-Encoding": "gzip"})
    assert (response.status_code, response.json()["accepted"]) == (202, 3)
    cut = await post(client, lines[:-8], NDJSON, headers={"Content-Encoding": "gzip"})
    assert assert_problem(cut, 400)["code"] == "not_gzip"


async def test_a_bundle_over_the_cap_is_refused(client: httpx.AsyncClient, alice: str) -> None:
    body = bundle({"resource": observation(1, note=[{"text": "x" * 100_000}])})
    assert_problem(await post(client, body, "application/fhir+json"), 413)


async def test_a_batch_of_lines_may_be_larger_than_a_body(
    client: httpx.AsyncClient, alice: str
) -> None:
    batch = await submitted(client, *(envelope(n, source="x" * 1000) for n in range(150)))
    assert batch["accepted"] == 150


async def test_the_first_line_over_the_limit_has_a_problem_that_says_so(
    client: httpx.AsyncClient, alice: str
) -> None:
    batch = await submitted(client, *(envelope(number) for number in range(400)))
    assert statuses(batch) == ["queued"] * 300 + ["413"]
    assert "at most 300 lines" in batch["lines"][-1]["problem"]["detail"]
    assert (batch["broken"], batch["closed"]) == (True, True)


async def test_a_batch_needs_a_known_user(client: httpx.AsyncClient, alice: str) -> None:
    for body, content_type in (
        (envelope(1, user="alice"), NDJSON),
        (bundle(), "application/fhir+json"),
    ):
        assert_problem(await post(client, body, content_type, user="nobody"), 404)
        problem = assert_problem(await post(client, body, content_type, user=None), 400)
        assert "?user=" in problem["detail"]


async def test_a_client_can_choose_an_id_once(client: httpx.AsyncClient, alice: str) -> None:
    id_ = str(uuid4())
    assert (await submitted(client, envelope(1), batch=id_))["id"] == id_
    problem = assert_problem(await post(client, envelope(2), batch=id_), 409)
    assert "an id of its own" in problem["detail"]
    assert_problem(await post(client, envelope(2), batch="mine"), 400)
    assert (await client.get(f"/v1/batches/{id_}")).json()["total"] == 1


async def test_a_batch_counts_its_lines_by_status(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    batch = await submitted(client, *(envelope(number) for number in range(5)), b"{", envelope(0))
    ids = [line["id"] for line in batch["lines"] if "id" in line]
    response = await client.get(batch["statusUrl"])
    status = response.json()
    assert int(response.headers["Retry-After"]) >= 1
    assert status["byStatus"] == dict.fromkeys(State, 0) | {"queued": 6}
    assert (status["total"], status["accepted"], status["duplicates"], status["problems"]) == (
        7, 5, 1, 1,
    )  # fmt: skip
    assert (status["progress"], status["settled"]) == (pytest.approx(1 / 7), False)

    await move(database, ids[0], State.DELIVERED)
    await move(database, ids[1], State.REJECTED)
    await move(database, ids[2], State.PARKED)
    await move(
        database,
        ids[3],
        State.SENDING,
        new_lease_id=uuid4(),
        lease_seconds=60.0,
        attempt_seconds=30.0,
        clock=9.0,
    )
    status = (await client.get(batch["statusUrl"])).json()
    assert status["byStatus"] == dict.fromkeys(State, 0) | {
        "delivered": 2, "rejected": 1, "parked": 1, "sending": 1, "queued": 1,
    }  # fmt: skip
    assert status["progress"] == pytest.approx(5 / 7)


async def test_a_batch_without_work_left_is_settled(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    batch = await submitted(client, envelope(1), envelope(2), b"{")
    for line, state in zip(batch["lines"], (State.DELIVERED, State.PARKED), strict=False):
        await move(database, line["id"], state)
    response = await client.get(batch["statusUrl"])
    assert "Retry-After" not in response.headers
    assert (response.json()["progress"], response.json()["settled"]) == (1.0, True)


async def test_the_lines_are_read_in_pages_with_the_status_as_it_is(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    batch = await submitted(client, *(envelope(number) for number in range(6)), b"", b"{")
    await move(database, batch["lines"][3]["id"], State.DELIVERED)
    url, pages = f"{batch['linesUrl']}?limit=3", []
    while url:
        page = (await client.get(url)).json()
        pages.append(page["lines"])
        url = page["next"]
    assert [[line["line"] for line in page] for page in pages] == [[1, 2, 3], [4, 5, 6], [8]]
    assert pages[1][0]["status"] == "delivered"
    assert pages[2][0]["problem"]["status"] == 400
    assert set(pages[2][0]) == {"line", "problem"}


async def test_a_wrong_page_of_lines_is_refused(client: httpx.AsyncClient, alice: str) -> None:
    batch = await submitted(client, envelope(1))
    for query in ("after=-1", "after=x", "after=2147483648", "limit=0", "limit=1001"):
        assert_problem(await client.get(f"{batch['linesUrl']}?{query}"), 400)


async def test_batches_are_listed_the_newest_first(
    client: httpx.AsyncClient, alice: str, bob: str
) -> None:
    made = [(await submitted(client, envelope(number)))["id"] for number in range(5)]
    bobs = (await submitted(client, envelope(1), user="bob"))["id"]
    everything = (await client.get("/v1/batches")).json()
    assert [each["id"] for each in everything["batches"]] == [bobs, *reversed(made)]
    url, found = "/v1/batches?user=alice&limit=2", []
    while url:
        page = (await client.get(url)).json()
        found += [each["id"] for each in page["batches"]]
        url = page["next"]
    assert found == list(reversed(made))
    assert_problem(await client.get("/v1/batches?user=nobody"), 404)
    assert (await client.get(f"/v1/batches?after={NOBODYS_ID}")).json()["batches"] == []


async def test_the_uploads_of_a_batch_are_listed(client: httpx.AsyncClient, alice: str) -> None:
    await submit(client, id="obs-0")
    batch = await submitted(client, *(envelope(number) for number in range(4)))
    ids = [line["id"] for line in batch["lines"]]
    url, found = f"/v1/uploads?batch={batch['id']}&order=asc&limit=2", []
    while url:
        page = (await client.get(url)).json()
        assert {each["batch"] for each in page["uploads"]} <= {batch["id"]}
        found += [each["id"] for each in page["uploads"]]
        url = page["next"]
    # The first was accepted before: it is a line of the batch, but the batch did not create it.
    assert found == ids[1:]


async def test_a_device_submits_and_reads_batches_of_its_own_user_only(
    client: httpx.AsyncClient,
    anybody: httpx.AsyncClient,
    alice: str,
    bob: str,
    database: Database,
) -> None:
    theirs = bearer(await device_token(database, "alice"))
    bobs = await submitted(client, envelope(1), user="bob")
    response = await post(anybody, envelope(1), user=None, headers=theirs)
    own = response.json()
    assert (response.status_code, own["user"]) == (202, "alice")
    assert_problem(await post(anybody, envelope(1), user="bob", headers=theirs), 403)
    for url in (bobs["statusUrl"], bobs["linesUrl"], f"/v1/batches/{NOBODYS_ID}"):
        assert_problem(await anybody.get(url, headers=theirs), 404)
    for url in (own["statusUrl"], own["linesUrl"]):
        assert (await anybody.get(url, headers=theirs)).status_code == 200
    listed = (await anybody.get("/v1/batches", headers=theirs)).json()["batches"]
    assert [each["id"] for each in listed] == [own["id"]]
    unlisted = await anybody.get(f"/v1/uploads?batch={bobs['id']}", headers=theirs)
    assert unlisted.json()["uploads"] == []


async def test_an_operator_reads_batches_but_cannot_submit_one(
    client: httpx.AsyncClient, anybody: httpx.AsyncClient, alice: str, keys: Keys
) -> None:
    batch = await submitted(client, envelope(1))
    headers = bearer(keys.operator)
    assert (await anybody.get(batch["statusUrl"], headers=headers)).status_code == 200
    assert_problem(await post(anybody, envelope(1), headers=headers), 403)


async def test_the_streamed_answer_matches_its_description(
    app: FastAPI, client: httpx.AsyncClient, alice: str
) -> None:
    described: Any = app.openapi()
    responses = described["paths"]["/v1/batches"]["post"]["responses"]["202"]
    schema = responses["content"]["application/json"]["schema"]
    validator = Draft202012Validator(
        {**schema, "components": {"schemas": described["components"]["schemas"]}}
    )
    for lines in ([envelope(1)], [envelope(1), b"{", envelope(3)]):
        batch = await submitted(client, *lines)
        assert validator.is_valid(batch), list(validator.iter_errors(batch))
    assert not validator.is_valid({**batch, "lines": [{}]})


async def test_when_the_ledger_fails_in_between_the_problem_says_where_the_accepted_lines_are(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    batch_id = uuid4()

    async def rename(old: str, new: str) -> None:
        async with database.transaction() as connection:
            await connection.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))

    async def body() -> AsyncIterator[bytes]:
        for number in range(300):
            if number == 280:
                await rename("batch_lines", "away")
            yield envelope(number) + b"\n"

    try:
        response = await client.post(
            f"/v1/batches?user=alice&batch={batch_id}",
            content=body(),
            headers={"Content-Type": NDJSON},
        )
    finally:
        await rename("away", "batch_lines")
    detail = assert_problem(response, 503)["detail"]
    assert f"/v1/batches/{batch_id}/lines" in detail
    assert "Nothing was accepted" not in detail
    assert int(response.headers["Retry-After"]) > 0
    batch = (await client.get(f"/v1/batches/{batch_id}")).json()
    assert batch["broken"]
    assert batch["accepted"] in {0, 250}  # the first group may be under way then
    lines = (await client.get(f"/v1/batches/{batch_id}/lines?limit=1000")).json()["lines"]
    assert [line["line"] for line in lines] == list(range(1, batch["accepted"] + 1))
