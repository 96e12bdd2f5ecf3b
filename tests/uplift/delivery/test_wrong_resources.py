"""A 2xx that is not about the resource that was sent is no delivery until a look-up says so."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import REGISTRY

from tests import factories
from tests.uplift.delivery.delivering import against, deliver, writes
from uplift.lifecycle import Reason, State
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings
from uplift.wiring import Relay, open_relay

_WRITE = {"api": "fhir", "method": "POST"}


def answering(resource: dict[str, Any], *, commit: bool, **more: Any) -> dict[str, Any]:
    """A fault: writes are answered with this resource."""
    fault = {"kind": "status", "status": 200, "body": resource, "commit": commit}
    return {**fault, "content_type": "application/fhir+json", "match": _WRITE, **more}


def counted(why: str) -> float:
    return REGISTRY.get_sample_value("uplift_wrong_resources_total", {"why": why}) or 0.0


def stored_differently() -> float:
    labels = {"state": "delivered", "reason": "stored_differently"}
    return REGISTRY.get_sample_value("uplift_attempts_total", labels) or 0.0


@pytest.fixture
async def unsure(
    settings: Settings, assigning: SandboxServer, relay: Relay
) -> AsyncIterator[Relay]:
    """A relay before it that does not know whether ids are kept."""
    async with open_relay(against(assigning, settings, oneup_keeps_ids=False)) as opened:
        await factories.user(opened)
        yield opened


ANOTHER = [
    pytest.param(
        {"resourceType": "OperationOutcome", "issue": []}, "not_the_resource", id="another type"
    ),
    pytest.param(factories.resource(id="obs-9"), "another_id", id="another id, our content"),
    pytest.param(
        factories.resource(id="obs-9", status="amended"), "another_id", id="another resource"
    ),
]


@pytest.mark.parametrize("commit", [True, False], ids=["stored", "not stored"])
@pytest.mark.parametrize(("resource", "code"), ANOTHER)
async def test_a_create_with_the_response_of_another_resource_is_looked_up(
    relay: Relay, upstream: SandboxServer, resource: dict[str, Any], code: str, commit: bool
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    before = counted(code)
    upstream.faults(answering(resource, commit=commit, count=1))
    row = await deliver(relay, accepted)
    assert (row.state, row.reason, row.maybe_sent) == (State.QUEUED, Reason.SETTLING, True)
    assert (row.last_response, counted(code)) == (code, before + 1)
    row = await deliver(relay, accepted)
    assert (row.state, row.possible_duplicate) == (State.DELIVERED, not commit)
    assert [each["id"] for each in upstream.resources()] == ["obs-1"]
    assert upstream.counts()["total"]["versions"] == 1


@pytest.mark.parametrize("commit", [True, False], ids=["stored", "not stored"])
@pytest.mark.parametrize(("resource", "code"), ANOTHER)
async def test_an_update_with_the_response_of_another_resource_is_looked_up(
    unsure: Relay, assigning: SandboxServer, resource: dict[str, Any], code: str, commit: bool
) -> None:
    await deliver(unsure, await factories.accepted(unsure))
    update = await factories.accepted(unsure, status="amended")
    assigning.faults(answering(resource, commit=commit, count=1))
    row = await deliver(unsure, update)
    assert (row.state, row.reason, row.last_response) == (State.QUEUED, Reason.SETTLING, code)
    assert (await deliver(unsure, update)).state is State.DELIVERED
    (stored,) = assigning.resources()
    assert len(stored["versions"]) == 2


async def test_other_content_is_delivered_and_nothing_is_sent_again_for_it(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    before = stored_differently()
    upstream.faults(answering(factories.resource(status="amended"), commit=True))
    row = await deliver(relay, accepted)
    assert (row.state, row.reason) == (State.DELIVERED, Reason.STORED_DIFFERENTLY)
    assert stored_differently() == before + 1
    again = await factories.accepted(relay)
    assert (again.upload.id, again.duplicate) == (accepted.upload.id, True)
    assert len(writes(upstream)) == 1


async def test_a_create_with_the_id_of_another_records_receipt_is_looked_up(
    unsure: Relay, assigning: SandboxServer
) -> None:
    await deliver(unsure, await factories.accepted(unsure))
    (first,) = assigning.resources()
    other = await factories.accepted(
        unsure, id="obs-2", status="amended", identifier=[{"system": "s", "value": "v"}]
    )
    before = counted("another_record")
    taken = factories.resource(id=first["id"], status="amended")
    assigning.faults(answering(taken, commit=True, count=1))
    row = await deliver(unsure, other)
    assert (row.state, row.reason, row.maybe_sent) == (State.QUEUED, Reason.SETTLING, True)
    assert (row.last_response, counted("another_record")) == ("another_record", before + 1)
    row = await deliver(unsure, other)
    assert (row.state, row.possible_duplicate) == (State.DELIVERED, False)
    assert len(writes(assigning)) == 2


async def test_the_id_of_another_persons_resource_is_no_sign_of_anything(
    unsure: Relay, assigning: SandboxServer
) -> None:
    await factories.user(unsure, "bob")
    await deliver(unsure, await factories.accepted(unsure, "bob"))
    (first,) = assigning.resources()
    accepted = await factories.accepted(unsure)
    assigning.faults(answering(factories.resource(id=first["id"]), commit=True, count=1))
    assert (await deliver(unsure, accepted)).state is State.DELIVERED


async def test_where_ids_are_not_kept_although_the_setting_says_so_nothing_is_doubled(
    settings: Settings, assigning: SandboxServer, relay: Relay
) -> None:
    async with open_relay(against(assigning, settings, oneup_keeps_ids=True)) as mistaken:
        await factories.user(mistaken)
        accepted = await factories.accepted(mistaken)
        before = counted("another_id")
        row = await deliver(mistaken, accepted)
        assert (row.state, row.possible_duplicate) == (State.DELIVERED, False)
        assert counted("another_id") == before + 1
        # Its update goes where it is.
        update = await factories.accepted(mistaken, status="amended")
        assert (await deliver(mistaken, update)).state is State.DELIVERED
    (stored,) = assigning.resources()
    assert len(stored["versions"]) == 2


async def test_an_assigned_id_that_cannot_be_looked_up_leaves_the_outcome_unknown(
    settings: Settings, assigning: SandboxServer, relay: Relay
) -> None:
    async with open_relay(against(assigning, settings, oneup_keeps_ids=True)) as mistaken:
        await factories.user(mistaken)
        accepted = await factories.accepted(mistaken)
        assigning.faults({"kind": "cut", "match": {"api": "fhir", "method": "GET"}})
        row = await deliver(mistaken, accepted)
    assert (row.state, row.reason, row.maybe_sent) == (State.QUEUED, Reason.SETTLING, True)
