"""Several records with one request: Bundles to a sandbox that is like HAPI."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from tests import factories
from tests.uplift.delivery.at_hapi import ended, relay_of, report, stored
from tests.uplift.delivery.delivering import deliver_only, until
from uplift.intake.accept import Accepted
from uplift.ledger import users
from uplift.ledger.database import Database
from uplift.ledger.uploads import UploadRow
from uplift.lifecycle import Reason, State
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings
from uplift.wiring import Relay

pytestmark = pytest.mark.usefixtures("database")

POISON = "poison"
OF_BUNDLES = {"method": "POST"}


@pytest.fixture(params=["transaction", "batch"])
def kind(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def settings_of_bundles(at_hapi: Settings) -> Settings:
    return at_hapi.model_copy(
        update={"destination_bundle": "transaction", "destination_bundle_entries": 50}
    )


@pytest.fixture
async def relay(database: Database, settings_of_bundles: Settings) -> AsyncIterator[Relay]:
    async with relay_of(settings_of_bundles) as opened:
        yield opened


async def accepted(relay: Relay, count: int, **elements: Any) -> list[Accepted]:
    return [await factories.accepted(relay, id=f"obs-{n}", **elements) for n in range(count)]


async def attempted(relay: Relay, uploads: Sequence[Accepted]) -> list[UploadRow]:
    """One attempt of each now, all of them together."""
    async with relay.database.transaction() as connection:
        await connection.execute(
            text("UPDATE uploads SET next_attempt_at = now() WHERE state = 'queued'")
        )
    await deliver_only(relay, *(each.upload.id for each in uploads))
    return [await factories.status(relay, each) for each in uploads]


async def all_ended(
    relay: Relay, uploads: Sequence[Accepted], attempts: int = 40
) -> list[UploadRow]:
    for _ in range(attempts):
        found = await attempted(relay, uploads)
        if all(row.state.final for row in found):
            return found
        await asyncio.sleep(0.05)  # the limiter slows down while answers are missing
    raise AssertionError([(row.state, row.reason, row.last_response) for row in found])


def bundles(hapi: SandboxServer) -> list[int]:
    """How many Bundles came, by their paths: a Bundle is posted to the base."""
    return [
        each["status"] or 0
        for each in hapi.requests()
        if (each["method"], each["path"]) == ("POST", "/r4")
    ]


def puts(hapi: SandboxServer) -> int:
    return sum(
        each["method"] == "PUT" and "/Observation/" in each["path"] for each in hapi.requests()
    )


def change_at(hapi: SandboxServer, resource: dict[str, Any], **elements: Any) -> None:
    """Somebody else changes what is there."""
    address = f"{hapi.url}/r4/Observation/{resource['id']}"
    httpx.put(address, json={**resource, **elements}, trust_env=False).raise_for_status()


async def limits(relay: Relay) -> list[int]:
    async with relay.database.transaction() as connection:
        rows = await connection.scalars(text("SELECT bundle_limit FROM uploads ORDER BY 1"))
        return list(rows)


async def test_what_is_due_together_goes_with_one_request(
    database: Database, settings_of_bundles: Settings, hapi: SandboxServer, kind: str
) -> None:
    chosen = settings_of_bundles.model_copy(update={"destination_bundle": kind})
    async with relay_of(chosen) as relay:
        rows = await attempted(relay, await accepted(relay, 20))
        assert {(row.state, row.reason, row.attempts) for row in rows} == {
            (State.DELIVERED, None, 1)
        }
        receipts = [relay.statuses.open(row).receipt for row in rows]
    assert bundles(hapi) == [200]
    assert puts(hapi) == 0
    there = {each["id"] for each in stored(hapi)}
    assert {receipt.id for receipt in receipts if receipt} == there
    assert len(there) == 20
    patients = [each for each in hapi.requests() if "/Patient/" in each["path"]]
    assert [each["method"] for each in patients] == ["GET", "PUT"], "before any Bundle"


async def test_what_is_alone_is_sent_as_ever(relay: Relay, hapi: SandboxServer) -> None:
    (row,) = await attempted(relay, await accepted(relay, 1))
    assert row.state is State.DELIVERED
    assert (bundles(hapi), puts(hapi)) == ([], 1)


async def test_by_default_each_record_has_a_request_of_its_own(
    database: Database, at_hapi: Settings, hapi: SandboxServer
) -> None:
    async with relay_of(at_hapi) as relay:
        await attempted(relay, await accepted(relay, 3))
    assert (bundles(hapi), puts(hapi)) == ([], 3)


async def test_records_of_several_persons_share_a_bundle_where_the_deployment_logs_in(
    relay: Relay, hapi: SandboxServer
) -> None:
    async with relay.database.transaction() as connection:
        await users.add_user(connection, "bob", relay.key_ring, destination="hapi")
    uploads = [await factories.accepted(relay, name) for name in ("alice", "bob")]
    rows = await attempted(relay, uploads)
    assert {row.state for row in rows} == {State.DELIVERED}
    assert bundles(hapi) == [200]
    assert len({each["subject"]["reference"] for each in stored(hapi)}) == 2


async def test_one_poisonous_record_ends_alone_and_costs_its_neighbours_two_sends(
    relay: Relay, hapi: SandboxServer
) -> None:
    hapi.faults({"kind": "status", "status": 400, "match": {"contains": POISON}})
    uploads = await accepted(relay, 15)
    poisonous = await factories.accepted(relay, id="bad", note=[{"text": POISON}])
    rows = await attempted(relay, [poisonous, *uploads])
    assert {(row.state, row.reason, row.attempts, row.last_response) for row in rows} == {
        (State.QUEUED, Reason.SMALLER_BUNDLE, 0, "bundle_http_400")
    }
    bad, *others = await all_ended(relay, [poisonous, *uploads])
    assert (bad.state, bad.reason) == (State.REFUSED, Reason.UPSTREAM_REFUSED)
    assert bad.attempts == 1, "what stored nothing does not count"
    assert {(row.state, row.attempts) for row in others} == {(State.DELIVERED, 1)}
    assert bundles(hapi).count(400) == 2
    assert min(await limits(relay)) == 1
    assert puts(hapi) == 2, "the poisonous one, and the one that shared its last Bundle"


async def test_a_bundle_of_unknown_outcome_is_sent_again_once_then_smaller(
    relay: Relay, hapi: SandboxServer
) -> None:
    hapi.faults({"kind": "status", "status": 500, "match": {"contains": POISON}})
    uploads = await accepted(relay, 15)
    poisonous = await factories.accepted(relay, id="bad", note=[{"text": POISON}])
    await attempted(relay, [poisonous, *uploads])
    assert await limits(relay) == [16] * 16
    await attempted(relay, [poisonous, *uploads])
    assert await limits(relay) == [2] * 16
    await attempted(relay, [poisonous, *uploads])
    assert (await limits(relay)).count(1) == 2
    rows = await attempted(relay, [poisonous, *uploads])
    states = [row.state for row in rows]
    assert (states.count(State.QUEUED), states.count(State.DELIVERED)) == (1, 15)
    assert (rows[0].state, rows[0].last_response) == (State.QUEUED, "http_500"), "it is alone"
    assert max(row.attempts for row in rows[1:]) <= 4
    assert len(stored(hapi)) == 15


async def test_what_a_kill_leaves_behind_is_written_before_the_send(
    relay: Relay, hapi: SandboxServer
) -> None:
    await all_ended(relay, [await factories.accepted(relay, id="first")])
    hapi.faults({"kind": "slow", "seconds": 0.4, "match": OF_BUNDLES})
    uploads = await accepted(relay, 6)
    delivering = asyncio.create_task(attempted(relay, uploads))
    await until(lambda: bundles(hapi) != [])
    assert await limits(relay) == [0, *[6] * 6]
    await delivering
    assert await limits(relay) == [0] * 7, "it is known that they were stored"


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "cut", "commit": True},
        {"kind": "reset"},
        {"kind": "status", "status": 504, "commit": True},
        {"kind": "half_answer"},
        {"kind": "entries", "order": "shuffled"},
        {"kind": "entries", "order": "missing"},
    ],
    ids=lambda fault: "-".join(str(each) for each in fault.values()),
)
async def test_whatever_becomes_of_a_bundle_each_record_is_there_once(
    relay: Relay, hapi: SandboxServer, fault: dict[str, Any]
) -> None:
    hapi.faults({**fault, "match": OF_BUNDLES, "count": 2})
    uploads = await accepted(relay, 6)
    (first, *_) = await attempted(relay, uploads)
    assert (first.state, first.reason, first.maybe_sent) == (State.QUEUED, Reason.RETRY, True)
    rows = await all_ended(relay, uploads)
    assert {(row.state, row.possible_duplicate) for row in rows} == {(State.DELIVERED, False)}
    assert len(stored(hapi)) == 6
    assert {each["meta"]["versionId"] for each in stored(hapi)} == {"1"}


async def test_one_stale_precondition_is_found_by_its_record_alone(
    relay: Relay, hapi: SandboxServer
) -> None:
    await all_ended(relay, await accepted(relay, 12))
    somebody_elses = stored(hapi)[0]
    change_at(hapi, somebody_elses, status="cancelled")
    rows = await all_ended(relay, await accepted(relay, 12, status="amended"))
    reasons = [row.reason for row in rows]
    assert reasons.count(Reason.OVERWROTE_UPSTREAM) == 1
    assert reasons.count(None) == 11
    assert {each["status"] for each in stored(hapi)} == {"amended"}


async def test_a_record_does_not_share_a_bundle_with_what_it_refers_to(
    relay: Relay, hapi: SandboxServer
) -> None:
    target = await factories.accepted(relay)
    await ended(relay, target)
    await ended(relay, await report(relay))
    newer = [
        await factories.accepted(relay, status="amended"),
        await report(relay, status="amended"),
    ]
    rows = await all_ended(relay, newer)
    assert {row.state for row in rows} == {State.DELIVERED}
    assert bundles(hapi) == []


async def test_a_busy_destination_slows_the_limiter_and_lowers_no_limit(
    relay: Relay, hapi: SandboxServer
) -> None:
    hapi.faults({"kind": "too_many_requests", "retry_after": 0, "match": OF_BUNDLES, "count": 1})
    uploads = await accepted(relay, 6)
    (first, *_) = await attempted(relay, uploads)
    assert (first.reason, first.last_response) == (Reason.RETRY, "bundle_http_429")
    assert await limits(relay) == [0] * 6
    state = await relay.rate_limiters["hapi"].state()
    assert state is not None
    assert state.phase == "throttled"


async def test_one_bundle_that_fails_is_one_failure_to_the_limiter(
    relay: Relay, hapi: SandboxServer
) -> None:
    hapi.faults({"kind": "status", "status": 500, "match": OF_BUNDLES, "count": 1})
    await attempted(relay, await accepted(relay, 20))
    state = await relay.rate_limiters["hapi"].state()
    assert state is not None
    assert state.phase == "full", "twenty failures of their own would be an outage"


async def test_a_redrive_may_join_any_bundle_again(relay: Relay, hapi: SandboxServer) -> None:
    hapi.faults({"kind": "status", "status": 400, "match": {"contains": POISON}})
    uploads = [
        *(await accepted(relay, 3)),
        await factories.accepted(relay, id="bad", note=[{"text": POISON}]),
    ]
    await all_ended(relay, uploads)
    assert max(await limits(relay)) == 1
    await relay.redriver.redrive(uploads[-1].upload.id)
    assert min(await limits(relay)) == 0
