"""One upload through claim, validation, token, send and record, against a simulated 1upHealth."""

import asyncio
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr
from sqlalchemy import select, text

from bench.sent_statements import sent_by
from tests import factories
from tests.ledger_copies import LedgerCopies
from tests.uplift.delivery.delivering import against, deliver, until, writes
from tests.uplift.ledger.rows import attempts_of
from tests.uplift.ledger.rows import row as row_of
from uplift.cli.local.embedded import EmbeddedPostgres
from uplift.intake.labels import Labels
from uplift.intake.submission import parse
from uplift.ledger.database import Database
from uplift.ledger.tables import Attempt, Upload
from uplift.ledger.token_pair import TokenPair
from uplift.lifecycle import Reason, State
from uplift.logs import configure_logs
from uplift.queues import UPLOADS
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings
from uplift.wiring import Relay, open_relay

_FHIR = {"api": "fhir"}
_CREATE = {"api": "fhir", "method": "POST"}


async def test_the_bytes_that_arrive_are_the_bytes_submitted(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(
        relay, valueQuantity={"value": 1.50}, note=[{"text": "Größe: 1 ☃ 🫁"}]
    )
    row = await deliver(relay, accepted)
    assert row.state is State.DELIVERED
    expected = factories.resource(valueQuantity={"value": 1.50}, note=[{"text": "Größe: 1 ☃ 🫁"}])
    assert upstream.stored_bytes() == [orjson.dumps(expected)]


async def test_a_delivered_upload_keeps_a_receipt_and_no_body(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    row = await deliver(relay, accepted)
    assert row.delivered_at is not None
    assert row.sealed_receipt is not None
    assert row.last_response == "http_201"
    assert not row.maybe_sent
    async with relay.database.transaction() as connection:
        body = await connection.scalar(select(Upload.sealed_body))
        attempts = (await connection.execute(select(Attempt.outcome, Attempt.status_code))).all()
    assert body is None
    assert [tuple(each) for each in attempts] == [("stored", 201)]


async def test_an_idle_process_claims_what_a_message_names_at_once_and_then_all_that_is_due(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = [await factories.accepted(relay, id=f"o{number}") for number in range(3)]
    with sent_by() as sent:
        await relay.deliverer.deliver(UPLOADS, expected=1)
    counting = [number for number, (sql, _) in enumerate(sent) if "count(*)" in sql]
    claiming = [number for number, (sql, _) in enumerate(sent) if "opened AS" in sql]
    assert claiming[0] < counting[0]
    states = [(await factories.status(relay, each)).state for each in accepted]
    assert states == [State.DELIVERED] * 3


async def test_a_message_about_what_is_claimed_already_ends(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    async with asyncio.timeout(5):
        assert not await relay.deliverer.deliver(UPLOADS, expected=100)


@pytest.mark.parametrize(
    ("fault", "state", "reason", "maybe_sent"),
    [
        # All others are rows of test_responses.py and test_outcome.py.
        ({"kind": "too_many_requests"}, State.QUEUED, Reason.RETRY, False),
        ({"kind": "status", "status": 503}, State.QUEUED, Reason.SETTLING, True),
        ({"kind": "reset"}, State.QUEUED, Reason.SETTLING, True),
        ({"kind": "status", "status": 403}, State.QUEUED, Reason.HELD, False),
        ({"kind": "status", "status": 422}, State.REFUSED, Reason.UPSTREAM_REFUSED, False),
    ],
)
async def test_each_response_leads_to_its_state(
    relay: Relay,
    upstream: SandboxServer,
    fault: dict[str, Any],
    state: State,
    reason: Reason,
    maybe_sent: bool,
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    upstream.faults({**fault, "match": _CREATE})
    row = await deliver(relay, accepted)
    assert (row.state, row.reason) == (state, reason)
    assert row.maybe_sent is maybe_sent
    assert upstream.counts()["total"]["resources"] == 0
    assert len(writes(upstream)) == 1


async def test_the_status_says_why_1uphealth_refused_the_record(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    issue = {
        "severity": "error",
        "code": "code-invalid",
        "diagnostics": "Canary is no code",
        "expression": ["Observation.code.coding[0].code", "Canary"],
    }
    body = {"resourceType": "OperationOutcome", "issue": [issue]}
    upstream.faults({"kind": "status", "status": 422, "body": body, "match": _CREATE})
    row = await deliver(relay, await factories.accepted(relay, performer=[]))
    assert row.state is State.REFUSED
    assert row.issues is not None
    assert "Canary" not in str(row.issues)
    assert row.issues["total"] == 2
    first, second = row.issues["issue"]
    assert (first["code"], first["expression"]) == (
        "code-invalid",
        ["Observation.code.coding[0].code"],
    )
    assert second["severity"] == "warning"  # what our own validation found


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 504, "commit": True},
        {"kind": "half_answer"},
    ],
)
async def test_an_upload_stored_without_a_response_is_found_and_not_sent_again(
    relay: Relay, upstream: SandboxServer, fault: dict[str, Any]
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    upstream.faults({**fault, "match": _CREATE, "count": 1})
    assert (await deliver(relay, accepted)).maybe_sent
    row = await deliver(relay, accepted)
    assert row.state is State.DELIVERED
    assert not row.possible_duplicate
    assert row.sealed_receipt is not None
    assert len(writes(upstream)) == 1
    assert upstream.counts()["total"]["versions"] == 1


async def test_an_upload_that_was_not_stored_is_sent_again_after_a_look_up(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    upstream.faults({"kind": "cut", "match": _CREATE, "count": 1})
    await deliver(relay, accepted)
    row = await deliver(relay, accepted)
    assert row.state is State.DELIVERED
    # An upload that a look-up does not find may still be stored later than settle_seconds.
    assert row.possible_duplicate
    assert [each["method"] for each in upstream.requests(api="fhir")] == ["POST", "GET", "POST"]


async def test_a_commit_that_comes_later_than_the_look_up_is_marked(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    upstream.faults({"kind": "cut", "commit_after": 0.5, "match": _CREATE, "count": 1})
    await deliver(relay, accepted)
    row = await deliver(relay, accepted)
    await until(lambda: upstream.counts()["total"]["versions"] == 2)
    assert (row.state, row.possible_duplicate) == (State.DELIVERED, True)


async def test_a_send_that_did_not_happen_after_the_look_up_is_looked_up_again(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    upstream.faults({"kind": "cut", "match": _CREATE, "count": 1})
    await deliver(relay, accepted)
    upstream.faults({"kind": "too_many_requests", "match": _CREATE, "count": 1})
    row = await deliver(relay, accepted)
    assert (row.reason, row.possible_duplicate, row.maybe_sent) == (Reason.RETRY, False, True)
    assert (await deliver(relay, accepted)).possible_duplicate
    methods = [each["method"] for each in upstream.requests(api="fhir")]
    assert methods == ["POST", "GET", "POST", "GET", "POST"]


@pytest.mark.parametrize("status", [403, 429])
async def test_a_look_up_that_fails_never_permits_a_second_send(
    relay: Relay, upstream: SandboxServer, status: int
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    upstream.faults(
        {"kind": "cut", "match": _CREATE},
        {"kind": "status", "status": status, "match": {"api": "fhir", "method": "GET"}},
    )
    await deliver(relay, accepted)
    row = await deliver(relay, accepted)
    assert (row.state, row.reason, row.maybe_sent) == (State.QUEUED, Reason.SETTLING, True)
    assert len(writes(upstream)) == 1


async def test_a_record_without_an_id_is_sent_again_and_marked(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    without_id = factories.resource()
    del without_id["id"]
    submission = parse(orjson.dumps(without_id), Labels(fhir_version="R4"))
    accepted = await relay.acceptor.accept("alice", submission)
    upstream.faults({"kind": "cut", "match": _CREATE, "count": 1})
    await deliver(relay, accepted)
    row = await deliver(relay, accepted)
    assert row.state is State.DELIVERED
    assert row.possible_duplicate


async def test_where_ids_may_be_assigned_a_second_send_is_marked(
    settings: Settings, relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    upstream.faults({"kind": "cut", "match": _CREATE, "count": 1})
    async with open_relay(settings.model_copy(update={"oneup_keeps_ids": False})) as unsure:
        await deliver(unsure, accepted)
        row = await deliver(unsure, accepted)
    assert row.state is State.DELIVERED
    assert row.possible_duplicate


async def test_a_server_that_assigns_ids_is_updated_under_its_own_id(
    settings: Settings, relay: Relay
) -> None:
    with SandboxServer(SandboxConfig(ids="assigned")) as upstream:
        assigning = against(upstream, settings)
        async with open_relay(assigning) as relay_:
            await factories.user(relay_)
            first = await factories.accepted(relay_)
            assert (await deliver(relay_, first)).state is State.DELIVERED
            changed = await factories.accepted(relay_, status="amended")
            assert (await deliver(relay_, changed)).state is State.DELIVERED
        total = upstream.counts()["total"]
        assert (total["resources"], total["versions"]) == (1, 2)


async def test_a_newer_version_goes_out_as_an_update_after_the_older(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    first = await factories.accepted(relay)
    assert (await deliver(relay, first)).state is State.DELIVERED
    second = await factories.accepted(relay, status="amended")
    assert (await deliver(relay, second)).state is State.DELIVERED
    assert [each["path"] for each in writes(upstream)] == [
        "/r4/Observation",
        "/r4/Observation/obs-1",
    ]
    assert upstream.counts()["total"] | {} == {
        "resources": 1,
        "versions": 2,
        "duplicate_resources": 0,
        "duplicate_versions": 0,
        "duplicates": 0,
    }


async def test_a_newer_version_waits_until_it_is_known_what_became_of_the_older(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    first = await factories.accepted(relay)
    upstream.faults({"kind": "cut", "commit": True, "match": _CREATE, "count": 1})
    await deliver(relay, first)
    second = await factories.accepted(relay, status="amended")
    assert (await deliver(relay, second)).state is State.QUEUED
    assert (await deliver(relay, first)).state is State.DELIVERED
    assert (await deliver(relay, second)).state is State.DELIVERED
    total = upstream.counts()["total"]
    assert (total["resources"], total["versions"]) == (1, 2)


async def test_an_update_of_a_resource_that_vanished_creates_it_again(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    await deliver(relay, await factories.accepted(relay))
    second = await factories.accepted(relay, status="amended")
    upstream.faults({"kind": "status", "status": 404, "match": {"api": "fhir", "path": "*/obs-1"}})
    assert (await deliver(relay, second)).state is State.DELIVERED
    assert [each["method"] for each in upstream.requests(api="fhir")] == [
        "POST",  # the first version
        "POST",  # the update: 404
        "GET",  # really gone
        "POST",  # created again
    ]


async def test_a_too_complex_resource_is_rejected_and_kept_for_a_redrive(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay, component=[[]] * 100_000)
    row = await deliver(relay, accepted)
    assert (row.state, row.reason) == (State.REJECTED, Reason.TOO_COMPLEX)
    assert row.issues is not None
    assert row.issues["issue"][0]["code"] == "too-costly"
    assert (await row_of(relay.database, accepted.upload.id)).sealed_body is not None
    assert upstream.requests(api="fhir") == []


async def test_a_long_attachment_is_delivered(relay: Relay, upstream: SandboxServer) -> None:
    await factories.user(relay)
    note = [{"text": 'a, [b] {c} "d"\n' * (1024 * 1024 // 17 - 1)}] * 7
    accepted = await factories.accepted(relay, note=note)
    assert (await deliver(relay, accepted)).state is State.DELIVERED


async def test_an_invalid_resource_is_rejected_with_the_element_and_sends_nothing(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay, valueQuantity={"value": "seventy"})
    row = await deliver(relay, accepted)
    assert (row.state, row.reason) == (State.REJECTED, Reason.INVALID)
    assert row.issues is not None
    assert row.issues["issue"][0]["expression"] == ["Observation.valueQuantity.value"]
    assert "seventy" not in str(row.issues)
    assert not row.maybe_sent
    assert not upstream.requests(api="fhir")


async def test_a_type_that_1uphealth_does_not_take_is_rejected_and_sends_nothing(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay, resourceType="Binary")
    row = await deliver(relay, accepted)
    assert (row.state, row.reason) == (State.REJECTED, Reason.INVALID)
    assert row.issues is not None
    (issue,) = row.issues["issue"]
    assert (issue["code"], issue["expression"]) == ("not-supported", ["Resource"])
    assert "The destination" in issue["diagnostics"]
    assert not upstream.requests(api="fhir")


async def test_a_known_deviation_is_delivered_as_it_came_with_a_warning(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    deviating: dict[str, Any] = {"performer": [], "effectiveDateTime": "2014-01-02T03:04:05"}
    row = await deliver(relay, await factories.accepted(relay, **deviating))
    assert row.state is State.DELIVERED
    assert row.issues is not None
    assert {(each["severity"], *each["expression"]) for each in row.issues["issue"]} == {
        ("warning", "Observation.performer"),
        ("warning", "Observation.effectiveDateTime"),
    }
    (stored,) = upstream.stored_bytes()
    assert orjson.loads(stored).items() >= deviating.items()


async def test_an_expired_token_is_refreshed_within_the_attempt(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    upstream.faults({"kind": "expire_tokens"})
    row = await deliver(relay, accepted)
    assert (row.state, row.attempts) == (State.DELIVERED, 1)
    assert [each["status"] for each in writes(upstream)] == [401, 201]


async def test_a_401_in_spite_of_a_fresh_token_holds_the_upload(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    upstream.faults({"kind": "status", "status": 401, "match": _FHIR})
    row = await deliver(relay, accepted)
    assert (row.state, row.reason) == (State.QUEUED, Reason.HELD)
    assert len(writes(upstream)) == 2


async def test_ended_consent_parks_and_a_new_grant_releases(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    other = await factories.accepted(relay, id="obs-2")
    upstream.faults({"kind": "end_consent", "match": {"user": "alice"}})
    row = await deliver(relay, accepted)
    assert (row.state, row.reason) == (State.PARKED, Reason.NEEDS_AUTHORIZATION)
    assert (await factories.status(relay, other)).state is State.PARKED
    upstream.clear_faults()
    granted = upstream.grant("alice")
    await relay.provisioner.bring_grant(
        "alice", TokenPair(granted["access_token"], granted["refresh_token"], 7200)
    )
    assert (await factories.status(relay, accepted)).reason == Reason.RELEASED
    assert (await deliver(relay, accepted)).state is State.DELIVERED
    assert (await deliver(relay, other)).state is State.DELIVERED


async def test_an_upload_that_parks_after_its_new_grant_came_is_released_by_the_sweep(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    async with relay.database.transaction() as connection:
        await connection.execute(
            text("UPDATE uploads SET state = 'parked', next_attempt_at = NULL")
        )
    assert (await relay.sweeper.sweep()).released == 1
    assert (await deliver(relay, accepted)).state is State.DELIVERED


async def test_a_token_endpoint_that_is_away_parks_nobody(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    upstream.faults(
        {"kind": "expire_tokens"}, {"kind": "status", "status": 503, "match": {"api": "token"}}
    )
    row = await deliver(relay, accepted)
    assert (row.state, row.reason) == (State.QUEUED, Reason.NO_TOKEN)


async def test_a_stalled_response_ends_with_the_deadline(
    settings: Settings, relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    upstream.faults({"kind": "stall", "seconds": 30, "match": _CREATE})
    hasty = settings.model_copy(update={"attempt_seconds": 0.5})
    started = time.monotonic()
    async with open_relay(hasty) as relay_:
        row = await deliver(relay_, accepted)
    assert time.monotonic() - started < 10
    assert (row.reason, row.last_response) == (Reason.SETTLING, "no_answer")


async def test_an_upload_past_its_deadline_is_looked_up_once_more_and_then_expires(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    upstream.faults({"kind": "cut", "match": _CREATE, "count": 1})
    await deliver(relay, accepted)
    async with relay.database.transaction() as connection:
        await connection.execute(text("UPDATE uploads SET give_up_at = now()"))
    assert (await relay.sweeper.sweep()).expired == 0
    row = await deliver(relay, accepted)
    assert (row.state, row.reason, row.maybe_sent) == (State.EXPIRED, Reason.GAVE_UP, True)
    assert len(writes(upstream)) == 1


async def test_an_upload_past_its_deadline_that_is_there_is_delivered(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    upstream.faults({"kind": "cut", "commit": True, "match": _CREATE, "count": 1})
    await deliver(relay, accepted)
    async with relay.database.transaction() as connection:
        await connection.execute(text("UPDATE uploads SET give_up_at = now()"))
    assert (await deliver(relay, accepted)).state is State.DELIVERED


async def test_one_slow_send_delays_no_other(
    settings: Settings, relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    uploads = [await factories.accepted(relay, id=f"obs-{n}") for n in range(12)]
    upstream.faults({"kind": "slow", "seconds": 3, "match": {**_CREATE, "id": "obs-0"}})
    async with open_relay(settings.model_copy(update={"max_in_flight": 3})) as narrow:
        all_of_them = asyncio.create_task(narrow.deliverer.deliver(UPLOADS))

        async def others_are_delivered() -> bool:
            states = [(await factories.status(relay, each)).state for each in uploads[1:]]
            return set(states) == {State.DELIVERED}

        await until(others_are_delivered)
        assert (await factories.status(relay, uploads[0])).state is State.SENDING
        await all_of_them
    assert (await factories.status(relay, uploads[0])).state is State.DELIVERED


async def test_no_more_than_the_in_flight_limit_is_claimed_at_once(
    settings: Settings, relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    uploads = [await factories.accepted(relay, id=f"obs-{n}") for n in range(8)]
    upstream.faults({"kind": "slow", "seconds": 1, "match": _CREATE})
    async with open_relay(settings.model_copy(update={"max_in_flight": 3})) as narrow:
        all_of_them = asyncio.create_task(narrow.deliverer.deliver(UPLOADS))
        await until(lambda: len(writes(upstream)) == 3)
        rows = [await factories.status(relay, each) for each in uploads]
        assert sum(row.state is State.SENDING for row in rows) == 3
        await all_of_them
    assert upstream.counts()["total"]["resources"] == 8


async def test_a_stop_hands_back_what_is_not_sent_and_waits_for_what_is(
    settings: Settings, relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    uploads = [await factories.accepted(relay, id=f"obs-{n}") for n in range(6)]
    upstream.faults({"kind": "slow", "seconds": 1, "match": _CREATE})
    async with open_relay(settings.model_copy(update={"max_in_flight": 2})) as narrow:
        task = asyncio.create_task(narrow.deliverer.deliver(UPLOADS))
        await until(lambda: len(writes(upstream)) == 2)
        narrow.deliverer.stop()
        left = await task
    assert left
    states = [(await factories.status(relay, each)).state for each in uploads]
    assert states == [State.DELIVERED] * 2 + [State.QUEUED] * 4


async def test_a_worker_whose_lease_ran_out_cannot_record(
    settings: Settings, relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    upstream.faults({"kind": "slow", "seconds": 1.5, "match": _CREATE, "count": 1})
    late = asyncio.create_task(relay.deliverer.deliver(UPLOADS))
    await until(lambda: len(writes(upstream)) == 1)
    async with relay.database.transaction() as connection:
        await connection.execute(text("UPDATE uploads SET lease_until = now() - interval '1 s'"))
    assert (await relay.sweeper.sweep()).lease_expired == 1
    await late
    row = await factories.status(relay, accepted)
    assert (row.state, row.reason, row.maybe_sent) == (State.QUEUED, Reason.LEASE_EXPIRED, True)
    assert (await deliver(relay, accepted)).state is State.DELIVERED
    assert upstream.counts()["total"]["versions"] == 1


async def test_a_body_that_does_not_decrypt_is_held_and_blocks_no_other(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    broken = await factories.accepted(relay)
    good = await factories.accepted(relay, id="obs-2")
    async with relay.database.transaction() as connection:
        await connection.execute(
            text("UPDATE uploads SET sealed_body = '\\x01ff' WHERE id = :id"),
            {"id": broken.upload.id},
        )
    await relay.deliverer.deliver(UPLOADS)
    row = await factories.status(relay, broken)
    assert (row.state, row.reason) == (State.QUEUED, Reason.HELD)
    assert not row.maybe_sent
    assert (await factories.status(relay, good)).state is State.DELIVERED


async def test_one_message_delivers_all_that_is_ready_in_its_queue_by_turns(
    relay: Relay, upstream: SandboxServer
) -> None:
    """More than one claim takes, and whatever ids a message names: it only wakes the worker."""
    for name in ("alice", "bob"):
        await factories.user(relay, name)
    hers = [await factories.accepted(relay, "alice", id=f"hers-{n}") for n in range(130)]
    his = await factories.accepted(relay, "bob", id="his")
    assert not await relay.deliverer.deliver(UPLOADS)
    for each in (*hers, his):
        assert (await factories.status(relay, each)).state is State.DELIVERED
    sent = [each["path"] for each in upstream.requests(api="fhir")]
    assert len(sent) == 131
    order = [await attempts_of(relay.database, each.upload.id) for each in (*hers, his)]
    opened = [attempts[0].opened_at for attempts in order]
    # He came last, and is in the first claim.
    assert opened[-1] == min(opened)


async def test_where_nothing_is_due_a_delivery_ends_at_once(relay: Relay) -> None:
    assert not await relay.deliverer.deliver(UPLOADS)


async def test_a_create_after_a_vanished_target_is_not_duplicated_unmarked(
    settings: Settings, relay: Relay
) -> None:
    with SandboxServer(SandboxConfig(ids="assigned")) as upstream:
        assigning = against(upstream, settings, oneup_keeps_ids=False)
        async with open_relay(assigning) as relay_:
            await factories.user(relay_)
            first = await factories.accepted(relay_)
            await deliver(relay_, first)
            target = upstream.resources()[0]["id"]
            second = await factories.accepted(relay_, status="amended")
            upstream.faults(
                {"kind": "status", "status": 404, "match": {"api": "fhir", "path": f"*/{target}"}},
                {"kind": "status", "status": 504, "commit": True, "match": _CREATE, "count": 1},
            )
            assert (await deliver(relay_, second)).maybe_sent
            row = await deliver(relay_, second)
    assert row.state is State.DELIVERED
    assert row.possible_duplicate


async def test_only_a_second_send_is_marked_as_a_possible_duplicate(
    relay: Relay, settings: Settings, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    upstream.faults({"kind": "cut", "match": _CREATE, "count": 1})
    async with open_relay(settings.model_copy(update={"oneup_keeps_ids": False})) as unsure:
        await deliver(unsure, accepted)
        upstream.faults({"kind": "too_many_requests", "match": _CREATE, "count": 1})
        row = await deliver(unsure, accepted)
        assert (row.reason, row.possible_duplicate, row.maybe_sent) == (Reason.RETRY, False, True)
        row = await deliver(unsure, accepted)
    assert (row.state, row.possible_duplicate) == (State.DELIVERED, True)


async def test_a_404_that_is_not_in_fhir_proves_nothing(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    upstream.faults(
        {"kind": "status", "status": 504, "commit": True, "match": _CREATE, "count": 1},
        {
            "kind": "status",
            "status": 404,
            "body": "<h1>Not here</h1>",
            "content_type": "text/html",
            "match": {"api": "fhir", "method": "GET"},
            "count": 1,
        },
    )
    await deliver(relay, accepted)
    row = await deliver(relay, accepted)
    assert (row.state, row.reason) == (State.QUEUED, Reason.SETTLING)
    assert (await deliver(relay, accepted)).state is State.DELIVERED
    assert upstream.counts()["total"]["versions"] == 1


async def test_an_error_before_the_send_does_not_count_as_sent(
    relay: Relay, upstream: SandboxServer, database: Database
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    async with database.transaction() as connection:
        await connection.execute(text("ALTER TABLE grants RENAME TO grants_away"))
    try:
        row = await deliver(relay, accepted)
    finally:
        async with database.transaction() as connection:
            await connection.execute(text("ALTER TABLE grants_away RENAME TO grants"))
    assert (row.state, row.reason, row.maybe_sent) == (State.QUEUED, Reason.RETRY, False)
    assert row.last_response == "failed_ProgrammingError"
    row = await deliver(relay, accepted)
    assert (row.state, row.possible_duplicate) == (State.DELIVERED, False)


async def test_responses_that_come_while_postgresql_restarts_are_recorded_and_nothing_is_sent_twice(
    settings: Settings,
    upstream: SandboxServer,
    ledger_copies: LedgerCopies,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    configure_logs(settings)
    with EmbeddedPostgres(ledger_copies.put(tmp_path / "own"), settings={"fsync": "off"}) as own:
        patient = settings.model_copy(
            update={
                "database_url": SecretStr(own.url),
                "oneup_keeps_ids": False,
                "attempt_seconds": 30.0,
                "lease_seconds": 60.0,
            }
        )
        async with open_relay(patient) as relay:
            await factories.user(relay)
            sent = [
                await factories.accepted(relay, id=f"obs-{n}", valueQuantity={"value": n})
                for n in range(10)
            ]
            upstream.faults({"kind": "slow", "seconds": 2, "commit_first": True, "match": _CREATE})
            delivering = asyncio.create_task(relay.deliverer.deliver(UPLOADS))
            await until(lambda: upstream.counts()["total"]["resources"] == len(sent))
            own.kill()
            await until(lambda: "recording_again" in capfd.readouterr().err)
            assert not delivering.done()
            await asyncio.to_thread(own.restart)
            assert not await delivering
            rows = [await factories.status(relay, each) for each in sent]
    assert {(row.state, row.attempts, row.possible_duplicate) for row in rows} == {
        (State.DELIVERED, 1, False)
    }
    total = upstream.counts()["total"]
    assert (total["resources"], total["duplicates"]) == (len(sent), 0)
    assert len(writes(upstream)) == len(sent)


async def test_how_long_an_upload_was_due_is_counted_for_its_queue(
    relay: Relay, upstream: SandboxServer
) -> None:
    def counted() -> float:
        value = REGISTRY.get_sample_value(
            "uplift_waiting_duration_seconds_bucket", {"queue": UPLOADS, "le": "60.0"}
        )
        return value or 0.0

    await factories.user(relay)
    await factories.accepted(relay)
    before = counted()
    await relay.deliverer.deliver(UPLOADS)
    assert counted() == before + 1
