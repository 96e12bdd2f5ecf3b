"""`--like oneup-recorded`: ids, versionIds and additions of 1upHealth's recorded responses."""

import re
from collections.abc import Iterator

import pytest

from tests.uplift.sandbox.conftest import Client, observation
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.testing import SandboxServer


@pytest.fixture(scope="module")
def recorded() -> Iterator[SandboxServer]:
    with SandboxServer(SandboxConfig(like="oneup-recorded")) as server:
        yield server


@pytest.fixture
def bob(recorded: SandboxServer) -> Iterator[Client]:
    recorded.reset()
    client = Client(recorded, "bob")
    yield client
    client.close()


def test_ids_have_48_hexadecimal_digits_and_versions_begin_at_nine_trillions(bob: Client) -> None:
    stored = bob.create(observation("own")).json()
    assert re.fullmatch("[0-9a-f]{48}", stored["id"])
    assert stored["meta"]["versionId"] == "9000000000000"
    again = bob.http.post(f"/r4/Observation/{stored['id']}", json=observation("own")).json()
    assert (again["id"], again["meta"]["versionId"]) == (stored["id"], "9000000000001")


def test_a_second_create_makes_a_second_resource(bob: Client) -> None:
    first, second = bob.create(observation("own")).json(), bob.create(observation("own")).json()
    assert first["id"] != second["id"]


def test_an_identifier_is_added(bob: Client) -> None:
    own = {"system": "urn:own", "value": "7"}
    stored = bob.create(observation(identifier=[own])).json()
    assert stored["identifier"][0] == own
    assert stored["identifier"][1]["value"] == stored["id"]
    assert len(bob.create(observation()).json()["identifier"]) == 1
    found = bob.get(f"/r4/Observation?identifier={stored['id']}").json()
    assert [each["resource"]["id"] for each in found["entry"]] == [stored["id"]]
    # A type with one identifier at most keeps it.
    lone = {"resourceType": "QuestionnaireResponse", "identifier": own}
    assert bob.create(lone).json()["identifier"] == own


def test_references_are_rewritten_to_the_ids_of_the_server(bob: Client) -> None:
    patient = bob.create({"resourceType": "Patient", "id": "p"}).json()
    stored = bob.create(
        observation(
            subject={"reference": "Patient/p"},
            performer=[{"reference": "Practitioner/later"}, {"reference": "#contained"}],
            derivedFrom=[{"reference": "https://other.example/Observation/1"}],
        )
    ).json()
    assert stored["subject"] == {"reference": f"Patient/{patient['id']}"}
    later, contained = stored["performer"]
    assert re.fullmatch("Practitioner/[0-9a-f]{48}", later["reference"])
    assert contained == {"reference": "#contained"}
    assert stored["derivedFrom"] == [{"reference": "https://other.example/Observation/1"}]
    assert len(bob.get(f"/r4/Observation?patient={patient['id']}").json()["entry"]) == 1


def test_what_was_received_is_shown_as_it_came(recorded: SandboxServer, bob: Client) -> None:
    sent = bob.create(observation("own")).request.content
    assert recorded.stored_bytes() == [sent]
