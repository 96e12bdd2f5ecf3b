"""Fifty records in a Bundle to a real HAPI, one of which it does not take."""

import asyncio
from typing import Any

import httpx
import orjson
import pytest
from sqlalchemy import text

from tests.hapi.conftest import Hapi
from tests.uplift.delivery.at_hapi import relay_of
from tests.uplift.delivery.delivering import deliver_only
from uplift.intake.labels import Labels
from uplift.intake.submission import parse
from uplift.ledger import uploads
from uplift.ledger.database import Database
from uplift.lifecycle import Reason, State
from uplift.settings import Settings

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("database")]

# Uplift delivers a broken narrative with a warning. HAPI's parser does not take it (HAPI-1755), and
# refuses a whole batch as well.
_POISON = {"text": {"status": "generated", "div": "<div>broken"}}


def _count(hapi: Hapi) -> int:
    found = httpx.get(
        f"{hapi.base}/Observation?_summary=count",
        headers={"Cache-Control": "no-cache"},
        trust_env=False,
        timeout=60,
    )
    return int(found.json()["total"])


def _body(kind: str, number: int, **elements: Any) -> bytes:
    return orjson.dumps(
        {
            "resourceType": "Observation",
            "id": f"bundled-{number}",
            "status": "final",
            "code": {"text": kind},
            "valueQuantity": {"value": 60 + number, "unit": "/min"},
            **elements,
        }
    )


@pytest.mark.parametrize("kind", ["transaction", "batch"])
async def test_one_poisonous_record_among_fifty_ends_alone_and_the_others_arrive(
    hapi: Hapi, database: Database, settings: Settings, kind: str
) -> None:
    at_hapi = settings.model_copy(
        update={
            "destination": "hapi",
            f"destination_{hapi.version}": hapi.base,
            "destination_bundle": kind,
            "destination_bundle_entries": 50,
            "oneup_client_id": "",
            "attempt_seconds": 60,
            "lease_seconds": 120,
        }
    )
    labels = Labels(fhir_version=hapi.version.upper(), source=kind)
    before = _count(hapi)
    async with relay_of(at_hapi) as relay:
        bodies = [_body(kind, 0, **_POISON), *(_body(kind, number) for number in range(1, 50))]
        accepted = [await relay.acceptor.accept("alice", parse(each, labels)) for each in bodies]
        ids = [each.upload.id for each in accepted]
        for _ in range(10):
            async with relay.database.transaction() as connection:
                await connection.execute(
                    text("UPDATE uploads SET next_attempt_at = now() WHERE state = 'queued'")
                )
            await deliver_only(relay, *ids)
            async with relay.database.transaction() as connection:
                rows = await uploads.get_uploads(connection, ids)
            if all(row.state.final for row in rows.values()):
                break
            await asyncio.sleep(0.1)
        async with relay.database.transaction() as connection:
            refused = await connection.execute(
                text(
                    "SELECT count(*) AS times FROM attempts WHERE outcome LIKE 'bundle_http_4%'"
                    " GROUP BY upload_id"
                )
            )
            times = [row.times for row in refused]
    poisonous, *others = (rows[id_] for id_ in ids)
    assert (poisonous.state, poisonous.reason) == (State.REFUSED, Reason.UPSTREAM_REFUSED)
    assert {(row.state, row.attempts) for row in others} == {(State.DELIVERED, 1)}
    assert 1 <= max(times) <= 2
    assert _count(hapi) - before == 49
