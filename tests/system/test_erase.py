"""A person is erased while real workers send for them: nothing of them is left anywhere."""

import time

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
