"""Each profile answers as its row says. HAPI's is held to the real server by `exchanges`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.uplift.sandbox.servers.exchanges import about, patient
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.servers.profiles import PROFILES
from uplift.sandbox.testing import SandboxServer

OTHERS = sorted(PROFILES.keys() - {"hapi"})
WITH_CLIENT_IDS = sorted(name for name in OTHERS if PROFILES[name].client_ids)
DIV = '<div xmlns="http://www.w3.org/1999/xhtml">'


class Server(SandboxServer):
    """A sandbox that is like one of them, and a client that is logged in to its R4 base."""

    def __init__(self, like: str) -> None:
        super().__init__(SandboxConfig(like=like, auth="client_credentials"))
        self.like = like
        self.client = httpx.Client(
            base_url=f"{self.url}/r4",
            trust_env=False,
            headers={"Content-Type": "application/fhir+json"},
        )

    def log_in(self) -> None:
        answer = httpx.post(
            self.token_url,
            data={"grant_type": "client_credentials", "scope": f"{self.url}/r4/.default"},
            auth=("sandbox-client", "sandbox-secret"),
            trust_env=False,
        )
        self.client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def put(self, resource: dict[str, Any], path: str = "", **headers: str) -> httpx.Response:
        place = path or f"{resource['resourceType']}/{resource['id']}"
        return self.client.put(place, json=resource, headers=headers)


@contextmanager
def served(like: str) -> Iterator[Server]:
    with Server(like) as server, server.client:
        server.log_in()
        yield server


@pytest.fixture(scope="module", params=OTHERS)
def any_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with served(request.param) as server:
        yield server


@pytest.fixture
def server(any_server: Server) -> Server:
    any_server.reset()
    any_server.log_in()
    return any_server


def alice(**fields: Any) -> dict[str, Any]:
    return patient(id="alice", **fields)


def observation(reference: str = "Patient/none") -> dict[str, Any]:
    return about(reference, id="o1")


def identified(**fields: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "identifier": [{"system": "s", "value": "1"}], **fields}


def test_a_put_to_an_unknown_id(server: Server) -> None:
    expected = 201 if PROFILES[server.like].client_ids else 404
    assert server.put(alice()).status_code == expected


def test_an_id_that_fhir_does_not_have(server: Server) -> None:
    for wrong in ("a_b", "x" * 65):
        assert server.put(alice() | {"id": wrong}).status_code == 400
    answer = server.client.post("Patient", json=alice() | {"id": "a_b"})
    assert answer.status_code == (400 if server.like == "azure" else 201)


def test_a_stale_precondition_is_a_412(server: Server) -> None:
    stored = server.put(identified(), "Patient?identifier=s|1").json()
    changed = stored | {"gender": "male"}
    assert server.put(changed, **{"If-Match": 'W/"x"'}).status_code == 412
    searched = server.put(changed, "Patient?identifier=s|1", **{"If-Match": 'W/"x"'})
    assert searched.status_code == (200 if server.like == "medplum" else 412)


@pytest.mark.parametrize("like", WITH_CLIENT_IDS)
def test_a_precondition_where_nothing_is(like: str) -> None:
    with served(like) as server:
        answer = server.put(alice(), **{"If-Match": 'W/"1"'})
        assert answer.status_code == (PROFILES[like].if_match_without or 201)


def test_a_dangling_reference(server: Server) -> None:
    answer = server.client.post("Observation", json=observation())
    expected = {"aidbox": 422, "google": 400, "healthlake": 400}.get(server.like, 201)
    assert answer.status_code == expected
    assert server.client.post("Observation", json=observation("https://a/Patient/1")).is_success


def test_a_dangling_reference_in_a_batch(server: Server) -> None:
    entry = {"resource": observation(), "request": {"method": "POST", "url": "Observation"}}
    bundle = {"resourceType": "Bundle", "type": "batch", "entry": [entry]}
    answered = server.client.post("", json=bundle).json()["entry"][0]["response"]
    expected = {"aidbox": "422", "google": "400"}.get(server.like, "201")
    assert answered["status"].startswith(expected)
    if expected == "201":
        assert answered["etag"].startswith('W/"')


def test_a_deletion_shows_and_a_put_brings_it_back(server: Server) -> None:
    profile = PROFILES[server.like]
    stored = server.put(identified(), "Patient?identifier=s|1").json()
    place = f"Patient/{stored['id']}"
    assert server.client.delete(place).status_code == profile.delete_status
    assert server.client.delete(place).status_code == profile.delete_again_status
    assert server.client.get(place).status_code == profile.gone
    assert server.client.get("Patient?identifier=s|1").json()["total"] == 0
    again = server.put({**identified(), "id": stored["id"]}, place)
    assert again.status_code == (201 if profile.client_ids else 410)


def test_a_number_of_entries_too_many(server: Server) -> None:
    most = PROFILES[server.like].max_entries
    if most is None:
        return
    entry = {"request": {"method": "DELETE", "url": "Patient/none"}}
    for number, status in ((most, 200), (most + 1, 400)):
        bundle = {"resourceType": "Bundle", "type": "batch", "entry": [entry] * number}
        assert server.client.post("", json=bundle).status_code == status


def test_a_throttled_request_says_how_long_as_such_servers_do(server: Server) -> None:
    server.faults(
        {"kind": "too_many_requests", "retry_after": 7},
    )
    said = server.client.get("Patient").headers
    server.faults({"kind": "too_many_requests"})
    silent = server.client.get("Patient").headers
    match server.like:
        case "azure":
            assert (said["retry-after"], silent["retry-after"]) == ("7", "1")
        case "medplum":
            assert said["ratelimit"] == '"fhirInteractions";r=0;t=7'
            assert "retry-after" not in said
        case _:
            assert (said["retry-after"], "retry-after" in silent) == ("7", False)


def test_the_metadata_declares_what_the_row_says(server: Server) -> None:
    found = httpx.get(f"{server.url}/r4/metadata", trust_env=False).json()
    assert found["fhirVersion"] == "4.0.1"
    patients = next(each for each in found["rest"][0]["resource"] if each["type"] == "Patient")
    assert {name for name in patients if patients[name] is True} == PROFILES[server.like].declares


def test_a_lost_body_leaves_the_headers(server: Server) -> None:
    server.faults({"kind": "empty_answer", "match": {"method": "PUT"}})
    answer = server.put(identified(), "Patient?identifier=s|1")
    assert (answer.status_code, answer.content) == (201, b"")
    assert answer.headers["location"].endswith(f"/_history/{answer.headers['etag'][3:-1]}")


def test_google_takes_no_other_media_type() -> None:
    with served("google") as server:
        answer = server.put(alice(), **{"Content-Type": "application/json"})
        assert answer.status_code == 415
        assert server.put(alice(), **{"Content-Type": "application/fhir+json; x=1"}).is_success


@pytest.mark.parametrize(
    ("div", "taken"),
    [
        (f"{DIV}<p>Well</p></div>", True),
        (f"{DIV}<script>1</script></div>", False),
        (f'{DIV}<p onclick="1">Well</p></div>', False),
        ("<div><p>Well", False),
        ("<p>Well</p>", False),
    ],
)
def test_azure_checks_the_narrative(div: str, taken: bool) -> None:
    with served("azure") as server:
        told = server.put(alice(text={"status": "generated", "div": div}))
        assert told.status_code == (201 if taken else 400)


def test_a_resource_beyond_a_limit() -> None:
    with served("firely") as server:
        assert server.put(alice(language="x" * 1024 * 1024)).status_code == 413
    note = {"attachment": {"contentType": "text/plain", "data": "eHh4" * 3400}}
    document = {"resourceType": "DocumentReference", "id": "d", "content": [note]}
    with served("healthlake") as server:
        assert server.put(document).status_code == 400
        note["attachment"]["contentType"] = "application/pdf"
        stored = server.put(document).json()
        assert len(stored["extension"]) == 1, "what its language model read"


def test_what_servers_add_stays_when_the_same_comes_again() -> None:
    with served("aidbox") as server:
        first = server.put(alice()).json()["meta"]
        assert "extension" in first
        assert server.put(alice()).json()["meta"] == first
    with served("medplum") as server:
        first = server.put(identified(), "Patient?identifier=s|1")
        assert "project" in first.json()["meta"]
        again = server.put(identified(), "Patient?identifier=s|1")
        assert (again.status_code, again.json()) == (200, first.json())


def test_medplum_refuses_a_foreign_id() -> None:
    with served("medplum") as server:
        assert server.put(identified(id="mine"), "Patient?identifier=s|1").status_code == 400
        stored = server.put(identified(), "Patient?identifier=s|1").json()
        assert server.put(identified(id=stored["id"]), "Patient?identifier=s|1").is_success


@pytest.mark.parametrize(("like", "status"), [("google", 409), ("azure", 204)])
def test_what_is_referred_to_stays_where_integrity_is_kept(like: str, status: int) -> None:
    with served(like) as server:
        server.put(alice())
        server.put(observation("Patient/alice"))
        assert server.client.delete("Patient/alice").status_code == status


def test_versions_are_words_of_the_servers_where_the_row_says_so() -> None:
    with served("google") as server:
        first = server.put(alice()).json()["meta"]["versionId"]
        assert not first.isdecimal()
        told = server.put(alice(gender="male"), **{"If-Match": f'W/"{first}"'})
        assert told.headers["etag"] != f'W/"{first}"'
