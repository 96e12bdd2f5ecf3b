"""A person is erased, or their records are deleted at the server, and everything is sent again."""

from collections.abc import AsyncIterator

import httpx
import pytest

from tests import factories
from tests.uplift.delivery.at_hapi import ended, push, relay_of, stored, there
from uplift.ledger.database import Database
from uplift.lifecycle import State
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings
from uplift.wiring import Relay

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
async def relay(database: Database, at_hapi: Settings) -> AsyncIterator[Relay]:
    async with relay_of(at_hapi) as opened:
        yield opened


async def erase(relay: Relay) -> None:
    """Erase the person here. What is upstream stays there."""
    assert (await relay.eraser.erase("alice", wait=10)).done


def delete_everything(hapi: SandboxServer) -> None:
    """Somebody deletes it by hand: what leads to others first."""
    for name in reversed(there(hapi)):
        httpx.delete(f"{hapi.url}/r4/{name}", trust_env=False).raise_for_status()
    assert there(hapi) == {}


async def test_after_an_erasure_that_leaves_what_is_there_everything_is_there_once(
    relay: Relay, hapi: SandboxServer
) -> None:
    await push(relay)
    before = there(hapi)
    assert len(before) == 5
    await erase(relay)
    assert there(hapi) == before, "nothing is deleted upstream"
    await relay.provisioner.provision("alice")
    await push(relay)
    after = there(hapi)
    assert after.keys() == before.keys()
    (person,) = (name for name in after if name.startswith("Patient/"))
    assert after[person] == "1", "the Patient is found, and not written again"
    assert {each["subject"]["reference"] for each in stored(hapi)} == {person}


async def test_erased_and_deleted_by_hand_everything_is_there_again_under_the_same_ids(
    relay: Relay, hapi: SandboxServer
) -> None:
    await push(relay)
    before = there(hapi)
    await erase(relay)
    delete_everything(hapi)
    await relay.provisioner.provision("alice")
    await push(relay)
    assert there(hapi).keys() == before.keys()
    assert all(int(version) > 1 for version in there(hapi).values())


async def test_a_patient_deleted_by_hand_is_made_again_for_the_next_record(
    relay: Relay, hapi: SandboxServer
) -> None:
    await push(relay)
    before = there(hapi)
    delete_everything(hapi)
    row = await ended(relay, await factories.accepted(relay, id="obs-4"))
    assert (row.state, row.reason) == (State.DELIVERED, None)
    (person,) = (name for name in before if name.startswith("Patient/"))
    assert {each["subject"]["reference"] for each in stored(hapi)} == {person}


async def test_a_refused_record_stays_refused_while_its_patient_is_there(
    relay: Relay, hapi: SandboxServer
) -> None:
    await push(relay)
    hapi.faults({"kind": "status", "status": 422, "match": {"api": "fhir", "method": "PUT"}})
    row = await ended(relay, await factories.accepted(relay, id="obs-4"))
    hapi.clear_faults()
    assert row.state is State.REFUSED
