"""A person is erased while real workers send for them: nothing of them is left anywhere."""

import threading
import time
from collections.abc import Callable

import redis
from sqlalchemy import text

from tests.factories import resource
from tests.system.conftest import Running
from tests.uplift.users import whereabouts
from uplift.ledger.database import Database

_NAME = "forgotten-person"


async def _everything(database: Database) -> bytes:
    return await whereabouts.shown(database)


async def _rows_of(database: Database) -> dict[str, int]:
    async with database.transaction() as connection:
        found = await connection.execute(
            text("""
                SELECT
                    (SELECT count(*) FROM users WHERE app_user_id = :name) AS users,
                    (SELECT count(*) FROM users WHERE erased_at IS NOT NULL) AS erasing,
                    (SELECT count(*) FROM uploads WHERE user_id NOT IN (
                        SELECT id FROM users WHERE erased_at IS NULL)) AS uploads
            """),
            {"name": _NAME},
        )
        return dict(found.one()._mapping)


def test_an_erased_person_is_nowhere_although_workers_were_sending(running: Running) -> None:
    running.add_user(_NAME)
    running.sandbox.faults(
        {"kind": "slow", "seconds": 1, "match": {"api": "fhir", "method": "POST"}}
    )
    statuses = []
    for number in range(30):
        response = running.api.post(
            "/v1/uploads",
            params={"user": _NAME, "fhirVersion": "R4", "source": "forgotten-hospital"},
            json=resource(id=f"forgotten-{number}"),
        )
        statuses.append(response.json()["statusUrl"])
    deadline = time.monotonic() + 20
    while not any(rule["fired"] for rule in running.sandbox.fault_rules()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert running.api.get(f"/v1/users/{_NAME}/summary").json()["complete"] is False
    assert _NAME.encode() in running.on_ledger(_everything)

    assert (
        running.api.delete(f"/v1/users/{_NAME}", params={"wait": 30}).json()["status"] == "erased"
    )

    sent = running.sandbox.counts(user=_NAME)["total"]["resources"]
    assert running.on_ledger(_rows_of) == {"users": 0, "erasing": 0, "uploads": 0}
    assert b"forgotten" not in running.on_ledger(_everything)
    assert {running.api.get(url).status_code for url in statuses} == {404}
    assert running.system.redis is not None
    with redis.Redis.from_url(running.system.redis.url) as server:
        held = b"".join(bytes(key) + bytes(server.dump(key) or b"") for key in server.scan_iter())
    assert b"forgotten" not in held
    for log in running.data_dir.rglob("*.log"):
        if log.name != "sandbox.log":
            assert b"forgotten" not in log.read_bytes(), log
    # Nothing is sent for them any more.
    running.sandbox.clear_faults()
    time.sleep(3)
    assert running.sandbox.counts(user=_NAME)["total"]["resources"] == sent


_GONE = "gone-person"


def _submit(running: Running, number: int) -> int:
    return running.api.post(
        "/v1/uploads",
        params={"user": _GONE, "fhirVersion": "R4", "source": "gone-hospital"},
        json=resource(id=f"gone-{number}"),
    ).status_code


def _left(running: Running) -> list[str]:
    """What the sandbox has of the person and was not deleted."""
    return [
        each["id"]
        for each in running.sandbox.resources(user=_GONE)
        if each["versions"][-1]["interaction"] != "delete"
    ]


def _until(is_so: Callable[[], bool], seconds: float = 60.0) -> None:
    ends = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < ends
        time.sleep(0.1)


def test_erased_upstream_during_kills_nothing_of_the_person_is_found(running: Running) -> None:
    running.add_user(_GONE)
    running.sandbox.faults(
        {
            "kind": "cut",
            "commit_after": 0.5,
            "probability": 0.3,
            "match": {"api": "fhir", "method": "POST"},
        },
        {"kind": "cut", "commit": True, "probability": 0.2, "match": {"method": "DELETE"}},
        {"kind": "slow", "seconds": 0.3, "match": {"api": "fhir"}},
    )
    for number in range(20):
        assert _submit(running, number) == 202
    answered: set[int] = set()
    ended = threading.Event()

    def go_on() -> None:
        for number in range(20, 1000):
            if ended.is_set():
                return
            answered.add(_submit(running, number))

    app = threading.Thread(target=go_on)
    app.start()
    try:
        url = f"/v1/users/{_GONE}"
        _until(lambda: len(_left(running)) > 3)
        begun = running.api.delete(url, params={"upstream": "delete", "wait": 0})
        assert begun.status_code == 202
        assert begun.json()["upstream"] == "delete"
        running.system.processes.kill("worker")
        running.system.restart("worker")
        erasing = running.api.get(url).json()["erasing"]
        assert erasing["leftUpstream"] > 0
        running.system.processes.kill("beat")
        running.system.restart("beat")
    finally:
        ended.set()
        app.join()
    assert 409 in answered
    _until(lambda: running.api.get(url).status_code == 404)
    running.sandbox.clear_faults()
    assert _left(running) == []
    assert len(running.sandbox.resources(user=_GONE)) > 3

    running.add_user(_GONE)
    for number in range(5):
        assert _submit(running, number) == 202
    there = {f"gone-{number}" for number in range(5)}
    _until(lambda: set(_left(running)) == there)
