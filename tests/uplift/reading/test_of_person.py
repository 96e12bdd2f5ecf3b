"""At a server that many people share, a read gives what is of one person, or nothing."""

from collections.abc import AsyncIterator, Sequence

import orjson
import pytest

from tests import factories
from tests.uplift.delivery.at_hapi import ended, relay_of, stored
from uplift.errors import InvalidRead, NotFound
from uplift.fhir.interactions import Interaction, parse_interaction
from uplift.fhir.versions import FhirVersion
from uplift.ledger.audit import Actor
from uplift.ledger.database import Database
from uplift.lifecycle import State
from uplift.reading.of_person import confined, is_all_of
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings
from uplift.wiring import Relay

_OURS = "u0123"
_BASES = ("https://fhir.example.org/r4",)


def read(path: str, query: str = "") -> Interaction:
    return parse_interaction(FhirVersion.R4, path, query.encode())


@pytest.mark.parametrize(
    ("path", "query", "address"),
    [
        ("Observation", "", "Observation?patient=u0123"),
        ("Observation", "code=1&_count=5", "Observation?code=1&_count=5&patient=u0123"),
        ("Observation", "patient=other", "Observation?patient=other&patient=u0123"),
        ("Patient", "name=x", "Patient?name=x&_id=u0123"),
        ("Observation/a", "", "Observation/a"),
        ("Patient/u0123/$everything", "", "Patient/u0123/$everything"),
        ("", "_getpages=1", "?_getpages=1"),
    ],
)
def test_a_search_asks_for_what_is_of_the_person(path: str, query: str, address: str) -> None:
    assert confined(read(path, query), _OURS).address == address


def to(patient: str) -> dict[str, str]:
    return {"reference": f"Patient/{patient}"}


def of(patient: str, **more: object) -> dict[str, object]:
    return {"resourceType": "Observation", "subject": to(patient), **more}


_ME = {"resourceType": "Patient", "id": _OURS}
_SAID = {"resourceType": "OperationOutcome", "issue": []}


@pytest.mark.parametrize(
    ("found", "is_ours"),
    [
        (of(_OURS), True),
        ({"subject": {"reference": f"https://fhir.example.org/r4/Patient/{_OURS}"}}, True),
        (of("u9999"), False),
        (of(f"{_OURS}4"), False),
        ({"resourceType": "Observation"}, False),
        (_ME, True),
        ({"resourceType": "Patient", "id": "u9999"}, False),
        ({"resourceType": "Patient", "id": "u9999", "name": [{"text": _OURS}]}, False),
        ({"subject": {"reference": f"Patient/{_OURS}/_history/2"}}, True),
        ({"beneficiary": to(_OURS), "subscriber": to("parent")}, True),
        ({"target": [to(_OURS)]}, True),
        # What mentions the person is not theirs, and an id at another server is another person's.
        (of("u9999", performer=[to(_OURS)]), False),
        (of("u9999", note=[{"text": f"Patient/{_OURS}"}]), False),
        ({"identifier": [{"value": f"Patient/{_OURS}"}]}, False),
        ({"resourceType": "Patient", "id": "u9999", "link": [{"other": to(_OURS)}]}, False),
        ({"resourceType": "Group", "member": [{"entity": to(_OURS)}, {"entity": to("x")}]}, False),
        ({"subject": {"reference": f"https://other.example.org/r4/Patient/{_OURS}"}}, False),
        ({"subject": {"identifier": {"value": "b"}}, "contained": [of("x")]}, False),
    ],
)
def test_a_resource_is_passed_on_if_it_leads_to_the_person(
    found: dict[str, object], is_ours: bool
) -> None:
    assert is_all_of(orjson.dumps(found), read("Observation/a"), _OURS, _BASES) is is_ours


@pytest.mark.parametrize(
    ("resources", "are_ours"),
    [
        ([], True),
        ([of(_OURS), _ME, _SAID], True),
        ([of(_OURS), of("u9999")], False),
        ([of(_OURS), {"resourceType": "Practitioner", "id": "p"}], False),
        ([None], True),  # the deletion of one, in a history
    ],
)
def test_a_page_is_passed_on_if_all_of_it_leads_to_the_person(
    resources: Sequence[dict[str, object] | None], are_ours: bool
) -> None:
    entries = [{"resource": each} if each is not None else {} for each in resources]
    page = orjson.dumps({"resourceType": "Bundle", "entry": entries})
    for address in (read("Observation"), read("", "_getpages=1")):
        assert is_all_of(page, address, _OURS, _BASES) is are_ours


@pytest.mark.parametrize("content", [b"", b"[]", b'{"entry":1}', b'{"entry":[1]}'])
def test_what_is_no_page_is_nobodys(content: bytes) -> None:
    assert not is_all_of(content, read("Observation"), _OURS, _BASES)


@pytest.fixture
async def relay(database: Database, at_hapi: Settings) -> AsyncIterator[Relay]:
    async with relay_of(at_hapi) as opened:
        yield opened


async def test_one_person_never_reads_what_another_has_there(
    relay: Relay, hapi: SandboxServer
) -> None:
    for name in ("alice", "bob"):
        await relay.provisioner.provision(name)
        upload = await factories.accepted(relay, name, id=f"of-{name}")
        assert (await ended(relay, upload)).state is State.DELIVERED
    everything = {each["id"] for each in stored(hapi)}
    assert len(everything) == 2

    async def ids(name: str, path: str, query: str = "") -> set[str]:
        content = await relay.reader.read(
            name, read(path, query), lambda found: found.address, by=Actor("test")
        )
        found = orjson.loads(content)
        return {each["resource"]["id"] for each in found.get("entry", [{"resource": found}])}

    (alices,) = await ids("alice", "Observation")
    (bobs,) = await ids("bob", "Observation")
    assert {alices, bobs} == everything
    assert await ids("alice", f"Observation/{alices}") == {alices}
    for path, query in ((f"Observation/{bobs}", ""), (f"Observation/{bobs}/_history/1", "")):
        with pytest.raises(NotFound):
            await ids("alice", path, query)


async def test_where_nobody_can_tell_whose_a_resource_is_nothing_is_read(
    database: Database, at_hapi: Settings
) -> None:
    async with relay_of(at_hapi.model_copy(update={"destination_subject": "as_is"})) as relay:
        await relay.provisioner.provision("alice")
        with pytest.raises(InvalidRead):
            await relay.reader.read(
                "alice", read("Observation"), lambda found: found.address, by=Actor("test")
            )
