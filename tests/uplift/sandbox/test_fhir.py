from collections.abc import Iterator

import httpx
import pytest

from tests.uplift.sandbox.conftest import Client, observation
from uplift.fhir.validate import validate
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.testing import SandboxServer

JSON = "application/json"


@pytest.fixture(scope="module")
def assigning() -> Iterator[SandboxServer]:
    with SandboxServer(SandboxConfig(ids="assigned", location_headers=False)) as server:
        yield server


@pytest.fixture(scope="module")
def lenient() -> Iterator[SandboxServer]:
    with SandboxServer(SandboxConfig(update_creates=True, create_status=200)) as server:
        yield server


@pytest.mark.parametrize("version", ["dstu2", "stu3", "r4"])
def test_a_create_answers_the_stored_resource_and_where_it_is(alice: Client, version: str) -> None:
    response = alice.create(observation("o1", meta={"profile": ["p"]}), version)
    assert response.status_code == 201
    stored = response.json()
    assert stored["id"] == "o1"
    assert stored["meta"]["versionId"] == "1"
    assert stored["meta"]["lastUpdated"].endswith("Z")
    assert stored["meta"]["profile"] == ["p"]
    assert (
        response.headers["location"] == f"{alice.sandbox.url}/{version}/Observation/o1/_history/1"
    )
    assert response.headers["etag"] == 'W/"1"'
    assert alice.get(f"/{version}/Observation/o1").json() == stored
    assert alice.get(response.headers["location"]).json() == stored


def test_the_old_base_serves_the_same_resources(alice: Client) -> None:
    response = alice.http.post("/fhir/r4/Observation", json=observation())
    assert response.headers["location"].startswith(f"{alice.sandbox.url}/fhir/r4/Observation/o1")
    assert alice.get("/r4/Observation/o1").status_code == 200


def test_a_resource_without_id_gets_one(alice: Client) -> None:
    first, second = (alice.create(observation(None)).json()["id"] for _ in range(2))
    assert first
    assert second
    assert first != second


def test_a_known_id_posted_again_becomes_a_new_version(alice: Client) -> None:
    alice.create(observation())
    again = alice.create(observation(status="amended"))
    assert again.status_code == 201
    assert again.json()["meta"]["versionId"] == "2"
    versions = alice.sandbox.resources(id="o1")[0]["versions"]
    assert [one["interaction"] for one in versions] == ["create", "create_again"]
    assert alice.get("/r4/Observation/o1/_history/1").json()["status"] == "final"
    assert alice.get("/r4/Observation/o1").json()["status"] == "amended"
    assert alice.get("/r4/Observation/o1/_history/3").status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_an_update_makes_a_new_version(alice: Client, method: str) -> None:
    alice.create(observation())
    changed = observation(status="amended")
    response = alice.http.request(method, "/r4/Observation/o1", json=changed)
    assert response.status_code == 200
    assert response.json()["meta"]["versionId"] == "2"
    assert alice.sandbox.resources()[0]["versions"][1]["interaction"] == "update"


def test_an_update_of_another_id_is_refused(alice: Client) -> None:
    alice.create(observation())
    response = alice.http.put("/r4/Observation/o1", json=observation("o2"))
    assert response.status_code == 400
    assert response.json()["resourceType"] == "OperationOutcome"


def test_an_update_of_an_unknown_id_is_not_found(alice: Client) -> None:
    response = alice.http.post("/r4/Observation/none", json=observation("none"))
    assert response.status_code == 404
    assert response.json()["issue"][0]["code"] == "not-found"


def test_an_update_of_an_unknown_id_creates_where_configured(lenient: SandboxServer) -> None:
    bob = Client(lenient, "bob")
    assert bob.http.put("/r4/Observation/new", json=observation("new")).status_code == 200
    assert bob.get("/r4/Observation/new").status_code == 200
    assert bob.create(observation("other")).status_code == 200
    bob.close()


def test_assigned_ids_replace_the_senders(assigning: SandboxServer) -> None:
    bob = Client(assigning, "bob")
    first, again = bob.create(observation()), bob.create(observation())
    assert first.json()["id"] != "o1"
    assert first.json()["id"] != again.json()["id"]
    assert "location" not in first.headers
    assert "etag" not in first.headers
    path = f"/r4/Observation/{first.json()['id']}"
    assert bob.get("/r4/Observation/o1").status_code == 404
    updated = bob.http.post(path, json=observation(status="amended"))
    assert updated.status_code == 200
    assert updated.json()["id"] == first.json()["id"]
    bob.close()


def test_the_received_bytes_of_every_version_are_kept(alice: Client) -> None:
    odd = b'{ "resourceType":"Observation", "id":"o1",\n "n":1.50e0, "x":"\\u00e9" }'
    even = b'{"resourceType":"Observation","id":"o1"}'
    for body in (odd, even):
        alice.http.post(
            "/r4/Observation", content=body, headers={"Content-Type": "application/json"}
        )
    assert alice.sandbox.stored_bytes(user="alice") == [odd, even]


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"not json", JSON, 400),
        (b"[]", JSON, 400),
        (b"", JSON, 400),
        (b'{"id":"a"}', JSON, 400),
        (b'{"resourceType":"Condition"}', JSON, 400),
        (b'{"resourceType":"Observation","id":7}', JSON, 400),
        (b'{"resourceType":"Observation","id":"a/b"}', JSON, 400),
        (b'{"resourceType":"Observation","x":' + 500 * b"[" + 500 * b"]" + b"}", JSON, 400),
        (b'{"resourceType":"Observation","x":' + 9999 * b"[" + 9999 * b"]" + b"}", JSON, 400),
        (b'{"resourceType":"Observation"}', "text/plain", 415),
        (b'{"resourceType":"Observation"}', "application/fhir+json; charset=utf-8", 201),
    ],
)
def test_a_body_that_is_no_such_resource_is_refused(
    alice: Client, body: bytes, content_type: str, status: int
) -> None:
    response = alice.http.post(
        "/r4/Observation", content=body, headers={"Content-Type": content_type}
    )
    assert response.status_code == status
    if status != 201:
        assert response.json()["issue"][0]["details"]["text"]
        assert alice.sandbox.resources() == []


def test_a_compressed_body_is_refused(alice: Client) -> None:
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    assert alice.http.post("/r4/Observation", content=b"x", headers=headers).status_code == 415


@pytest.mark.parametrize(
    "path",
    ["/r4/observation", "/r5/Observation", "/r4/MedicationOrder", "/dstu2/MedicationRequest", "/x"],
)
def test_an_unknown_type_or_version_is_not_found(alice: Client, path: str) -> None:
    assert alice.http.post(path, json=observation()).status_code == 404
    assert alice.get(path).status_code == 404


@pytest.mark.parametrize("resource_type", ["Provenance", "Binary"])
def test_what_r4_only_reads_cannot_be_created(alice: Client, resource_type: str) -> None:
    resource = {"resourceType": resource_type, "id": "p"}
    assert alice.create(resource).status_code == 405
    assert alice.create(resource, "stu3").status_code == 201


def test_a_deleted_resource_is_gone_from_reads_and_searches(alice: Client) -> None:
    alice.create(observation())
    assert alice.http.delete("/r4/Observation/o1").status_code == 204
    assert alice.http.delete("/r4/Observation/o1").status_code == 204
    assert alice.get("/r4/Observation/o1").status_code == 410
    assert alice.get("/r4/Observation").json()["entry"] == []
    assert alice.http.delete("/r4/Observation/o2").status_code == 404


def test_other_methods_are_not_allowed(alice: Client) -> None:
    alice.create(observation())
    assert alice.http.delete("/r4/Observation").status_code == 405
    assert alice.http.put("/r4/Observation", json=observation()).status_code == 405


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Basic abc"])
def test_without_a_valid_token_the_answer_is_unauthorized(
    sandbox: SandboxServer, authorization: str | None
) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    response = httpx.get(f"{sandbox.url}/r4/Observation", headers=headers, trust_env=False)
    assert response.status_code == 401
    assert response.json() == {"message": "Unauthorized"}


def test_the_applications_own_credentials_act_for_a_user(alice: Client) -> None:
    alice.create(observation())
    headers = {
        "client_id": alice.sandbox.config.client_id,
        "client_secret": alice.sandbox.config.client_secret,
        "x-oneup-user-id": alice.user,
    }
    url = f"{alice.sandbox.url}/r4/Observation/o1"
    assert httpx.get(url, headers=headers, trust_env=False).status_code == 200
    headers["client_secret"] = "wrong"
    assert httpx.get(url, headers=headers, trust_env=False).status_code == 401


def test_a_user_sees_only_their_own_data(alice: Client) -> None:
    alice.create(observation())
    bob = Client(alice.sandbox, "bob")
    assert bob.get("/r4/Observation/o1").status_code == 404
    assert bob.get("/r4/Observation").json()["total"] == 0
    assert bob.create(observation()).json()["meta"]["versionId"] == "1"
    bob.close()


@pytest.mark.parametrize(
    ("version", "statement", "types"),
    [
        ("dstu2", "Conformance", 94),
        ("stu3", "CapabilityStatement", 117),
        ("r4", "CapabilityStatement", 144),
    ],
)
def test_metadata_lists_the_types_of_a_version(
    sandbox: SandboxServer, version: str, statement: str, types: int
) -> None:
    response = httpx.get(f"{sandbox.url}/{version}/metadata", trust_env=False).json()
    assert response["resourceType"] == statement
    assert len(response["rest"][0]["resource"]) == types


@pytest.mark.parametrize("version", ["DSTU2", "STU3", "R4"])
def test_metadata_is_a_valid_resource(sandbox: SandboxServer, version: str) -> None:
    response = httpx.get(f"{sandbox.url}/{version.lower()}/metadata", trust_env=False)
    report = validate(response.content, version)
    assert report.issues == ()


def test_metadata_of_an_unknown_version_is_not_found(sandbox: SandboxServer) -> None:
    assert httpx.get(f"{sandbox.url}/r9/metadata", trust_env=False).status_code == 404
