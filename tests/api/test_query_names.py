"""A query parameter that an address does not have is refused, and nothing is done or listed."""

from typing import Any

import httpx
import orjson
import pytest

from tests.api.calls import NOBODYS_ID, submit
from tests.factories import resource

_ROUTES = [
    ("POST", "/v1/uploads"),
    ("GET", "/v1/uploads"),
    ("GET", f"/v1/uploads/{NOBODYS_ID}"),
    ("GET", f"/v1/uploads/{NOBODYS_ID}/attempts"),
    ("DELETE", f"/v1/uploads/{NOBODYS_ID}"),
    ("POST", f"/v1/uploads/{NOBODYS_ID}/redrive"),
    ("POST", "/v1/uploads/redrive"),
    ("POST", f"/v1/uploads/{NOBODYS_ID}/try-now"),
    ("POST", "/v1/uploads/try-now"),
    ("GET", "/v1/pauses"),
    ("PUT", "/v1/pause"),
    ("DELETE", "/v1/pause"),
    ("PUT", "/v1/users/alice/pause"),
    ("DELETE", "/v1/users/alice/pause"),
    ("POST", "/v1/batches"),
    ("GET", "/v1/batches"),
    ("GET", f"/v1/batches/{NOBODYS_ID}"),
    ("GET", f"/v1/batches/{NOBODYS_ID}/lines"),
    ("POST", "/v1/users"),
    ("GET", "/v1/users"),
    ("GET", "/v1/users/alice"),
    ("PUT", "/v1/users/alice/grant"),
    ("PUT", "/v1/users/alice/destination"),
    ("PUT", "/v1/users/alice/patient"),
    ("POST", "/v1/users/alice/resend"),
    ("GET", "/v1/users/alice/summary"),
    ("DELETE", "/v1/users/alice"),
    ("POST", "/v1/users/alice/device-tokens"),
    ("GET", "/v1/users/alice/device-tokens"),
    ("DELETE", "/v1/users/alice/device-tokens"),
    ("DELETE", f"/v1/users/alice/device-tokens/{NOBODYS_ID}"),
]


@pytest.mark.parametrize(("method", "path"), _ROUTES)
async def test_a_misspelt_parameter_is_refused_by_its_name(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    response = await client.request(method, f"{path}?sourc=canary")
    assert response.status_code == 400
    (error,) = response.json()["errors"]
    assert error["where"] == "query.sourc"
    assert "no such parameter" in error["what"]
    assert "canary" not in response.text


async def test_every_operation_of_the_description_refuses_them(anybody: httpx.AsyncClient) -> None:
    paths = (await anybody.get("/openapi.json")).json()["paths"]
    described = {
        (method.upper(), path)
        for path, operations in paths.items()
        for method in operations
        # Reading back passes its query on, and FHIR clients send what they like to `metadata`.
        if path.startswith("/v1/") and "/fhir/" not in path
    }
    assert len(described) == len(_ROUTES)


async def test_the_answer_lists_the_parameters_of_the_address(client: httpx.AsyncClient) -> None:
    response = await client.get("/v1/users", params={"Grant": "active"})
    (error,) = response.json()["errors"]
    assert error["what"].endswith("This address takes grant, order, after, limit.")


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("user=alice&user=bob", "query.user"),
        ("limit=1&limit=1", "query.limit"),
        ("user=alice&%75ser=alice", "query.user"),
        ("Jane%20Doe=1", "query"),
    ],
)
async def test_a_parameter_that_is_there_twice_or_no_plain_name_is_refused(
    client: httpx.AsyncClient, alice: str, query: str, where: str
) -> None:
    response = await client.get(f"/v1/uploads?{query}")
    assert [each["where"] for each in response.json()["errors"]] == [where]
    assert "Jane" not in response.text


@pytest.mark.parametrize("query", ["status=queued&status=rejected", "&&", ""])
async def test_a_parameter_that_can_repeat_may(
    client: httpx.AsyncClient, alice: str, query: str
) -> None:
    assert (await client.get(f"/v1/uploads?{query}")).status_code == 200


async def test_without_a_credential_the_answer_is_401_whatever_the_query(
    anybody: httpx.AsyncClient,
) -> None:
    assert (await anybody.get("/v1/uploads?sourc=a")).status_code == 401


async def test_health_checks_may_add_what_they_like(anybody: httpx.AsyncClient) -> None:
    assert (await anybody.get("/healthz?probe=1")).status_code == 200


@pytest.mark.parametrize(
    ("query", "body", "says"),
    [
        ({}, {"sourc": "a"}, "`sourc`"),
        ({"fhirVersion": "R5"}, {}, "fhirVersion"),
        ({}, {"fhirVersion": "R5"}, "fhirVersion"),
        ({}, {"resource": {"resourceType": "Bundle"}}, "/v1/batches"),
    ],
)
async def test_a_mistake_in_a_submission_is_named_and_nothing_is_accepted(
    client: httpx.AsyncClient, alice: str, query: dict[str, str], body: dict[str, Any], says: str
) -> None:
    envelope = {"user": alice, "resource": resource(), **({} if query else {"fhirVersion": "R4"})}
    response = await client.post("/v1/uploads", params=query, json={**envelope, **body})
    assert response.status_code == 400
    assert says in response.json()["detail"]
    listed = (await client.get("/v1/uploads")).json()["uploads"]
    assert not listed


async def test_a_bundle_or_an_array_as_an_upload_is_sent_to_batches(
    client: httpx.AsyncClient, alice: str
) -> None:
    bundle = {"resourceType": "Bundle", "type": "batch", "entry": [{"resource": resource()}]}
    for body in (bundle, [resource()]):
        response = await client.post(
            "/v1/uploads", params={"user": alice, "fhirVersion": "R4"}, json=body
        )
        assert response.status_code == 400
        assert "/v1/batches" in response.json()["detail"]


async def test_a_name_twice_is_a_problem_of_its_line_and_of_a_whole_bundle(
    client: httpx.AsyncClient, alice: str
) -> None:
    twice = b'{"resourceType":"Patient","id":"1","gender":"male","\\u0067ender":"female"}'
    plain = orjson.dumps(resource(id="2"))
    query = {"user": alice, "fhirVersion": "R4"}
    single = await client.post(
        "/v1/uploads", params=query, content=twice, headers={"Content-Type": "application/json"}
    )
    assert single.status_code == 400
    assert "`gender`" in single.json()["detail"]
    lines = await client.post(
        "/v1/batches",
        params=query,
        content=twice + b"\n" + plain,
        headers={"Content-Type": "application/x-ndjson"},
    )
    first, second = lines.json()["lines"]
    assert first["problem"]["status"] == 400
    assert "`gender`" in first["problem"]["detail"]
    assert second["id"]
    bundle = b'{"resourceType":"Bundle","type":"batch","entry":[{"resource":%s},{"resource":%s}]}'
    refused = await client.post(
        "/v1/batches",
        params=query,
        content=bundle % (plain, twice),
        headers={"Content-Type": "application/fhir+json"},
    )
    assert refused.status_code == 400
    assert "`gender`" in refused.json()["detail"]
    assert len((await client.get("/v1/batches")).json()["batches"]) == 1


async def test_a_batch_for_another_version_is_refused_before_its_lines(
    client: httpx.AsyncClient, alice: str
) -> None:
    response = await client.post(
        "/v1/batches",
        params={"user": alice, "fhirVersion": "R5"},
        content=orjson.dumps(resource()),
        headers={"Content-Type": "application/x-ndjson"},
    )
    assert response.status_code == 400
    assert "fhirVersion" in response.json()["detail"]


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/v1/users/alice/device-tokens", b'{"expiresIn":60,"user":"bob"}', "body.user"),
        ("/v1/users/alice/device-tokens", b'{"expiresIn":60,"expiresIn":9}', "`expiresIn`"),
        ("/v1/users", b'{"appUserId":"carol","grant":"active"}', "body.grant"),
    ],
)
async def test_other_bodies_refuse_unknown_and_repeated_fields_too(
    client: httpx.AsyncClient, alice: str, path: str, body: bytes, says: str
) -> None:
    response = await client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert says in response.text


async def test_a_known_parameter_still_selects(client: httpx.AsyncClient, alice: str) -> None:
    await submit(client, alice)
    page = await client.get("/v1/uploads?status=queued&status=sending&user=alice&limit=1")
    assert len(page.json()["uploads"]) == 1
    assert (await client.get(page.json()["next"])).status_code == 200
