"""A backend names the Patient that its server has of a person. Uplift only refers to it."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from tests import factories
from tests.uplift.delivery.at_hapi import ended, put_at, relay_of, sends, stored
from uplift.errors import Conflict, NotFound
from uplift.fhir.interactions import parse_interaction
from uplift.fhir.versions import FhirVersion
from uplift.ledger import named_patients, users
from uplift.ledger.audit import Actor
from uplift.ledger.database import Database
from uplift.ledger.users import UserRow
from uplift.lifecycle import State
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings
from uplift.users.erase import Upstream
from uplift.wiring import Relay

_PATIENT = {"resourceType": "Patient", "id": "alice-1", "name": [{"family": "Invented"}]}


@pytest.fixture
async def relay(database: Database, at_hapi: Settings) -> AsyncIterator[Relay]:
    async with relay_of(at_hapi) as opened:
        yield opened


async def delivered(relay: Relay, record_id: str) -> None:
    row = await ended(relay, await factories.accepted(relay, id=record_id))
    assert (row.state, row.reason) == (State.DELIVERED, None)


async def test_records_refer_to_the_named_patient_and_nothing_writes_it(
    relay: Relay, hapi: SandboxServer
) -> None:
    put_at(hapi, _PATIENT)
    before = sends(hapi, "Patient")
    named = await relay.patient_namer.name("alice", "alice-1", None)
    assert named.patients == {"hapi": "alice-1"}
    await delivered(relay, "obs-1")
    assert [each["subject"]["reference"] for each in stored(hapi)] == ["Patient/alice-1"]
    assert sends(hapi, "Patient") == before
    (patient,) = stored(hapi, "Patient")
    assert patient["name"] == _PATIENT["name"]


async def test_a_named_patient_that_is_not_there_is_refused_and_never_made(
    relay: Relay, hapi: SandboxServer
) -> None:
    await relay.patient_namer.name("alice", "alice-1", "hapi")
    row = await ended(relay, await factories.accepted(relay))
    assert row.state is State.REFUSED
    assert stored(hapi, "Patient") == []


async def test_it_cannot_be_named_once_a_record_refers_to_another(
    relay: Relay, hapi: SandboxServer
) -> None:
    await delivered(relay, "obs-1")
    with pytest.raises(Conflict, match="sent there already"):
        await relay.patient_namer.name("alice", "alice-1", None)
    assert relay.patient_namer.of(await user(relay)) == {}


async def test_it_can_be_named_again_with_the_same_id_at_any_time(
    relay: Relay, hapi: SandboxServer
) -> None:
    put_at(hapi, _PATIENT)
    await relay.patient_namer.name("alice", "wrong", None)
    await relay.patient_namer.name("alice", "alice-1", None)
    await delivered(relay, "obs-1")
    again = await relay.patient_namer.name("alice", "alice-1", None)
    assert again.patients == {"hapi": "alice-1"}


async def test_only_where_records_refer_to_a_patient_it_can_be_named(relay: Relay) -> None:
    with pytest.raises(NotFound):
        await relay.patient_namer.name("alice", "alice-1", "nowhere")
    with pytest.raises(NotFound):
        await relay.patient_namer.name("nobody", "alice-1", None)


async def test_a_user_who_was_erased_since_they_were_found_gets_no_name(relay: Relay) -> None:
    found = await user(relay)
    key = found.key(relay.key_ring)
    for upstream, error in ((Upstream.DELETE, Conflict), (Upstream.KEEP, NotFound)):
        await relay.eraser.erase("alice", wait=0, upstream=upstream)
        async with relay.database.transaction() as connection:
            with pytest.raises(error):
                await named_patients.lock(connection, found.id, key)


async def test_the_id_is_sealed_and_goes_with_the_person(
    relay: Relay, hapi: SandboxServer, database: Database
) -> None:
    await relay.patient_namer.name("alice", "alice-1", None)
    sealed = await sealed_of(database)
    assert sealed is not None
    assert b"alice-1" not in sealed
    assert (await relay.eraser.erase("alice", wait=10)).done
    await relay.provisioner.provision("alice")
    assert await sealed_of(database) is None


async def test_erased_upstream_a_named_patient_stays(relay: Relay, hapi: SandboxServer) -> None:
    put_at(hapi, _PATIENT)
    await relay.patient_namer.name("alice", "alice-1", None)
    await delivered(relay, "obs-1")
    await relay.eraser.erase("alice", wait=0, upstream=Upstream.DELETE)
    async with relay.database.transaction() as connection:
        targets = await connection.execute(text("SELECT is_person FROM upstream_deletions"))
        assert not any(is_person for (is_person,) in targets)


async def test_a_read_is_confined_to_the_named_patient(relay: Relay, hapi: SandboxServer) -> None:
    put_at(hapi, _PATIENT)
    await relay.patient_namer.name("alice", "alice-1", None)
    await delivered(relay, "obs-1")
    everything = parse_interaction(FhirVersion.R4, "Observation", b"")
    page = await relay.reader.read("alice", everything, lambda _: "", by=Actor("test"))
    assert page.count(b'"Patient/alice-1"') == 1


async def user(relay: Relay) -> UserRow:
    async with relay.database.transaction() as connection:
        return await users.require_user(connection, "alice")


async def sealed_of(database: Database) -> bytes | None:
    async with database.transaction() as connection:
        statement = "SELECT sealed_patients FROM users WHERE erased_at IS NULL"
        sealed: bytes | None = await connection.scalar(text(statement))
        return sealed
