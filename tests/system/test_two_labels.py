"""A hospital is renamed, an old export is pushed after the app has synced: nothing is doubled."""

import time
from typing import Any

import orjson

from tests.factories import resource
from tests.system.conftest import Running

_HOST = "https://north.example/r4/Observation"


def _push(running: Running, user: str, lines: list[dict[str, Any]], **query: str) -> list[Any]:
    """Sends a batch; the status of each line's upload once it is settled, in their order."""
    response = running.api.post(
        "/v1/batches",
        params={"user": user, "fhirVersion": "R4", **query},
        content=b"\n".join(map(orjson.dumps, lines)),
        headers={"Content-Type": "application/x-ndjson"},
    )
    assert response.status_code == 202, response.text
    settled = []
    for line in response.json()["lines"]:
        status = running.api.get(f"/v1/uploads/{line['id']}", params={"wait": 30}).json()
        settled.append({**status, "duplicate": line["duplicate"]})
    return settled


def _line(number: int, source: str | None, *, url: bool = False, **elements: Any) -> dict[str, Any]:
    line: dict[str, Any] = {"resource": resource(id=f"o{number}", **elements)}
    if source is not None:
        line["source"] = source
    if url:
        line["sourceUrl"] = f"{_HOST}/o{number}"
    return line


def test_a_renamed_hospital_is_one_source_and_its_records_are_updated_in_place(
    running: Running,
) -> None:
    running.add_user("renamed")
    before = _push(
        running, "renamed", [_line(n, "North Clinic", url=True, note=[]) for n in range(4)]
    )
    assert [each["status"] for each in before] == ["delivered"] * 4
    after = [_line(n, "North Hospital", url=True, note=[]) for n in range(6)]
    after[0]["resource"]["status"] = "amended"
    pushed = _push(running, "renamed", after)
    assert [each["status"] for each in pushed] == ["delivered"] * 6
    assert [each["duplicate"] for each in pushed] == [False, True, True, True, False, False]
    assert pushed[0]["receipt"]["id"] == before[0]["receipt"]["id"]
    assert not any(each["possibleDuplicate"] for each in pushed)


def test_what_collided_before_the_labels_were_known_as_one_is_delivered_by_itself(
    running: Running,
) -> None:
    running.add_user("learnt")
    before = _push(running, "learnt", [_line(n, "Old") for n in (10, 11)])
    (collided,) = _push(running, "learnt", [_line(10, "New", status="amended")])
    assert (collided["status"], collided["reason"]) == ("refused", "id_collision")
    (same,) = _push(running, "learnt", [_line(11, None)])
    assert same["duplicate"]
    (same,) = _push(running, "learnt", [_line(11, "New")])
    assert same["duplicate"]
    now = collided
    deadline = time.monotonic() + 60
    while now["status"] != "delivered":
        assert time.monotonic() < deadline, now
        time.sleep(0.2)
        now = running.api.get(collided["statusUrl"], params={"wait": 5}).json()
    assert now["receipt"]["id"] == before[0]["receipt"]["id"]


def test_an_old_export_pushed_after_the_sync_turns_nothing_back(running: Running) -> None:
    running.add_user("synced")
    old = _line(20, "North", meta={"lastUpdated": "2026-01-01T00:00:00Z"})
    new = _line(20, "North", meta={"lastUpdated": "2026-02-01T00:00:00Z"}, status="amended")
    assert [each["status"] for each in _push(running, "synced", [new])] == ["delivered"]
    (late,) = _push(running, "synced", [old])
    assert (late["status"], late["reason"]) == ("superseded", "older_version")
    # Also from where the hospital has another name.
    (same,) = _push(running, "synced", [{**new, "source": "Norte"}])
    assert same["duplicate"]
    (late,) = _push(running, "synced", [{**old, "source": "Norte"}])
    assert late["reason"] == "older_version"
    (forced,) = _push(running, "synced", [old], force="true")
    assert (forced["status"], forced["receipt"]["version"]) == ("delivered", "2")
