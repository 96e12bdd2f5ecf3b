import pytest

from tests.uplift.sandbox.conftest import Client, observation
from uplift.sandbox.testing import SandboxServer


@pytest.fixture
def ten_dozen(alice: Client) -> Client:
    for number in range(120):
        system = "urn:odd" if number % 2 else "urn:even"
        identifier = [{"system": system, "value": str(number // 2)}]
        alice.create(observation(f"o{number}", identifier=identifier))
    return alice


def ids(client: Client, path: str) -> list[str]:
    return [entry["resource"]["id"] for entry in client.get(path).json().get("entry", [])]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("_id=o3", ["o3"]),
        ("_id=o3,o4,none", ["o3", "o4"]),
        ("identifier=urn:odd|5", ["o11"]),
        ("identifier=urn:odd%7C5", ["o11"]),
        ("identifier=5", ["o10", "o11"]),
        ("identifier=urn:odd|5,urn:even|5", ["o10", "o11"]),
        ("identifier=urn:odd|5&_id=o11", ["o11"]),
        ("identifier=urn:odd|5&_id=o10", []),
        ("identifier=|5", []),
        ("identifier=urn:none|5", []),
    ],
)
def test_a_search_finds_by_id_and_identifier(
    ten_dozen: Client, query: str, found: list[str]
) -> None:
    assert ids(ten_dozen, f"/r4/Observation?{query}") == found


def test_identifiers_without_system_and_as_one_object_are_found(alice: Client) -> None:
    alice.create(observation("a", identifier={"value": "7"}), "dstu2")
    assert ids(alice, "/dstu2/Observation?identifier=|7") == ["a"]
    assert ids(alice, "/dstu2/Observation?identifier=7") == ["a"]


def test_a_system_alone_finds_all_of_it(ten_dozen: Client) -> None:
    assert ten_dozen.get("/r4/Observation?identifier=urn:odd|").json()["total"] == 60


def test_pages_are_of_ten_and_linked(ten_dozen: Client) -> None:
    seen: list[str] = []
    url: str | None = "/r4/Observation"
    while url:
        page = ten_dozen.get(url).json()
        assert page["total"] == 120
        assert len(page["entry"]) == 10
        seen += [entry["resource"]["id"] for entry in page["entry"]]
        url = next((link["url"] for link in page["link"] if link["relation"] == "next"), None)
    assert sorted(seen) == sorted(f"o{number}" for number in range(120))


@pytest.mark.parametrize(("count", "entries"), [("1", 1), ("100", 100), ("500", 100)])
def test_count_sets_the_page_up_to_a_hundred(ten_dozen: Client, count: str, entries: int) -> None:
    page = ten_dozen.get(f"/r4/Observation?_count={count}").json()
    assert len(page["entry"]) == entries


@pytest.mark.parametrize("query", ["_count=0", "_count=ten", "_skip=-1", "code=c"])
def test_what_a_search_cannot_honour_is_refused(alice: Client, query: str) -> None:
    response = alice.get(f"/r4/Observation?{query}")
    assert response.status_code == 400
    assert response.json()["resourceType"] == "OperationOutcome"


def test_a_type_that_r4_does_not_search_is_refused(alice: Client) -> None:
    assert alice.get("/r4/ObservationDefinition").status_code == 405


def test_a_search_shows_the_newest_version_only(alice: Client) -> None:
    alice.create(observation(identifier=[{"system": "s", "value": "old"}]))
    alice.create(observation(identifier=[{"system": "s", "value": "new"}]))
    assert ids(alice, "/r4/Observation?identifier=s|old") == []
    assert ids(alice, "/r4/Observation?identifier=s|new") == ["o1"]


@pytest.mark.parametrize("version", ["dstu2", "stu3", "r4"])
def test_everything_gives_all_of_the_user_by_tens(alice: Client, version: str) -> None:
    alice.create({"resourceType": "Patient", "id": "p"}, version)
    for number in range(12):
        alice.create(observation(f"o{number}"), version)
    alice.create({"resourceType": "Condition", "id": "c"}, version)
    first = alice.get(f"/{version}/Patient/p/$everything").json()
    assert first["total"] == 14
    assert len(first["entry"]) == 10
    assert first["entry"][0]["resource"]["resourceType"] == "Patient"
    following = next(link["url"] for link in first["link"] if link["relation"] == "next")
    second = alice.get(following).json()
    assert len(second["entry"]) == 4
    assert [link["relation"] for link in second["link"]] == ["self"]


def test_everything_of_an_unknown_patient_is_not_found(alice: Client) -> None:
    alice.create(observation())
    assert alice.get("/r4/Patient/none/$everything").status_code == 404
    assert alice.get("/r4/Observation/o1/$everything").status_code == 404


def test_everything_holds_nothing_of_other_users(sandbox: SandboxServer, alice: Client) -> None:
    bob = Client(sandbox, "bob")
    bob.create(observation("bobs"))
    alice.create({"resourceType": "Patient", "id": "p"})
    assert ids(alice, "/r4/Patient/p/$everything") == ["p"]
    bob.close()


@pytest.fixture
def of_patients(alice: Client) -> Client:
    about = {
        "a": {"subject": {"reference": "Patient/p"}},
        "b": {"subject": {"reference": "https://server.example/r4/Patient/p"}},
        "c": {"subject": {"reference": "Patient/q"}},
        "d": {"subject": {"reference": "Group/p"}},
        "e": {"subject": {"display": "nobody"}},
    }
    for id_, more in about.items():
        alice.create(observation(id_, **more))
    return alice


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("patient=p", ["a", "b"]),
        ("patient=Patient/p", ["a", "b"]),
        ("patient=https://server.example/r4/Patient/p", ["a", "b"]),
        ("patient=p,q", ["a", "b", "c"]),
        ("patient=Group/p", []),
        ("patient=none", []),
        ("_sort=-_id&_count=2", ["e", "d"]),
        ("_sort=_id&_count=2", ["a", "b"]),
        ("_sort=-_lastUpdated,_id&_count=1", ["e"]),
        ("_sort=_lastUpdated&_count=1", ["a"]),
        ("_sort:desc=_id&_count=1", ["e"]),
        ("_sort:asc=_id&_count=1", ["a"]),
    ],
)
def test_a_search_finds_by_patient_and_sorts(
    of_patients: Client, query: str, found: list[str]
) -> None:
    assert ids(of_patients, f"/r4/Observation?{query}") == found


def test_the_total_can_be_left_out(of_patients: Client) -> None:
    assert of_patients.get("/r4/Observation?_total=accurate").json()["total"] == 5
    assert "total" not in of_patients.get("/r4/Observation?_total=none").json()


@pytest.mark.parametrize("query", ["_total=some", "_sort=code"])
def test_a_total_and_a_sorting_that_are_not_known_are_refused(alice: Client, query: str) -> None:
    assert alice.get(f"/r4/Observation?{query}").status_code == 400


def test_a_search_can_be_a_form(of_patients: Client) -> None:
    url = "/r4/Observation/_search"
    page = of_patients.http.post(f"{url}?_count=1", data={"patient": "p"}).json()
    assert [entry["resource"]["id"] for entry in page["entry"]] == ["a"]
    following = next(link["url"] for link in page["link"] if link["relation"] == "next")
    assert [each["resource"]["id"] for each in of_patients.get(following).json()["entry"]] == ["b"]
    assert of_patients.http.post(url, json={"patient": "p"}).status_code == 415
    assert of_patients.get(url).status_code == 405
