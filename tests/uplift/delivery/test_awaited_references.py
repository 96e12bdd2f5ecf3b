"""Records that refer to others, at a server that refuses a reference that leads nowhere."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from tests import factories
from tests.uplift.delivery.at_hapi import ended, relay_of, report, sends, stored
from tests.uplift.delivery.delivering import deliver
from uplift.ledger.database import Database
from uplift.lifecycle import Reason, State
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings
from uplift.wiring import Relay, open_relay

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
async def relay(database: Database, at_hapi: Settings) -> AsyncIterator[Relay]:
    async with relay_of(at_hapi) as opened:
        yield opened


async def test_a_report_waits_for_its_result_and_refers_to_it(
    relay: Relay, hapi: SandboxServer
) -> None:
    first = await report(relay)
    result = await factories.accepted(relay)
    row = await deliver(relay, first)
    assert (row.state, row.reason, row.attempts) == (State.QUEUED, Reason.AWAITING_REFERENCE, 0)
    assert not sends(hapi, "DiagnosticReport")
    assert (await ended(relay, result)).state is State.DELIVERED
    assert (await ended(relay, first, 1)).state is State.DELIVERED
    (stored_report,) = stored(hapi, "DiagnosticReport")
    (observation,) = stored(hapi)
    assert stored_report["result"] == [
        {"reference": f"Observation/{observation['id']}", "display": "Heart rate"}
    ]


async def test_after_its_wait_a_report_goes_with_a_logical_reference(
    at_hapi: Settings, database: Database, hapi: SandboxServer, relay: Relay
) -> None:
    await factories.accepted(relay)  # it stays queued
    first = await report(relay)
    assert (await deliver(relay, first)).reason == Reason.AWAITING_REFERENCE
    impatient = at_hapi.model_copy(update={"reference_wait_seconds": 0.0})
    async with open_relay(impatient) as other:
        assert (await ended(other, first, 1)).state is State.DELIVERED
    (stored_report,) = stored(hapi, "DiagnosticReport")
    (reference,) = stored_report["result"]
    assert "reference" not in reference
    assert reference["identifier"]["value"] == "Observation/obs-1"
    assert reference["display"] == "Heart rate"


async def test_a_reference_to_a_rejected_record_is_logical(
    relay: Relay, hapi: SandboxServer
) -> None:
    rejected = await factories.accepted(relay, status="nonsense")
    assert (await ended(relay, rejected)).state is State.REJECTED
    assert (await ended(relay, await report(relay))).state is State.DELIVERED
    (stored_report,) = stored(hapi, "DiagnosticReport")
    assert "reference" not in stored_report["result"][0]


async def test_two_that_refer_to_each_other_are_both_delivered(
    relay: Relay, hapi: SandboxServer
) -> None:
    first = await factories.accepted(relay, id="a", derivedFrom=[{"reference": "Observation/b"}])
    second = await factories.accepted(relay, id="b", derivedFrom=[{"reference": "Observation/a"}])
    assert (await deliver(relay, first)).reason == Reason.AWAITING_REFERENCE
    # What waits itself is not waited for.
    assert (await ended(relay, second, 1)).state is State.DELIVERED
    assert (await ended(relay, first, 1)).state is State.DELIVERED
    references = [each["derivedFrom"][0] for each in stored(hapi)]
    assert sorted("reference" in each for each in references) == [False, True]


async def test_a_report_after_its_result_refers_to_it_at_once(
    relay: Relay, hapi: SandboxServer
) -> None:
    assert (await ended(relay, await factories.accepted(relay), 1)).state is State.DELIVERED
    assert (await ended(relay, await report(relay), 1)).state is State.DELIVERED
    (stored_report,) = stored(hapi, "DiagnosticReport")
    (observation,) = stored(hapi)
    assert stored_report["result"][0]["reference"] == f"Observation/{observation['id']}"


def references(element: Any) -> Iterator[dict[str, Any]]:
    """Every reference in a resource."""
    if isinstance(element, list):
        for each in element:
            yield from references(each)
    elif isinstance(element, dict):
        if "reference" in element or isinstance(element.get("identifier"), dict):
            yield element
        else:
            yield from references(list(element.values()))


async def test_whatever_comes_first_each_reference_leads_to_a_resource_or_is_logical(
    relay: Relay, hapi: SandboxServer
) -> None:
    def result(*numbers: str) -> list[dict[str, str]]:
        return [{"reference": f"Observation/{number}"} for number in numbers]

    uploads = [
        await report(relay, id="before", result=result("first", "second")),
        await factories.accepted(relay, id="first"),
        await factories.accepted(relay, id="second", hasMember=result("first")),
        await factories.accepted(relay, id="a", derivedFrom=result("b")),
        await factories.accepted(relay, id="b", derivedFrom=result("a")),
        await factories.accepted(relay, id="itself", derivedFrom=result("itself")),
        await report(relay, id="after", result=result("a", "rejected", "nowhere")),
    ]
    rejected = await factories.accepted(relay, id="rejected", status="nonsense")
    for _ in range(6):
        for upload in (*uploads, rejected):
            await deliver(relay, upload)
    assert (await factories.status(relay, rejected)).state is State.REJECTED
    for upload in uploads:
        row = await factories.status(relay, upload)
        assert row.state is State.DELIVERED, row.issues
    reports = stored(hapi, "DiagnosticReport")
    observations = stored(hapi)
    assert (len(reports), len(observations)) == (2, 5)
    found = [each for resource in (*reports, *observations) for each in references(resource)]
    literal = {each["reference"] for each in found if "reference" in each}
    assert len(literal) == 5, "the Patient, first, second, a and b"
    for reference in literal:
        address = f"{hapi.url}/r4/{reference}"
        assert httpx.get(address, trust_env=False).status_code == 200  # noqa: ASYNC210
    logical = {each["identifier"]["value"] for each in found if "reference" not in each}
    # Of the two that refer to each other one goes first.
    assert logical - {"Observation/a", "Observation/b"} == {
        "Observation/itself",
        "Observation/rejected",
        "Observation/nowhere",
    }
