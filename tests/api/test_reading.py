"""Reading back over HTTP: uploaded records return, and no path leads out of the FHIR base."""

import json
import logging
from dataclasses import replace
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest
from fastapi import FastAPI

from tests import factories
from tests.api.calls import Keys, assert_problem, bearer
from tests.api.serving import ApiServer, answer_on
from uplift.queues import UPLOADS
from uplift.sandbox.testing import SandboxServer
from uplift.wiring import Relay

FHIR = "/v1/users/alice/fhir"
_READ = {"api": "fhir", "method": "GET"}


@pytest.fixture
async def reader(client: httpx.AsyncClient, relay: Relay) -> httpx.AsyncClient:
    """The backend's client; alice has a grant."""
    await factories.user(relay)
    return client


def store_grant(server: ApiServer, upstream: SandboxServer, keys: Keys) -> None:
    """Give alice a working grant at a server of its own."""
    token = upstream.grant("alice")["access_token"]
    httpx.put(
        f"{server.url}/v1/users/alice/grant",
        json={"accessToken": token, "expiresIn": 3600},
        headers=bearer(keys.backend),
    ).raise_for_status()


async def upload(
    client: httpx.AsyncClient, relay: Relay, version: str, resources: list[dict[str, Any]]
) -> None:
    """Submit these of alice, and deliver them."""
    ids = []
    for each in resources:
        response = await client.post(
            "/v1/uploads",
            params={"user": "alice", "fhirVersion": version, "source": "hospital-a"},
            content=orjson.dumps(each),
            headers={"Content-Type": "application/fhir+json"},
        )
        assert response.status_code == 202, response.text
        ids.append(UUID(response.json()["id"]))
    await relay.deliverer.deliver(UPLOADS)


def without_meta(resource: dict[str, Any]) -> dict[str, Any]:
    """The resource without what a server sets."""
    return {name: value for name, value in resource.items() if name != "meta"}


async def pages(client: httpx.AsyncClient, url: str) -> list[dict[str, Any]]:
    """Every page of a search, by its next links."""
    found = []
    while url:
        response = await client.get(url)
        assert response.status_code == 200, response.text
        page = response.json()
        found.append(page)
        url = next((each["url"] for each in page["link"] if each["relation"] == "next"), "")
        assert not url or url.startswith(f"http://uplift{FHIR}/")
    return found


def resources_of(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is on these pages."""
    return [without_meta(entry["resource"]) for page in found for entry in page["entry"]]


def by_id(resource: dict[str, Any]) -> str:
    return str(resource["id"])


@pytest.mark.parametrize("version", ["DSTU2", "STU3", "R4"])
async def test_uploaded_records_return_unchanged_through_paging(
    reader: httpx.AsyncClient, relay: Relay, version: str
) -> None:
    sent = [
        factories.resource(
            id=f"obs-{number:02}",
            identifier=[{"system": "urn:x", "value": f"{number % 2}"}],
            valueQuantity={"value": number + 0.25, "unit": "Größe"},
        )
        for number in range(23)
    ]
    await upload(reader, relay, version, sent)

    everything = await pages(reader, f"{FHIR}/{version}/Observation?_count=10")
    assert [len(page["entry"]) for page in everything] == [10, 10, 3]
    assert sorted(resources_of(everything), key=by_id) == sent

    half = await pages(reader, f"{FHIR}/{version}/Observation?identifier=urn:x%7C1&_count=4")
    assert [len(page["entry"]) for page in half] == [4, 4, 3]
    assert sorted(resources_of(half), key=by_id) == sent[1::2]

    for one in sent[:3]:
        response = await reader.get(f"{FHIR}/{version}/Observation/{one['id']}")
        assert without_meta(response.json()) == one


@pytest.mark.parametrize("version", ["DSTU2", "R4"])
async def test_everything_of_a_patient_returns_through_paging(
    reader: httpx.AsyncClient, relay: Relay, version: str
) -> None:
    patient = {"resourceType": "Patient", "id": "p1", "gender": "other"}
    observations = [factories.resource(id=f"obs-{number:02}") for number in range(12)]
    await upload(reader, relay, version, [patient, *observations])
    found = await pages(reader, f"{FHIR}/{version}/Patient/p1/$everything")
    assert [len(page["entry"]) for page in found] == [10, 3]
    assert sorted(resources_of(found), key=by_id) == [*observations, patient]


async def test_an_earlier_version_of_a_resource_can_be_read(
    reader: httpx.AsyncClient, relay: Relay
) -> None:
    await upload(reader, relay, "R4", [factories.resource()])
    await upload(reader, relay, "R4", [factories.resource(status="amended")])
    for url, status in (
        ("Observation/obs-1", "amended"),
        ("Observation/obs-1/_history/2", "amended"),
        ("Observation/obs-1/_history/1", "final"),
    ):
        assert (await reader.get(f"{FHIR}/R4/{url}")).json()["status"] == status
    assert_problem(await reader.get(f"{FHIR}/R4/Observation/obs-1/_history/3"), 404)


async def test_health_data_is_fhir_json_that_no_cache_keeps(
    reader: httpx.AsyncClient, relay: Relay
) -> None:
    await upload(reader, relay, "R4", [factories.resource()])
    for path in ("Observation", "Observation/obs-1"):
        response = await reader.get(f"{FHIR}/R4/{path}")
        assert response.headers["content-type"] == "application/fhir+json"
        assert response.headers["cache-control"] == "no-store"


async def test_links_name_the_version_in_one_way(reader: httpx.AsyncClient) -> None:
    for name in ("r4", "4.0.1", "R4"):
        page = (await reader.get(f"{FHIR}/{name}/Observation?_count=1")).json()
        assert page["link"] == [
            {"relation": "self", "url": f"http://uplift{FHIR}/R4/Observation?_count=1"}
        ]


async def test_links_lead_back_to_a_user_whose_name_needs_encoding(
    client: httpx.AsyncClient, relay: Relay
) -> None:
    await factories.user(relay, "Patient/ö?1")
    mine = "/v1/users/Patient%2F%C3%B6%3F1/fhir/R4/Observation?_count=1"
    page = (await client.get(mine)).json()
    assert page["link"] == [{"relation": "self", "url": f"http://uplift{mine}"}]
    assert (await client.get(page["link"][0]["url"])).json() == page


# Those that a server could decode or normalise before the route sees them. The whole table is in
# tests/uplift/fhir/test_interactions.py.
_OUTSIDE = [
    "R4/Observation/../Patient",
    "R4/../../user-management/v1/user",
    "R4/%2e%2e/%2e%2e/user-management/v1/user",
    "R4/%252e%252e/Observation",
    "R4/..%2fuser-management%2fv1%2fuser",
    "R4/Observation%2fobs-1",
    "R4/Observation/..%5c..",
    "R4//evil.example/Observation",
    "R4/http://evil.example/Observation",
    "R4/http:%2f%2fevil.example",
    "R4/@evil.example",
    "R4/Observation/1%00",
    "R4/Observation/1%0d%0aHost:%20evil.example",
    "R4/Observation%0a",
    "R4/Observation/1%3f_format=json",
    "R4/Observation/1%23",
    "R4/Observation/%FF",
    "R4/",
    "R4/Observation?_method=DELETE",
    "R4/Observation?access_token=canary",
    "R4/Observation?name=%0d%0a",
    "r4b/Observation",
    "metadata/Observation",
    "%2e%2e/Observation",
]


async def test_a_path_out_of_the_fhir_base_is_refused_and_1uphealth_is_not_asked(
    server: ApiServer, upstream: SandboxServer, keys: Keys
) -> None:
    store_grant(server, upstream, keys)
    for target in _OUTSIDE:
        with server.connect() as connection:
            connection.sendall(
                f"GET {FHIR}/{target} HTTP/1.1\r\nHost: uplift\r\n"
                f"Authorization: Bearer {keys.backend}\r\nConnection: close\r\n\r\n".encode()
            )
            status, headers, body = answer_on(connection)
        assert status in (400, 404), target
        assert headers["content-type"] == "application/problem+json"
        assert b"canary" not in body
        assert b"evil" not in body
    assert upstream.requests(api="fhir") == []
    assert upstream.requests(api="none") == []
    # With the same grant a good path is asked.
    async with httpx.AsyncClient(base_url=server.url, headers=bearer(keys.backend)) as backend:
        response = await backend.get(f"{FHIR}/R4/Observation")
    assert response.json()["resourceType"] == "Bundle"
    assert [each["path"] for each in upstream.requests(api="fhir")] == ["/r4/Observation"]


async def test_reading_is_the_only_method(
    reader: httpx.AsyncClient, upstream: SandboxServer
) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        response = await reader.request(method, f"{FHIR}/R4/Observation/obs-1")
        assert response.status_code == 405
        assert response.headers["allow"] == "GET, HEAD"
    assert upstream.requests(api="fhir") == []


async def test_failures_of_1uphealth_are_problems_that_quote_nothing(
    reader: httpx.AsyncClient, upstream: SandboxServer
) -> None:
    """tests/uplift/reading/test_read_back.py has every kind of failure."""
    faults: list[tuple[dict[str, Any], int]] = [
        ({"kind": "status", "status": 400}, 400),
        ({"kind": "status", "status": 410}, 404),
        ({"kind": "status", "status": 500}, 502),
        ({"kind": "status", "status": 504}, 504),
        ({"kind": "too_many_requests", "retry_after": 7}, 503),
    ]
    for fault, status in faults:
        upstream.faults({**fault, "match": _READ})
        response = await reader.get(f"{FHIR}/R4/Observation/canary-1?name=canary-2")
        upstream.clear_faults()
        problem = assert_problem(response, status)
        assert "canary" not in json.dumps(problem)
        assert response.headers.get("retry-after") == ("7" if status == 503 else None)


async def test_a_user_without_a_grant_has_to_authorise(
    client: httpx.AsyncClient, alice: str, upstream: SandboxServer
) -> None:
    problem = assert_problem(await client.get(f"{FHIR}/R4/Observation"), 409)
    assert "authorise again" in problem["detail"]
    assert upstream.requests() == []


async def test_without_a_usable_token_the_answer_is_503_with_retry_after(
    reader: httpx.AsyncClient, upstream: SandboxServer
) -> None:
    upstream.faults(
        {"kind": "expire_tokens"}, {"kind": "status", "status": 503, "match": {"api": "token"}}
    )
    response = await reader.get(f"{FHIR}/R4/Observation")
    assert_problem(response, 503)
    assert int(response.headers["retry-after"]) > 0


async def test_an_unknown_user_is_not_found(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get("/v1/users/nobody/fhir/R4/Observation"), 404)


async def test_neither_paths_nor_ids_nor_health_data_are_logged(
    reader: httpx.AsyncClient,
    relay: Relay,
    upstream: SandboxServer,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    await upload(reader, relay, "R4", [factories.resource(id="canary-1")])
    with caplog.at_level(logging.DEBUG):
        assert "canary-1" in (await reader.get(f"{FHIR}/R4/Observation?_id=canary-1")).text
        await reader.get(f"{FHIR}/R4/Observation/canary-1")
        upstream.faults({"kind": "status", "status": 500, "match": _READ})
        await reader.get(f"{FHIR}/R4/Observation/canary-1")
        upstream.clear_faults()
    # The simulated 1upHealth's server logs its requests in this process too.
    ours = [each.getMessage() for each in caplog.records if each.name != "uvicorn.access"]
    written = capfd.readouterr()
    assert "canary" not in "".join([*ours, written.out, written.err])


async def test_links_begin_with_the_public_address_if_there_is_one(
    reader: httpx.AsyncClient, app: FastAPI
) -> None:
    settings = {"api_public_url": "https://uplift.example.com"}
    relay: Relay = app.state.relay
    app.state.relay = replace(relay, settings=relay.settings.model_copy(update=settings))
    page = (await reader.get(f"{FHIR}/R4/Observation", headers={"Host": "evil.example"})).json()
    assert page["link"][0]["url"].startswith(f"https://uplift.example.com{FHIR}/R4/Observation")


@pytest.mark.parametrize("host", ["evil.example/path", "a b", "user@evil.example", "[", 'a"b'])
async def test_a_host_that_is_none_is_refused(reader: httpx.AsyncClient, host: str) -> None:
    for path in ("Observation", "metadata"):
        assert_problem(await reader.get(f"{FHIR}/R4/{path}", headers={"Host": host}), 400)


@pytest.mark.parametrize(
    ("version", "name", "number"),
    [
        ("DSTU2", "Conformance", "1.0.2"),
        ("STU3", "CapabilityStatement", "3.0.2"),
        ("R4", "CapabilityStatement", "4.0.1"),
    ],
)
async def test_metadata_needs_no_credential_and_tells_nothing_of_users(
    anybody: httpx.AsyncClient, version: str, name: str, number: str
) -> None:
    response = await anybody.get(f"/v1/users/nobody/fhir/{version}/metadata")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/fhir+json"
    found = response.json()
    assert (found["resourceType"], found["fhirVersion"]) == (name, number)
    assert found["implementation"]["url"] == f"http://uplift/v1/users/nobody/fhir/{version}"


async def test_a_fhir_client_gets_an_operation_outcome(
    client: httpx.AsyncClient, anybody: httpx.AsyncClient
) -> None:
    fhir = {"Accept": "application/fhir+json;q=1.0, application/json+fhir;q=0.9"}
    for caller, path, status, code in (
        (client, f"{FHIR}/R4/Observation", 404, "not-found"),
        (client, f"{FHIR}/R9/Observation", 400, "invalid"),
        (anybody, f"{FHIR}/R4/Observation", 401, "login"),
        (client, "/v1/nothing", 404, "not-found"),
        (client, "/v1/uploads?limit=many", 400, "invalid"),
    ):
        response = await caller.get(path, headers=fhir)
        assert response.status_code == status
        assert response.headers["content-type"] == "application/fhir+json"
        outcome = response.json()
        assert outcome["resourceType"] == "OperationOutcome"
        assert [each["code"] for each in outcome["issue"]] == [code]
        problem = await caller.get(path)
        assert problem.headers["content-type"] == "application/problem+json"
        assert outcome["issue"][0]["diagnostics"].startswith(problem.json()["detail"])


@pytest.mark.parametrize(
    ("accept", "is_outcome"),
    [
        ("application/fhir+json", True),
        ("application/fhir+json;q=0", False),
        ("application/fhir+json; q=0.000, */*", False),
        ("application/fhir+json;q=0.5, application/problem+json;q=0", True),
        ("application/fhir+json;q=0.5, application/problem+json;q=0.4", True),
        ("application/fhir+json;q=0.4, application/problem+json;q=0.5", False),
        ("application/fhir+json, application/problem+json", False),
        ("application/fhir+json;q=much", False),
        ("application/json+fhir;charset=utf-8;q=0.1", True),
    ],
)
async def test_an_operation_outcome_is_for_who_wants_it_more_than_a_problem(
    client: httpx.AsyncClient, accept: str, is_outcome: bool
) -> None:
    response = await client.get("/v1/nothing", headers={"Accept": accept})
    assert ("resourceType" in response.json()) is is_outcome
