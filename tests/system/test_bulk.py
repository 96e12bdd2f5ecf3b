"""One person's first sync of thousands, and everybody else's single records meanwhile."""

import time
from typing import Any

import orjson

from tests.factories import resource
from tests.system.conftest import Running

_CREATE = {"api": "fhir", "method": "POST"}
_RECORDS = 1000
_WAITING = 400


def _batch(running: Running, user: str, count: int) -> dict[str, Any]:
    body = b"".join(
        orjson.dumps({"fhirVersion": "R4", "resource": resource(id=f"{user}-{number}")}) + b"\n"
        for number in range(count)
    )
    response = running.api.post(
        "/v1/batches",
        params={"user": user},
        content=body,
        headers={"Content-Type": "application/x-ndjson"},
    )
    assert response.status_code == 202, response.text
    return dict(response.json())


def _single(running: Running, user: str, number: int) -> dict[str, Any]:
    """A single record's status, once it is settled."""
    response = running.api.post(
        "/v1/uploads",
        params={"user": user, "fhirVersion": "R4"},
        json=resource(id=f"{user}-{number}"),
    )
    assert response.status_code == 202, response.text
    return dict(running.api.get(response.headers["Location"], params={"wait": 20}).json())


def _status(running: Running, batch: dict[str, Any]) -> dict[str, Any]:
    return dict(running.api.get(batch["statusUrl"]).json())


def test_a_first_sync_of_thousands_does_not_delay_another_s_single_record(
    running: Running,
) -> None:
    running.add_user("many")
    running.add_user("few")
    running.sandbox.faults({"kind": "slow", "seconds": 1, "match": _CREATE})
    batch = _batch(running, "many", _RECORDS)
    assert (batch["accepted"], len(batch["lines"])) == (_RECORDS, _RECORDS)
    for number in range(4):
        assert _single(running, "few", number)["status"] == "delivered"
        # Nothing is said about seconds: the others are nearly all waiting still.
        left = _status(running, batch)["byStatus"]
        assert left["queued"] + left["sending"] > _RECORDS * 0.75
    assert _status(running, batch)["byStatus"]["delivered"] > 0, "the batch does not move"
    running.sandbox.clear_faults()
    deadline = time.monotonic() + 100
    while not (status := _status(running, batch))["settled"]:
        assert time.monotonic() < deadline, status
        time.sleep(0.2)
    assert status["byStatus"]["delivered"] == _RECORDS
    assert (status["progress"], status["problems"]) == (1.0, 0)
    stored = running.sandbox.counts(user=_oneup_user(running, "many"))["total"]
    assert stored["resources"] == stored["versions"] == _RECORDS


def _oneup_user(running: Running, name: str) -> str:
    return str(running.api.get(f"/v1/users/{name}").json()["oneupUserId"])


def test_in_one_queue_newcomers_are_delivered_while_one_person_has_hundreds_waiting(
    running: Running,
) -> None:
    names = [f"newcomer-{number}" for number in range(5)]
    for name in ("first-sync", *names):
        running.add_user(name)
    running.sandbox.faults({"kind": "slow", "seconds": 0.5, "match": _CREATE})
    many = _batch(running, "first-sync", _WAITING)
    batches = [_batch(running, name, 1) for name in names]
    deadline = time.monotonic() + 30
    while not all(_status(running, batch)["settled"] for batch in batches):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    left = _status(running, many)["byStatus"]
    assert left["queued"] + left["sending"] > _WAITING / 2
    running.sandbox.clear_faults()
    deadline = time.monotonic() + 100
    while not (status := _status(running, many))["settled"]:
        assert time.monotonic() < deadline, status
        time.sleep(0.2)
    assert status["byStatus"]["delivered"] == _WAITING
