"""An upload with an unknown outcome is looked up in every way, and never duplicated unmarked."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from msgspec import structs
from sqlalchemy import delete, func, update

from tests import factories
from tests.uplift.delivery.delivering import against, deliver, writes
from uplift.intake.accept import Accepted
from uplift.intake.labels import Labels
from uplift.intake.submission import parse
from uplift.ledger import leases
from uplift.ledger.tables import Upload
from uplift.ledger.uploads import UploadRow, receipt_context
from uplift.ledger.users import key_context
from uplift.lifecycle import Reason, State
from uplift.queues import UPLOADS
from uplift.sandbox.testing import SandboxServer
from uplift.sealing import WrappedKey
from uplift.settings import Settings
from uplift.wiring import Relay, open_relay

_CREATE = {"api": "fhir", "method": "POST"}
_LOOK_UPS = {"api": "fhir", "method": "GET"}
_STORED_UNKNOWN = {"kind": "cut", "commit": True, "match": _CREATE, "count": 1}
_NOT_STORED = {"kind": "cut", "match": _CREATE, "count": 1}
IDENTIFIER = [{"system": "urn:oid:1.2.3", "value": "A 1/2&3"}]


@pytest.fixture
async def unsure(
    settings: Settings, assigning: SandboxServer, relay: Relay
) -> AsyncIterator[Relay]:
    """A relay that does not know whether ids are kept, before a 1upHealth that does not."""
    chosen = against(assigning, settings, oneup_keeps_ids=False)
    async with open_relay(chosen) as opened:
        await factories.user(opened)
        yield opened


async def pass_deadline(relay: Relay, accepted: Accepted) -> None:
    async with relay.database.transaction() as connection:
        await connection.execute(
            update(Upload).where(Upload.id == accepted.upload.id).values(give_up_at=func.now())
        )


async def withdraw(relay: Relay, accepted: Accepted) -> None:
    async with relay.database.transaction() as connection:
        await connection.execute(
            update(Upload).where(Upload.id == accepted.upload.id).values(cancel_requested=True)
        )


def searches(upstream: SandboxServer) -> int:
    found = upstream.requests(api="fhir")
    return sum(each["method"] == "GET" and each["path"].endswith("Observation") for each in found)


def settling(row: UploadRow) -> bool:
    return (row.state, row.reason, row.maybe_sent) == (State.QUEUED, Reason.SETTLING, True)


async def test_an_upload_stored_under_another_id_is_found_by_its_identifier(
    unsure: Relay, assigning: SandboxServer
) -> None:
    accepted = await factories.accepted(unsure, identifier=IDENTIFIER)
    await factories.accepted(unsure, id="obs-2", identifier=IDENTIFIER, status="amended")
    assigning.faults(_STORED_UNKNOWN)
    assert settling(await deliver(unsure, accepted))
    row = await deliver(unsure, accepted)
    assert (row.state, row.possible_duplicate, row.maybe_sent) == (State.DELIVERED, False, False)
    assert len(writes(assigning)) == 1
    # The next version goes to the id that the search found.
    changed = await factories.accepted(unsure, identifier=IDENTIFIER, status="corrected")
    await deliver(unsure, changed)
    (stored,) = assigning.resources()
    assert writes(assigning)[1]["path"] == f"/r4/Observation/{stored['id']}"
    assert len(stored["versions"]) == 2


async def test_an_upload_found_several_times_is_delivered_and_not_sent_again(
    unsure: Relay, assigning: SandboxServer
) -> None:
    accepted = await factories.accepted(unsure, identifier=IDENTIFIER)
    twin = await factories.accepted(unsure, source="hospital-b", identifier=IDENTIFIER, id="obs-b")
    await deliver(unsure, twin)
    assigning.faults(_STORED_UNKNOWN)
    await deliver(unsure, accepted)
    assert (await deliver(unsure, accepted)).state is State.DELIVERED
    assert len(writes(assigning)) == 2


async def test_an_upload_that_two_searches_did_not_find_is_sent_again_and_marked(
    unsure: Relay, assigning: SandboxServer
) -> None:
    accepted = await factories.accepted(unsure, identifier=IDENTIFIER)
    assigning.faults(_NOT_STORED)
    await deliver(unsure, accepted)
    row = await deliver(unsure, accepted)
    assert settling(row)
    assert row.last_response == "search_empty"
    assert (searches(assigning), len(writes(assigning))) == (1, 1)
    row = await deliver(unsure, accepted)
    assert (row.state, row.possible_duplicate) == (State.DELIVERED, True)
    assert (searches(assigning), len(writes(assigning))) == (2, 2)
    assert assigning.counts()["total"]["versions"] == 1


async def test_after_a_step_of_the_ledgers_clock_nothing_counts_as_settled(
    unsure: Relay, assigning: SandboxServer
) -> None:
    accepted = await factories.accepted(unsure, identifier=IDENTIFIER)
    assigning.faults(_NOT_STORED)
    await deliver(unsure, accepted)
    async with unsure.database.transaction() as connection:
        await connection.execute(update(Upload).values(next_attempt_at=func.now()))
        (claim,) = await leases.claim(
            connection,
            [accepted.upload.id],
            since=time.monotonic(),
            attempt_seconds=60,
            lease_seconds=120,
            give_up_seconds=900,
        )
    attempter = unsure.deliverer._attempter
    for since in (0.0, 1.0):
        ahead = structs.replace(
            claim, ledger_at=claim.ledger_at + 86_400 + since, claimed_at=claim.claimed_at + since
        )
        outcome = await attempter.attempt(ahead)
        assert (outcome.code, outcome.change.reason) == ("clock_stepped", Reason.SETTLING)
        assert outcome.change.delay >= unsure.settings.settle_seconds
    assert searches(assigning) == 0


async def test_an_empty_search_is_repeated_after_the_index_lag(
    settings: Settings, unsure: Relay, assigning: SandboxServer
) -> None:
    accepted = await factories.accepted(unsure, identifier=IDENTIFIER)
    assigning.faults(_NOT_STORED)
    await deliver(unsure, accepted)
    patient = unsure.settings.model_copy(update={"index_lag_seconds": 900.0})
    async with open_relay(patient) as slow:
        row = await deliver(slow, accepted)
    assert row.due_in is not None
    assert row.due_in > 890


async def test_a_late_index_duplicates_nothing(unsure: Relay, assigning: SandboxServer) -> None:
    accepted = await factories.accepted(unsure, identifier=IDENTIFIER)
    assigning.faults({"kind": "index_lag", "seconds": 1.0}, _STORED_UNKNOWN)
    await deliver(unsure, accepted)
    assert settling(await deliver(unsure, accepted))
    await asyncio.sleep(1.0)  # the index catches up
    row = await deliver(unsure, accepted)
    assert (row.state, row.possible_duplicate) == (State.DELIVERED, False)
    assert searches(assigning) == 2
    assert len(writes(assigning)) == 1


async def test_after_each_unknown_outcome_two_searches_are_made(
    unsure: Relay, assigning: SandboxServer
) -> None:
    accepted = await factories.accepted(unsure, identifier=IDENTIFIER)
    assigning.faults({**_NOT_STORED, "count": 2})
    for _ in range(3):
        assert settling(await deliver(unsure, accepted))
    assert (searches(assigning), len(writes(assigning))) == (2, 2)
    assert settling(await deliver(unsure, accepted))
    assert (await deliver(unsure, accepted)).state is State.DELIVERED
    assert (searches(assigning), len(writes(assigning))) == (4, 3)


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 404},
        {"kind": "error_body"},
    ],
)
async def test_a_search_that_fails_permits_nothing_and_does_not_count(
    unsure: Relay, assigning: SandboxServer, fault: dict[str, Any]
) -> None:
    accepted = await factories.accepted(unsure, identifier=IDENTIFIER)
    failing = {**fault, "match": {**_LOOK_UPS, "path": "*/Observation"}}
    assigning.faults(_NOT_STORED, failing)
    await deliver(unsure, accepted)
    for _ in range(3):
        assert settling(await deliver(unsure, accepted))
    assigning.clear_faults()
    assert settling(await deliver(unsure, accepted))  # the first whole search
    assert len(writes(assigning)) == 1
    assert (await deliver(unsure, accepted)).state is State.DELIVERED


async def test_a_type_that_cannot_be_searched_is_sent_again_and_marked(
    unsure: Relay, assigning: SandboxServer
) -> None:
    product = {
        "resourceType": "BiologicallyDerivedProduct",
        "productCategory": "organ",
        "id": "product-1",
        "identifier": IDENTIFIER,
    }
    submission = parse(orjson.dumps(product), Labels(fhir_version="R4"))
    accepted = await unsure.acceptor.accept("alice", submission)
    assigning.faults(_NOT_STORED)
    await deliver(unsure, accepted)
    row = await deliver(unsure, accepted)
    assert (row.state, row.possible_duplicate) == (State.DELIVERED, True)


async def test_a_lost_update_is_found_and_not_made_twice(
    unsure: Relay, assigning: SandboxServer
) -> None:
    await deliver(unsure, await factories.accepted(unsure, identifier=IDENTIFIER))
    second = await factories.accepted(unsure, identifier=IDENTIFIER, status="amended")
    assigning.faults(_STORED_UNKNOWN)
    await deliver(unsure, second)
    assert (await deliver(unsure, second)).state is State.DELIVERED
    third = await factories.accepted(unsure, identifier=IDENTIFIER, status="corrected")
    assigning.faults(_NOT_STORED)
    await deliver(unsure, third)
    row = await deliver(unsure, third)
    assert (row.state, row.possible_duplicate) == (State.DELIVERED, True)
    total = assigning.counts()["total"]
    assert (total["resources"], total["versions"], total["duplicates"]) == (1, 3, 0)
    assert searches(assigning) == 0


async def test_content_that_an_older_version_stored_unknown_is_not_sent_again(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    first = await factories.accepted(relay)
    upstream.faults(_STORED_UNKNOWN)
    await deliver(relay, first)
    # Both come while the first is under way. Only later its outcome stays unknown.
    await factories.accepted(relay, status="amended")
    back = await factories.accepted(relay)
    upstream.faults({"kind": "status", "status": 503, "match": _LOOK_UPS})
    await pass_deadline(relay, first)
    assert (await deliver(relay, first)).state is State.EXPIRED
    upstream.clear_faults()
    assert (await deliver(relay, back)).state is State.DELIVERED
    assert len(writes(upstream)) == 1


async def test_a_newer_version_is_sent_although_the_outcome_of_an_older_one_stays_unknown(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    first = await factories.accepted(relay)
    upstream.faults(_STORED_UNKNOWN, {"kind": "status", "status": 503, "match": _LOOK_UPS})
    await deliver(relay, first)
    second = await factories.accepted(relay, status="amended")
    await pass_deadline(relay, first)
    assert (await deliver(relay, first)).state is State.EXPIRED
    # It is looked up first, although it was never sent itself.
    assert settling(await deliver(relay, second))
    assert len(writes(upstream)) == 1
    upstream.clear_faults()
    row = await deliver(relay, second)
    assert (row.state, row.possible_duplicate) == (State.DELIVERED, True)
    total = upstream.counts()["total"]
    assert (total["resources"], total["versions"], total["duplicates"]) == (1, 2, 0)


async def test_content_that_was_removed_and_comes_back_is_not_sent_twice(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    first = await factories.accepted(relay)
    await deliver(relay, first)
    await factories.accepted(relay, status="amended")
    async with relay.database.transaction() as connection:
        await connection.execute(delete(Upload).where(Upload.id == first.upload.id))
    back = await factories.accepted(relay)
    assert not back.duplicate
    row = await deliver(relay, back)
    assert (row.state, row.possible_duplicate) == (State.DELIVERED, False)
    assert len(writes(upstream)) == 1


# --- withdrawn by its owner ------------------------------------------------------------------


async def test_an_upload_withdrawn_before_it_is_sent_is_cancelled_without_a_request(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    await withdraw(relay, accepted)
    row = await deliver(relay, accepted)
    assert (row.state, row.reason) == (State.CANCELLED, Reason.CANCELLED_BY_OWNER)
    assert not row.maybe_sent
    assert not upstream.requests(api="fhir")


async def test_an_upload_withdrawn_too_late_is_delivered(
    unsure: Relay, assigning: SandboxServer
) -> None:
    accepted = await factories.accepted(unsure, identifier=IDENTIFIER)
    assigning.faults(_STORED_UNKNOWN)
    await deliver(unsure, accepted)
    await withdraw(unsure, accepted)
    assert (await deliver(unsure, accepted)).state is State.DELIVERED


async def test_an_upload_withdrawn_and_not_there_is_cancelled_and_never_sent_again(
    unsure: Relay, assigning: SandboxServer
) -> None:
    accepted = await factories.accepted(unsure, identifier=IDENTIFIER)
    assigning.faults(_NOT_STORED, {"kind": "status", "status": 503, "match": _LOOK_UPS, "count": 1})
    await deliver(unsure, accepted)
    await withdraw(unsure, accepted)
    assert settling(await deliver(unsure, accepted))  # the look-up fails
    assert settling(await deliver(unsure, accepted))  # the first search
    row = await deliver(unsure, accepted)
    assert (row.state, row.reason) == (State.CANCELLED, Reason.CANCELLED_BY_OWNER)
    assert row.maybe_sent  # it may be stored yet, later than the settle time
    assert len(writes(assigning)) == 1


async def test_an_upload_withdrawn_that_cannot_be_looked_up_is_cancelled_and_may_be_there(
    unsure: Relay, assigning: SandboxServer
) -> None:
    accepted = await factories.accepted(unsure)
    assigning.faults(_STORED_UNKNOWN)
    await deliver(unsure, accepted)
    await withdraw(unsure, accepted)
    row = await deliver(unsure, accepted)
    assert (row.state, row.maybe_sent, row.possible_duplicate) == (State.CANCELLED, True, False)
    assert len(writes(assigning)) == 1


# --- two sources, one id ---------------------------------------------------------------------


async def both_sources(relay: Relay) -> tuple[Accepted, Accepted]:
    """The same type and id from two hospitals: to Apple two records, at 1upHealth one resource."""
    await factories.user(relay)
    return (
        await factories.accepted(relay, source="hospital-a"),
        await factories.accepted(relay, source="hospital-b", status="amended"),
    )


async def test_two_sources_with_one_id_collide_visibly(
    relay: Relay, upstream: SandboxServer
) -> None:
    first, second = await both_sources(relay)
    await relay.deliverer.deliver(UPLOADS)
    refused = await factories.status(relay, second)
    assert (refused.state, refused.reason) == (State.REFUSED, Reason.ID_COLLISION)
    assert not refused.maybe_sent
    assert (await factories.status(relay, first)).state is State.DELIVERED
    assert len(writes(upstream)) == 1


async def test_two_record_ids_over_one_resource_id_collide_too(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    first = await factories.accepted(relay, record_id="apple-1")
    second = await factories.accepted(relay, record_id="apple-2", status="amended")
    assert (await deliver(relay, first)).state is State.DELIVERED
    assert (await deliver(relay, second)).reason == Reason.ID_COLLISION
    assert len(writes(upstream)) == 1


async def test_of_two_workers_with_one_id_exactly_one_sends(
    settings: Settings, relay: Relay, upstream: SandboxServer
) -> None:
    first, second = await both_sources(relay)
    async with open_relay(settings) as other:
        await asyncio.gather(other.deliverer.deliver(UPLOADS), relay.deliverer.deliver(UPLOADS))
    states = [(await factories.status(relay, each)).state for each in (first, second)]
    assert states == [State.DELIVERED, State.REFUSED]
    assert len(writes(upstream)) == 1


async def test_a_setting_lets_two_sources_share_an_id(
    settings: Settings, relay: Relay, upstream: SandboxServer
) -> None:
    first, second = await both_sources(relay)
    async with open_relay(settings.model_copy(update={"allow_shared_ids": True})) as sharing:
        assert (await deliver(sharing, first)).state is State.DELIVERED
        assert (await deliver(sharing, second)).state is State.DELIVERED
    total = upstream.counts()["total"]
    assert (total["resources"], total["versions"]) == (1, 2)


# --- the receipt -----------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [None, _STORED_UNKNOWN])
async def test_the_receipt_says_what_is_there_since_when_and_of_which_bytes(
    unsure: Relay, assigning: SandboxServer, fault: dict[str, Any] | None
) -> None:
    accepted = await factories.accepted(unsure, identifier=IDENTIFIER)
    assigning.faults(*([fault] if fault else []))
    row = await deliver(unsure, accepted)
    if fault:
        row = await deliver(unsure, accepted)
    assert row.sealed_receipt is not None
    key = unsure.key_ring.unwrap(
        WrappedKey(row.master_key_id, row.wrapped_key), key_context(row.user_id)
    )
    receipt = orjson.loads(key.open(row.sealed_receipt, receipt_context(row.id)))
    (stored,) = assigning.resources()
    (version,) = stored["versions"]
    (sent,) = assigning.stored_bytes()
    assert (receipt["id"], receipt["version"]) == (stored["id"], "1")
    assert receipt["sha256"] == version["sha256"] == hashlib.sha256(sent).hexdigest()
    assert receipt["stored_at"].endswith("+00:00")


async def test_the_same_content_after_a_cancel_is_a_new_upload_and_is_looked_up_first(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    first = await factories.accepted(relay)
    upstream.faults(_NOT_STORED)
    await deliver(relay, first)
    await withdraw(relay, first)
    again = await factories.accepted(relay)
    assert not again.duplicate
    assert (await deliver(relay, first)).state is State.CANCELLED
    assert (await deliver(relay, again)).state is State.DELIVERED
    assert upstream.counts()["total"]["versions"] == 1


async def test_content_that_goes_back_to_what_is_under_way_makes_no_second_version(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    first = await factories.accepted(relay)
    upstream.faults(_STORED_UNKNOWN)
    await deliver(relay, first)
    between = await factories.accepted(relay, status="amended")
    back = await factories.accepted(relay)
    assert (await factories.status(relay, between)).state is State.SUPERSEDED
    assert (await deliver(relay, first)).state is State.DELIVERED
    assert (await deliver(relay, back)).state is State.DELIVERED
    assert upstream.counts()["total"]["versions"] == 1
