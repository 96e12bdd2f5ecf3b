"""A destination that lacks one FHIR version: nobody else waits for that."""

import time
from typing import Any

import orjson

from tests.factories import resource
from tests.system.conftest import Running

_DSTU2 = {"api": "fhir", "method": "POST", "version": "dstu2"}
_OLD = 156


def _old(number: int) -> dict[str, Any]:
    """A valid DSTU2 Observation."""
    record = resource(id=f"old-{number}")
    record["subject"] = {"reference": "Patient/p1"}
    return record


def _send(running: Running, user: str, version: str, records: list[dict[str, Any]]) -> Any:
    body = b"".join(
        orjson.dumps({"fhirVersion": version, "resource": record}) + b"\n" for record in records
    )
    response = running.api.post(
        "/v1/batches",
        params={"user": user},
        content=body,
        headers={"Content-Type": "application/x-ndjson"},
    )
    assert response.status_code == 202, response.text
    assert response.json()["accepted"] == len(records), response.text
    return response.json()


def _status(running: Running, batch: Any) -> Any:
    return running.api.get(batch["statusUrl"]).json()


def _until_settled(running: Running, batch: Any, seconds: float) -> float:
    """Wait until all of it is settled; after how many seconds it was."""
    started = time.monotonic()
    while not _status(running, batch)["settled"]:
        assert time.monotonic() < started + seconds, _status(running, batch)
        time.sleep(0.1)
    return time.monotonic() - started


def test_156_records_of_a_version_that_is_not_there_delay_no_other_record(
    running: Running,
) -> None:
    for name in ("old", "new"):
        running.add_user(name)
    before = running.sandbox.counts()["total"]
    running.sandbox.faults({"kind": "status", "status": 404, "match": _DSTU2})
    old = _send(running, "old", "DSTU2", [_old(number) for number in range(_OLD)])
    for number in range(5):
        new = _send(running, "new", "R4", [resource(id=f"new-{number}")])
        assert _until_settled(running, new, 20) < 5
    same_person = _send(running, "old", "R4", [resource(id="good")])
    assert _until_settled(running, same_person, 20) < 5
    status = _status(running, old)
    assert status["byStatus"]["queued"] + status["byStatus"].get("sending", 0) == _OLD
    asked = [each for each in running.sandbox.requests(api="fhir") if "/dstu2/" in each["path"]]
    assert len(asked) < _OLD / 2  # the first failures, and probes

    running.sandbox.clear_faults()
    _until_settled(running, old, 60)
    assert _status(running, old)["byStatus"]["delivered"] == _OLD
    total = running.sandbox.counts()["total"]
    assert {each: total[each] - before[each] for each in ("resources", "versions")} == {
        "resources": _OLD + 6,
        "versions": _OLD + 6,
    }
