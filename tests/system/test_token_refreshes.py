"""The tokens of many users expire at once, under three worker processes: one refresh each."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import func, select, text, update

from tests import factories
from tests.ledger_copies import LedgerCopies
from tests.system.conftest import BRISK, Running
from uplift.cli.local.system import System, command
from uplift.ledger import grants, users
from uplift.ledger.database import Database
from uplift.ledger.tables import Grant, Upload, User
from uplift.ledger.token_pair import TokenPair
from uplift.sealing import KeyRing
from uplift.settings import Settings
from uplift.wiring import open_relay

pytestmark = pytest.mark.timeout(300)  # seconds, for a machine that does much else

USERS = 30
UPLOADS = 10
"""Of each."""
WORKERS = ["worker", "worker-2", "worker-3"]
CALLS, RESERVE, WINDOW = 25, 5, 5.0
REFUSE_REFRESH = {"kind": "refuse_refresh"}


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, ledger_copies: LedgerCopies
) -> Iterator[Running]:
    """Three worker processes, and a quota of user-management calls that comes back in seconds."""
    settings = BRISK | {
        # Three workers on a small machine are slow; a token is worth waiting for.
        "UPLIFT_ATTEMPT_SECONDS": "20",
        "UPLIFT_LEASE_SECONDS": "40",
        "UPLIFT_DATABASE_CONNECTIONS": "5",
        "UPLIFT_ONEUP_QUOTA_CALLS": str(CALLS),
        "UPLIFT_ONEUP_QUOTA_RESERVE": str(RESERVE),
        "UPLIFT_ONEUP_QUOTA_SECONDS": str(WINDOW),
    }
    limits = ("--quota-calls", str(CALLS), "--quota-seconds", str(WINDOW))
    data_dir = ledger_copies.put(tmp_path_factory.mktemp("tokens"))
    with System(
        data_dir,
        settings,
        processes=("api", "worker", "beat"),
        sandbox_options=limits,
        any_port=True,
    ) as system:
        for name in WORKERS[1:]:
            system.processes.start(name, command("worker"), env=system.environment)
        opened = Running(system, data_dir)
        until(lambda: all(" ready." in log(opened, name) for name in WORKERS))
        yield opened
        opened.close()


def log(running: Running, worker: str) -> str:
    return running.system.processes[worker].log.read_text()


def until(reached: Any) -> None:
    """Wait until it is true."""
    deadline = time.monotonic() + 180
    while not reached():
        assert time.monotonic() < deadline, "it did not happen within 180 s"
        time.sleep(0.25)


def sign_up(running: Running, names: list[str]) -> None:
    """Add users without user-management calls, so that the quota is whole."""
    given = {name: running.sandbox.grant(name) for name in names}
    key_ring = KeyRing.parse(running.system.environment["UPLIFT_MASTER_KEYS"])

    async def add(database: Database) -> None:
        async with database.transaction() as connection:
            for name in names:
                user = await users.add_user(connection, name, key_ring)
                tokens = TokenPair(
                    given[name]["access_token"], given[name]["refresh_token"], 7200.0
                )
                await grants.put_grant(
                    connection, user.id, user.key(key_ring), tokens, "user_management"
                )

    running.on_ledger(add)


def submit(running: Running, names: list[str], each: int) -> None:
    """Accept and dispatch uploads of each user, as the API does."""
    values = {
        name.removeprefix("UPLIFT_").lower(): value
        for name, value in running.system.environment.items()
        if name.startswith("UPLIFT_")
    }

    async def submit_all() -> None:
        async with open_relay(Settings.model_validate(values)) as relay:
            waiting = [(name, number) for number in range(each) for name in names]

            async def submit_some() -> None:
                while waiting:
                    name, number = waiting.pop()
                    await factories.accepted(relay, name, id=f"{name}-{number}")

            await asyncio.gather(*(submit_some() for _ in range(8)))

    asyncio.run(submit_all())


@contextmanager
def workers_frozen(running: Running) -> Iterator[None]:
    """Stop all workers, and let them go on at the same time after the block."""
    pids = [running.system.processes[name].pid for name in WORKERS]
    try:
        for pid in pids:
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            if pid is not None:
                os.kill(pid, signal.SIGCONT)


def states(running: Running, names: list[str]) -> Counter[tuple[str, str | None]]:
    """The number of these users' uploads by state and reason."""

    async def count(database: Database) -> Counter[tuple[str, str | None]]:
        async with database.transaction() as connection:
            rows = await connection.execute(
                select(Upload.state, Upload.reason, func.count().label("number"))
                .join(User, User.id == Upload.user_id)
                .where(User.app_user_id.in_(names))
                .group_by(Upload.state, Upload.reason)
            )
            return Counter({(row.state, row.reason): row.number for row in rows})

    return running.on_ledger(count)


def until_delivered(running: Running, names: list[str], number: int) -> None:
    until(lambda: states(running, names) == {("delivered", None): number})


def expire_tokens(running: Running, names: list[str]) -> None:
    """Expire all tokens at 1upHealth; for every second user the ledger shows it, too."""
    running.sandbox.add_faults({"kind": "expire_tokens"})

    async def expire(database: Database) -> None:
        async with database.transaction() as connection:
            known = select(User.id).where(User.app_user_id.in_(names[::2]))
            await connection.execute(
                update(Grant)
                .where(Grant.user_id.in_(known.scalar_subquery()))
                .values(expires_at=text("now() - interval '1 s'"))
            )

    running.on_ledger(expire)


def requests_since(running: Running, number: int, api: str) -> list[dict[str, Any]]:
    return running.sandbox.requests(after=number, api=api)


def last_request(running: Running) -> int:
    seen = running.sandbox.requests()
    return int(seen[-1]["number"]) if seen else 0


def test_tokens_that_expire_at_once_cost_one_refresh_each(running: Running) -> None:
    names = [f"refresh-{number}" for number in range(USERS)]
    sign_up(running, names)
    with workers_frozen(running):
        submit(running, names, UPLOADS)
        expire_tokens(running, names)
        before = last_request(running)

    until_delivered(running, names, UPLOADS * USERS)

    # Every worker took part, so they competed for the refreshes.
    assert all("attempt_ended" in log(running, name) for name in WORKERS)
    refreshes = requests_since(running, before, "token")
    assert Counter(each["user"] for each in refreshes) == dict.fromkeys(
        {each["user"] for each in refreshes}, 1
    )
    assert len(refreshes) == USERS
    assert {each["grant_type"] for each in refreshes} == {"refresh_token"}
    assert requests_since(running, before, "user-management") == []
    stored = [running.sandbox.counts(user=name)["total"] for name in names]
    assert all(each["resources"] == each["versions"] == UPLOADS for each in stored)


def test_codes_stay_within_the_quota_and_waiting_users_are_delivered_later(
    running: Running,
) -> None:
    names = [f"code-{number}" for number in range(USERS)]
    sign_up(running, names)
    running.sandbox.faults(REFUSE_REFRESH)
    with workers_frozen(running):
        submit(running, names, 4)
        expire_tokens(running, names)
        before = last_request(running)

    until(lambda: states(running, names)["queued", "awaiting_token"] > 0)
    assert_waits_visibly(running, names)
    # New users still get their reserved calls meanwhile.
    assert running.api.post("/v1/users", json={"appUserId": "new"}).status_code == 201

    until_delivered(running, names, 4 * USERS)

    running.sandbox.clear_faults()
    calls = requests_since(running, before, "user-management")
    assert {each["status"] for each in calls} <= {200, 201}
    codes = [
        datetime.fromisoformat(each["received_at"]).timestamp()
        for each in calls
        if each["path"].endswith("/auth-code")
    ]
    assert len(codes) == USERS
    for at in codes:
        assert sum(at - WINDOW < other <= at for other in codes) <= CALLS - RESERVE


def assert_waits_visibly(running: Running, names: list[str]) -> None:
    """The status of some upload says what it waits for, and until when."""
    found = [
        upload
        for name in names
        for upload in running.api.get("/v1/uploads", params={"user": name}).json()["uploads"]
        if upload["reason"] == "awaiting_token"
    ]
    assert found
    for upload in found:
        assert (upload["status"], upload["attempts"]) == ("queued", 0)
        assert upload["lastResponse"] in {"quota_spent", "another_is_refreshing"}
        assert upload["nextAttemptAt"] is not None


def test_an_ended_consent_parks_only_that_user_until_there_is_a_new_grant(
    running: Running,
) -> None:
    names = [f"consent-{number}" for number in range(5)]
    leaver, others = names[0], names[1:]
    sign_up(running, names)
    running.sandbox.faults({"kind": "end_consent", "match": {"user": leaver}})

    submit(running, names, 10)

    until_delivered(running, others, 40)
    until(lambda: states(running, [leaver]) == {("parked", "needs_authorization"): 10})
    assert running.api.get(f"/v1/users/{leaver}").json()["grant"] == "needs_authorization"
    assert running.sandbox.counts(user=leaver)["total"]["resources"] == 0

    given = running.sandbox.grant(leaver)
    running.api.put(
        f"/v1/users/{leaver}/grant",
        json={
            "accessToken": given["access_token"],
            "refreshToken": given["refresh_token"],
            "expiresIn": given["expires_in"],
        },
    ).raise_for_status()

    until_delivered(running, names, 50)
    running.sandbox.clear_faults()
    assert running.sandbox.counts(user=leaver)["total"]["resources"] == 10
    status = running.api.get(f"/v1/users/{leaver}").json()
    assert (status["grant"], status["grantOrigin"]) == ("active", "backend")
