"""Uploads to a server that knows records by derived ids: a sandbox that is like HAPI."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from tests import factories
from tests.uplift.delivery.at_hapi import delete_at, ended, relay_of, report, sends, stored
from tests.uplift.delivery.delivering import deliver, deliver_only
from uplift.cli.push.records import Record
from uplift.cli.push.sources import read_records
from uplift.destinations.derived_ids import patient_id, read_id_key
from uplift.intake.labels import Labels
from uplift.intake.submission import parse
from uplift.ledger.database import Database
from uplift.lifecycle import Reason, State
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.export.make_export import write_export
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings
from uplift.wiring import Relay, open_relay

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
async def relay(database: Database, at_hapi: Settings) -> AsyncIterator[Relay]:
    async with relay_of(at_hapi) as opened:
        yield opened


async def test_a_record_is_put_to_an_id_of_its_own_with_the_persons_patient(
    relay: Relay, hapi: SandboxServer, at_hapi: Settings
) -> None:
    upload = await factories.accepted(relay)
    row = await ended(relay, upload)
    assert (row.state, row.reason, row.possible_duplicate) == (State.DELIVERED, None, False)
    (resource,) = stored(hapi)
    id_key = read_id_key(at_hapi)
    assert id_key is not None
    person = patient_id(id_key, app_user_id="alice")
    assert resource["id"].startswith("u")
    assert resource["subject"] == {"reference": f"Patient/{person}"}
    assert resource["identifier"][0]["value"] == "Observation/obs-1"
    (patient,) = stored(hapi, "Patient")
    assert patient["id"] == person
    assert patient["identifier"] == [{"system": "urn:uplift:user", "value": person}]


@pytest.mark.parametrize(
    "resource",
    [
        {"resourceType": "Binary", "id": "b1", "contentType": "text/plain", "data": "YQ=="},
        {
            "resourceType": "Provenance",
            "id": "p1",
            "target": [{"reference": "Observation/obs-1"}],
            "recorded": "2026-01-01T00:00:00Z",
            "agent": [{"who": {"display": "A hospital"}}],
        },
    ],
    ids=lambda each: each["resourceType"],
)
async def test_what_only_1uphealth_does_not_take_is_delivered_to_another_server(
    relay: Relay, hapi: SandboxServer, resource: dict[str, Any]
) -> None:
    await ended(relay, await factories.accepted(relay))
    (observation,) = stored(hapi)
    body = orjson.dumps(resource)
    submission = parse(body, factories.submission().labels)
    row = await ended(relay, await relay.acceptor.accept("alice", submission))
    assert (row.state, row.reason) == (State.DELIVERED, None)
    (there,) = stored(hapi, resource["resourceType"])
    named = there["meta"]["tag"][0]["code"]
    assert named == f"{resource['resourceType']}/{resource['id']}"
    if "target" in there:
        assert there["target"] == [{"reference": f"Observation/{observation['id']}"}]


async def test_an_unknown_outcome_is_sent_again_at_once_and_stored_once(
    relay: Relay, hapi: SandboxServer
) -> None:
    await ended(relay, await factories.accepted(relay, id="other"))
    hapi.faults({"kind": "cut", "commit": True, "match": {"method": "PUT"}, "count": 2})
    upload = await factories.accepted(relay)
    row = await deliver(relay, upload)
    assert (row.state, row.reason, row.maybe_sent) == (State.QUEUED, Reason.RETRY, True)
    row = await ended(relay, upload)
    assert (row.state, row.possible_duplicate, row.maybe_sent) == (State.DELIVERED, False, False)
    sent = sends(hapi)
    assert [method for method, _ in sent] == ["PUT"] * 4, "nothing is looked up"
    assert len(set(sent)) == len(stored(hapi)) == 2


async def test_an_update_asks_for_the_version_that_was_delivered(
    relay: Relay, hapi: SandboxServer
) -> None:
    await ended(relay, await factories.accepted(relay))
    row = await ended(relay, await factories.accepted(relay, status="amended"))
    assert (row.state, row.reason) == (State.DELIVERED, None)
    (resource,) = stored(hapi)
    assert (resource["status"], resource["meta"]["versionId"]) == ("amended", "2")


async def test_a_repeated_update_that_has_arrived_is_delivered(
    relay: Relay, hapi: SandboxServer
) -> None:
    await ended(relay, await factories.accepted(relay))
    hapi.faults({"kind": "cut", "commit": True, "match": {"method": "PUT"}, "count": 1})
    row = await ended(relay, await factories.accepted(relay, status="amended"))
    assert (row.state, row.reason) == (State.DELIVERED, None)
    (resource,) = stored(hapi)
    assert resource["meta"]["versionId"] == "2"


def change_at(hapi: SandboxServer, **elements: Any) -> None:
    """Somebody else changes what is there."""
    (resource,) = stored(hapi)
    response = httpx.put(
        f"{hapi.url}/r4/Observation/{resource['id']}", json={**resource, **elements}
    )
    assert response.status_code == 200


def copy_at(hapi: SandboxServer, resource: dict[str, Any]) -> None:
    """Somebody else makes a second resource of one."""
    content = {name: value for name, value in resource.items() if name not in ("id", "meta")}
    address = f"{hapi.url}/r4/Observation"
    httpx.post(address, json=content, trust_env=False).raise_for_status()


async def test_what_somebody_else_changed_is_overwritten_and_the_status_says_so(
    relay: Relay, hapi: SandboxServer
) -> None:
    await ended(relay, await factories.accepted(relay))
    change_at(hapi, status="cancelled")
    row = await ended(relay, await factories.accepted(relay, status="amended"))
    assert (row.state, row.reason) == (State.DELIVERED, Reason.OVERWROTE_UPSTREAM)
    (resource,) = stored(hapi)
    assert (resource["status"], resource["meta"]["versionId"]) == ("amended", "3")


async def test_a_setting_leaves_what_somebody_else_changed_to_a_person(
    at_hapi: Settings, database: Database, hapi: SandboxServer, relay: Relay
) -> None:
    await ended(relay, await factories.accepted(relay))
    change_at(hapi, status="cancelled")
    holding = at_hapi.model_copy(update={"destination_on_foreign": "hold"})
    async with open_relay(holding) as other:
        upload = await factories.accepted(other, status="amended")
        row = await ended(other, upload)
        assert (row.state, row.reason) == (State.REFUSED, Reason.CHANGED_UPSTREAM)
        assert stored(hapi)[0]["status"] == "cancelled"
        # A person looked at it, and redrives it.
        await other.redriver.redrive(upload.upload.id)
        assert (await ended(other, upload)).state is State.DELIVERED
    assert stored(hapi)[0]["status"] == "amended"


async def test_what_was_deleted_there_stays_deleted(relay: Relay, hapi: SandboxServer) -> None:
    await ended(relay, await factories.accepted(relay))
    (resource,) = stored(hapi)
    delete_at(hapi, resource["id"])
    row = await ended(relay, await factories.accepted(relay, status="amended"))
    assert (row.state, row.reason) == (State.REFUSED, Reason.DELETED_UPSTREAM)
    assert not stored(hapi)


async def test_a_lock_conflict_is_sent_again(relay: Relay, hapi: SandboxServer) -> None:
    await ended(relay, await factories.accepted(relay))
    hapi.faults({"kind": "lock_conflict", "match": {"method": "PUT"}, "count": 2})
    upload = await factories.accepted(relay, status="amended")
    row = await deliver(relay, upload)
    assert (row.state, row.reason, row.last_response) == (State.QUEUED, Reason.RETRY, "http_409")
    row = await ended(relay, upload)
    assert (row.state, row.reason) == (State.DELIVERED, None)


async def test_a_lock_conflict_is_not_taken_for_the_arrival_of_an_update_that_removes_something(
    relay: Relay, hapi: SandboxServer
) -> None:
    extension = [{"url": "https://example.org/x", "valueString": "y"}]
    await ended(relay, await factories.accepted(relay, extension=extension))
    hapi.faults({"kind": "lock_conflict", "match": {"method": "PUT"}, "count": 1})
    row = await ended(relay, await factories.accepted(relay))
    assert (row.state, row.attempts) == (State.DELIVERED, 2)
    (resource,) = stored(hapi)
    assert "extension" not in resource


async def test_nothing_is_sent_to_a_server_of_another_fhir_version(
    at_hapi: Settings, database: Database, hapi: SandboxServer
) -> None:
    wrong = at_hapi.model_copy(update={"destination_r4": f"{hapi.url}/dstu2"})
    async with relay_of(wrong) as other:
        upload = await factories.accepted(other)
        row = await deliver(other, upload)
    assert (row.state, row.reason) == (State.QUEUED, Reason.HELD)
    assert row.last_response == "wrong_fhir_version"
    assert not sends(hapi)
    assert not sends(hapi, "Patient")


async def test_a_receipt_has_the_digests_of_both_forms(relay: Relay, hapi: SandboxServer) -> None:
    upload = await factories.accepted(relay)
    receipt = relay.statuses.open(await ended(relay, upload)).receipt
    (sent,) = hapi.stored_bytes(type="Observation")
    assert receipt is not None
    assert (receipt.id, receipt.version) == (stored(hapi)[0]["id"], "1")
    assert receipt.sha256 == hashlib.sha256(factories.submission().body).hexdigest()
    assert receipt.sent_sha256 == hashlib.sha256(sent).hexdigest() != receipt.sha256


async def test_the_deployments_refusal_parks_nobody(at_hapi: Settings, database: Database) -> None:
    with SandboxServer(SandboxConfig(like="hapi", auth="basic")) as locked:
        wrong = at_hapi.model_copy(
            update={
                "destination_r4": f"{locked.url}/r4",
                "destination_login": "basic",
                "destination_user": locked.config.client_id,
                "destination_password": SecretStr("wrong"),
            }
        )
        async with relay_of(wrong) as other:
            upload = await factories.accepted(other)
            row = await deliver(other, upload)
            assert (row.state, row.reason) == (State.QUEUED, Reason.HELD)
        right = wrong.model_copy(
            update={"destination_password": SecretStr(locked.config.client_secret)}
        )
        async with open_relay(right) as other:
            assert (await ended(other, upload)).state is State.DELIVERED


async def test_where_the_server_chooses_ids_a_record_is_found_by_its_derived_one(
    at_hapi: Settings, database: Database, hapi: SandboxServer
) -> None:
    upserting = at_hapi.model_copy(update={"destination_mode": "upsert"})
    async with relay_of(upserting) as relay:
        hapi.faults({"kind": "cut", "commit": True, "match": {"method": "PUT"}, "count": 3})
        first = await ended(relay, await factories.accepted(relay))
        second = await ended(relay, await factories.accepted(relay, status="amended"))
        assert (first.state, second.state) == (State.DELIVERED, State.DELIVERED)
        assert (await ended(relay, await report(relay))).state is State.DELIVERED
    (resource,) = stored(hapi)
    assert (resource["status"], resource["meta"]["versionId"]) == ("amended", "2")
    (patient,) = stored(hapi, "Patient")
    assert resource["subject"]["reference"] == f"Patient/{patient['id']}"
    assert {each["system"] for each in resource["identifier"]} >= {"urn:uplift:record"}
    (stored_report,) = stored(hapi, "DiagnosticReport")
    assert stored_report["result"][0]["reference"] == f"Observation/{resource['id']}"
    assert second.sealed_receipt is not None


async def test_where_several_resources_are_one_record_an_update_is_refused_until_one_is_left(
    at_hapi: Settings, database: Database, hapi: SandboxServer
) -> None:
    upserting = at_hapi.model_copy(update={"destination_mode": "upsert"})
    async with relay_of(upserting) as relay:
        await ended(relay, await factories.accepted(relay))
        (resource,) = stored(hapi)
        copy_at(hapi, resource)
        upload = await factories.accepted(relay, status="amended")
        row = await ended(relay, upload, 1)
        assert (row.state, row.reason) == (State.REFUSED, Reason.UPSTREAM_REFUSED)
        assert row.last_response == "several_match"
        (other,) = (each for each in stored(hapi) if each["id"] != resource["id"])
        delete_at(hapi, other["id"])
        await relay.redriver.redrive(upload.upload.id)
        assert (await ended(relay, upload)).state is State.DELIVERED
    (resource,) = stored(hapi)
    assert (resource["status"], resource["meta"]["versionId"]) == ("amended", "2")


async def test_after_a_restore_the_first_send_of_a_record_reads_first(
    relay: Relay, hapi: SandboxServer
) -> None:
    await ended(relay, await factories.accepted(relay))
    change_at(hapi, status="cancelled")  # by the ledger that was lost
    async with relay.database.transaction() as connection:
        await connection.execute(
            text(
                "INSERT INTO restores (since, look_until)"
                " VALUES (now() - interval '1 s', now() + interval '1 h')"
            )
        )
    before = len(sends(hapi))
    row = await ended(relay, await factories.accepted(relay, status="amended"))
    # It was accepted after the restore, so it is newer, and nobody else's content was overwritten.
    assert (row.state, row.reason) == (State.DELIVERED, None)
    assert [method for method, _ in sends(hapi)[before:]][:2] == ["GET", "PUT"]
    (resource,) = stored(hapi)
    assert (resource["status"], resource["meta"]["versionId"]) == ("amended", "3")


async def test_of_a_persons_first_records_one_asks_and_the_others_wait_for_it(
    relay: Relay, hapi: SandboxServer
) -> None:
    uploads = [await factories.accepted(relay, id=f"obs-{n}") for n in range(12)]
    hapi.faults({"kind": "slow", "seconds": 0.2})
    await deliver_only(relay, *(each.upload.id for each in uploads))
    hapi.clear_faults()
    assert len(stored(hapi)) == 12
    assert len(sends(hapi, "metadata")) == 1
    assert [method for method, _ in sends(hapi, "Patient")] == ["GET", "PUT"]


async def test_the_whole_example_export_is_there_once_though_answers_are_cut(
    relay: Relay, hapi: SandboxServer, tmp_path: Path
) -> None:
    manifest = write_export(tmp_path / "export.zip")
    hapi.faults({"kind": "cut", "commit": True, "match": {"method": "PUT"}, "probability": 0.3})
    accepted = []
    async for record in read_records(tmp_path / "export.zip"):
        if isinstance(record, Record):
            labels = Labels(
                fhir_version=record.fhir_version,
                source=record.source,
                record_id=record.record_id,
            )
            upload = await relay.acceptor.accept("alice", parse(record.body, labels))
            accepted.append(upload.upload.id)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        async with relay.database.transaction() as connection:
            await connection.execute(
                text("UPDATE uploads SET next_attempt_at = now() WHERE state = 'queued'")
            )
        await deliver_only(relay, *accepted)
        async with relay.database.transaction() as connection:
            states = dict(
                (await connection.execute(text("SELECT state, count(*) FROM uploads GROUP BY 1")))
                .tuples()
                .all()
            )
        if not states.get("queued"):
            break
        await asyncio.sleep(0.1)  # the limiter slows down while answers are missing
    assert states == {"delivered": len(manifest.valid), "rejected": len(manifest.broken)}
    total = hapi.counts()["total"]
    # Two bases, and on each the person's Patient.
    assert total["resources"] == len(manifest.valid) + 2
    assert total["duplicates"] == 0
