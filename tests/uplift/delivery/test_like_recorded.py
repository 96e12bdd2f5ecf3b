"""Before a 1upHealth that adds to what it stores, as its recorded responses show."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from tests import factories
from tests.uplift.delivery.delivering import against, deliver, writes
from uplift.cli.push.records import Record
from uplift.cli.push.sources import read_records
from uplift.intake.labels import Labels
from uplift.intake.submission import parse
from uplift.ledger.tables import Upload
from uplift.lifecycle import Reason, State
from uplift.queues import UPLOADS
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.export.make_export import write_export
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings
from uplift.wiring import Relay, open_relay

_WRITE = {"api": "fhir", "method": "POST"}
_STORED_UNKNOWN = {"kind": "cut", "commit": True, "match": _WRITE, "count": 1}
_NOT_STORED = {"kind": "cut", "match": _WRITE, "count": 1}
IDENTIFIER = [{"system": "urn:oid:1.2.3", "value": "A 1"}]
EXTENSION = [{"url": "urn:x", "valueBoolean": True}]


@pytest.fixture(scope="module")
def shared() -> Iterator[SandboxServer]:
    with SandboxServer(SandboxConfig(like="oneup-recorded")) as server:
        yield server


@pytest.fixture
def recorded(shared: SandboxServer) -> SandboxServer:
    shared.reset()
    return shared


@pytest.fixture
async def facing(settings: Settings, recorded: SandboxServer, relay: Relay) -> AsyncIterator[Relay]:
    """A relay before it."""
    async with open_relay(against(recorded, settings, oneup_keeps_ids=False)) as opened:
        await factories.user(opened)
        yield opened


def reads(upstream: SandboxServer) -> int:
    return sum(each["method"] == "GET" for each in upstream.requests(api="fhir"))


async def test_the_whole_example_export_is_delivered_without_look_ups_and_marks(
    facing: Relay, recorded: SandboxServer, tmp_path: Path
) -> None:
    manifest = write_export(tmp_path / "export.zip")
    ids = []
    async for record in read_records(tmp_path / "export.zip"):
        if isinstance(record, Record):
            labels = Labels(
                fhir_version=record.fhir_version,
                source=record.source,
                record_id=record.record_id,
            )
            accepted = await facing.acceptor.accept("alice", parse(record.body, labels))
            ids.append(accepted.upload.id)
    await facing.deliverer.deliver(UPLOADS)
    async with facing.database.transaction() as connection:
        rows = (
            await connection.execute(
                select(Upload.state, Upload.reason, Upload.possible_duplicate, Upload.maybe_sent)
            )
        ).all()
    ended = {state: sum(row.state == state for row in rows) for state in {r.state for r in rows}}
    assert ended == {"delivered": len(manifest.valid), "rejected": len(manifest.broken)}
    assert {row.reason for row in rows} == {None, "invalid"}
    assert not any(row.possible_duplicate or row.maybe_sent for row in rows)
    assert reads(recorded) == 0
    stored = recorded.counts()["total"]
    assert stored["resources"] == stored["versions"] == len(manifest.valid)


@pytest.mark.parametrize(
    "more",
    [
        {"identifier": IDENTIFIER},
        {"identifier": IDENTIFIER, "performer": [{"reference": "Practitioner/1"}]},
    ],
)
async def test_a_create_that_the_server_added_to_is_found(
    facing: Relay, recorded: SandboxServer, more: dict[str, Any]
) -> None:
    accepted = await factories.accepted(facing, **more)
    recorded.faults(_STORED_UNKNOWN)
    assert (await deliver(facing, accepted)).reason == Reason.SETTLING
    row = await deliver(facing, accepted)
    assert (row.state, row.reason, row.possible_duplicate) == (State.DELIVERED, None, False)
    assert len(writes(recorded)) == 1


async def test_an_update_that_the_server_added_to_is_found(
    facing: Relay, recorded: SandboxServer
) -> None:
    await deliver(facing, await factories.accepted(facing, note=[{"text": "a"}]))
    update = await factories.accepted(facing)
    recorded.faults(_STORED_UNKNOWN)
    assert (await deliver(facing, update)).reason == Reason.SETTLING
    row = await deliver(facing, update)
    assert (row.state, row.reason, row.possible_duplicate) == (State.DELIVERED, None, False)
    assert len(writes(recorded)) == 2


@pytest.mark.parametrize(
    "removed",
    [
        # What no server adds, and what each of them may have added.
        {"note": [{"text": "a"}]},
        {"identifier": IDENTIFIER},
        {"extension": EXTENSION},
        {
            "text": {
                "status": "generated",
                "div": '<div xmlns="http://www.w3.org/1999/xhtml">a</div>',
            }
        },
        {"_status": {"extension": EXTENSION}},
    ],
    ids=lambda removed: str(*removed),
)
async def test_a_lost_update_that_only_removed_an_element_is_not_found(
    facing: Relay, recorded: SandboxServer, removed: dict[str, Any]
) -> None:
    await deliver(facing, await factories.accepted(facing, **removed))
    update = await factories.accepted(facing)
    recorded.faults(_NOT_STORED)
    assert (await deliver(facing, update)).reason == Reason.SETTLING
    row = await deliver(facing, update)
    assert row.state is State.DELIVERED
    (stored,) = recorded.resources()
    assert len(stored["versions"]) == 2


async def test_an_update_of_a_reference_alone_that_was_lost_is_not_found(
    facing: Relay, recorded: SandboxServer
) -> None:
    await deliver(facing, await factories.accepted(facing))
    update = await factories.accepted(facing, subject={"reference": "Patient/p2"})
    recorded.faults(_NOT_STORED)
    await deliver(facing, update)
    assert (await deliver(facing, update)).state is State.DELIVERED
    assert len(writes(recorded)) == 3
