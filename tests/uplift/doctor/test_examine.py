"""The doctor on real servers, healthy and not."""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis.asyncio
from pydantic import SecretStr
from sqlalchemy import text

from tests import factories
from tests.ledger_copies import LedgerCopies
from uplift.cli.local.embedded import EmbeddedPostgres, EmbeddedRedis
from uplift.doctor.examine import examine
from uplift.doctor.findings import Finding, Verdict
from uplift.ledger import pauses, processes
from uplift.ledger.audit import SYSTEM
from uplift.ledger.database import Database
from uplift.sandbox.testing import SandboxServer
from uplift.sealing import KeyRing
from uplift.settings import Settings
from uplift.wiring import Relay

_NOWHERE = "127.0.0.1:1"  # nothing listens on port 1
# Without Redis no workers are waited for, which takes three seconds.
_NO_REDIS = {"redis_url": SecretStr(f"redis://{_NOWHERE}/0")}


async def findings(settings: Settings, **changed: Any) -> list[Finding]:
    return [finding async for finding in examine(settings.model_copy(update=changed))]


def of(found: list[Finding], part: str) -> list[tuple[Verdict, str]]:
    return [(finding.verdict, finding.what) for finding in found if finding.part == part]


async def test_all_is_well_but_for_the_workers_that_nobody_started(
    relay: Relay, settings: Settings, upstream: SandboxServer
) -> None:
    await factories.user_without_grant(relay)
    before = len(upstream.requests())

    found = await findings(settings)

    # The tests' PostgreSQL may be a hasty one, which the doctor is right to blame.
    wrong = [
        finding
        for finding in found
        if finding.verdict is not Verdict.OK and not finding.what.startswith("fsync = off")
    ]
    assert {finding.part for finding in wrong} == {"workers"}
    assert len(wrong) == 3
    assert of(found, "keys") == [(Verdict.OK, "test: in use, 1 user(s)")]
    assert "migrated, revision" in str(of(found, "postgres"))
    assert "knows the client" in str(of(found, "1upHealth"))
    assert {finding.part for finding in found} == {
        "configuration", "postgres", "keys", "work", "calls", "processes", "retention", "redis",
        "workers", "rate limiter", "FHIR types", "1upHealth", "destinations",
    }  # fmt: skip
    # No call of user management, which is limited, and nothing sent twice.
    asked = upstream.requests()[before:]
    assert [each["api"] for each in asked].count("user-management") == 0
    assert len(asked) == 2 + 3  # the last: each base says what it can do


async def test_a_wrong_client_is_told_without_its_secret(
    database: Database, settings: Settings
) -> None:
    found = await findings(settings, oneup_client_secret=SecretStr("canary-secret"), **_NO_REDIS)
    assert (Verdict.FAIL, "the token endpoint at 127.0.0.1 does not accept the client") in of(
        found, "1upHealth"
    )
    assert "canary" not in str(found)


async def test_a_failing_upstream_is_a_warning(
    database: Database, settings: Settings, upstream: SandboxServer
) -> None:
    upstream.faults({"kind": "status", "status": 503})
    assert [verdict for verdict, _ in of(await findings(settings, **_NO_REDIS), "1upHealth")] == [
        Verdict.WARN,
        Verdict.WARN,
    ]


async def test_everything_away_is_told_part_by_part_and_without_passwords(
    settings: Settings,
) -> None:
    found = await findings(
        settings,
        database_url=SecretStr(f"postgresql://canary-user:canary-password@{_NOWHERE}/canary-name"),
        redis_url=SecretStr(f"redis://:canary-password@{_NOWHERE}/0"),
        oneup_token_url=f"http://canary:canary@{_NOWHERE}/token",
        oneup_fhir_url=f"http://{_NOWHERE}",
    )
    assert [v for v, _ in of(found, "postgres")] == [Verdict.FAIL]
    assert [v for v, _ in of(found, "redis")] == [Verdict.FAIL]
    assert [v for v, _ in of(found, "workers")] == [Verdict.WARN]
    assert [v for v, _ in of(found, "1upHealth")] == [Verdict.FAIL, Verdict.FAIL]
    assert "canary" not in str(found)


async def test_malformed_addresses_end_nothing_and_are_not_quoted(settings: Settings) -> None:
    found = await findings(
        settings,
        database_url=SecretStr("canary"),
        redis_url=SecretStr("canary://canary"),
        master_keys=SecretStr("canary"),
        oneup_token_url="http://[canary",
        oneup_fhir_url="canary",
    )
    assert {finding.part for finding in found if finding.verdict is Verdict.FAIL} >= {
        "configuration", "postgres", "redis", "1upHealth",
    }  # fmt: skip
    assert "canary" not in str(found)


async def test_an_empty_database_is_told_to_migrate(
    settings: Settings, postgres: EmbeddedPostgres
) -> None:
    url = SecretStr(postgres.url.rpartition("/")[0] + "/postgres")
    found = await findings(settings, database_url=url, **_NO_REDIS)
    (told,) = [finding for finding in found if "revision" in finding.what]
    assert (told.part, told.verdict) == ("postgres", Verdict.FAIL)
    assert "uplift migrate" in (told.do or "")
    assert not of(found, "keys")


async def test_the_steps_of_a_rotation_as_they_look(
    relay: Relay, settings: Settings, master_keys: str
) -> None:
    await factories.user_without_grant(relay)
    new = KeyRing.new_entry("new")

    async def keys_of(key_ring: str) -> list[tuple[Verdict, str]]:
        return of(await findings(settings, master_keys=SecretStr(key_ring), **_NO_REDIS), "keys")

    unused = (
        "new: wraps 0 user(s). If it is new, put it in front. If it is old, `uplift keys retire"
        " new` says whether a backup needs it"
    )
    assert await keys_of(f"{master_keys},{new}") == [
        (Verdict.OK, "test: in use, 1 user(s)"),
        (Verdict.OK, unused),
    ]
    assert await keys_of(f"{new},{master_keys}") == [
        (Verdict.OK, "new: in use, 0 user(s)"),
        (Verdict.WARN, "test: still wraps 1 user(s)"),
    ]
    assert await keys_of(new) == [
        (Verdict.OK, "new: in use, 0 user(s)"),
        (Verdict.FAIL, "test: not on the key ring, but wraps 1 user(s)"),
    ]
    assert await keys_of(KeyRing.new_entry("test")) == [
        (Verdict.FAIL, "test: a different key, which does not open the data keys of 1 user(s)")
    ]


async def test_work_that_nobody_takes_up_is_told(relay: Relay, settings: Settings) -> None:
    await factories.user_without_grant(relay)
    await factories.accepted(relay)
    left = await factories.accepted(relay, id="left")
    async with relay.database.transaction() as connection:
        await connection.execute(
            text("UPDATE uploads SET next_attempt_at = now() - interval '2 hours'")
        )
        await connection.execute(
            text(
                "UPDATE uploads SET state = 'sending', next_attempt_at = NULL, lease_id = id,"
                " attempt_until = now() - interval '6 minutes',"
                " lease_until = now() - interval '5 minutes' WHERE id = :id"
            ),
            {"id": left.upload.id},
        )
    told = of(await findings(settings, **_NO_REDIS), "work")
    assert [verdict for verdict, _ in told] == [Verdict.FAIL, Verdict.FAIL, Verdict.OK]
    assert "1 upload(s) lost their worker" in told[0][1]
    assert "1 upload(s) due, the oldest for 72" in told[1][1]


async def test_what_may_not_be_claimed_is_not_overdue(relay: Relay, settings: Settings) -> None:
    bob = await factories.user_without_grant(relay, "bob")
    await factories.user_without_grant(relay)
    older = await factories.accepted(relay, status="final")
    async with relay.database.transaction() as connection:
        await connection.execute(
            text("UPDATE uploads SET maybe_sent = true, next_attempt_at = now() + interval '1 h'")
        )
    blocked = await factories.accepted(relay, status="amended")
    paused = await factories.accepted(relay, "bob")
    async with relay.database.transaction() as connection:
        await pauses.pause(connection, bob.id, by=SYSTEM)
        await connection.execute(
            text("UPDATE uploads SET next_attempt_at = now() - interval '2 hours' WHERE id <> :id"),
            {"id": older.upload.id},
        )
    assert blocked.upload.id != paused.upload.id
    assert of(await findings(settings, **_NO_REDIS), "work") == [
        (Verdict.OK, "0 upload(s) due, none for longer than 60 s"),
        (Verdict.OK, "3 upload(s) unfinished, the limit is 1000000"),
        (Verdict.WARN, "1 user(s) are paused"),
    ]


async def test_a_postgres_that_may_forget_what_it_committed_is_a_failure(
    settings: Settings, ledger_copies: LedgerCopies, tmp_path: Path
) -> None:
    with EmbeddedPostgres(ledger_copies.put(tmp_path / "own"), settings={"fsync": "off"}) as own:
        found = await findings(settings, database_url=SecretStr(own.url), **_NO_REDIS)
    assert any(
        verdict is Verdict.FAIL and what.startswith("fsync = off")
        for verdict, what in of(found, "postgres")
    )


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_redis_that_drops_queues_is_a_failure(
    settings: Settings, database: Database, client_of_redis: Any, policy: str
) -> None:
    await client_of_redis.config_set("maxmemory-policy", policy)
    try:
        found = of(await findings(settings), "redis")
    finally:
        await client_of_redis.config_set("maxmemory-policy", "noeviction")
    assert [verdict for verdict, what in found if policy in what] == [Verdict.FAIL]


async def _stopped(server: EmbeddedRedis) -> None:
    server.stop()


async def _full(server: EmbeddedRedis) -> None:
    client = redis.asyncio.from_url(server.url)
    await client.config_set("maxmemory", 1)
    await client.aclose()


@pytest.mark.parametrize("fault", [_stopped, _full])
async def test_a_workers_wrong_clock_and_a_redis_at_fault_are_both_told(
    database: Database,
    settings: Settings,
    tmp_path: Path,
    fault: Callable[[EmbeddedRedis], Awaitable[None]],
) -> None:
    """The clock is in the ledger, so it needs no Redis."""
    worker = uuid4()
    async with database.transaction() as connection:
        await processes.register(connection, worker, "worker")
        await processes.beat(
            connection, worker, kind="worker", machine=time.time() + 90_000, lacks_files=False
        )
    with EmbeddedRedis(tmp_path / "own") as server:
        await fault(server)
        found = await findings(settings, redis_url=SecretStr(server.url))
    (clock,) = of(found, "processes")
    assert clock[0] is Verdict.FAIL
    assert "worker: the clock of a machine is 90000 s ahead" in clock[1]
    assert [verdict for verdict, _ in of(found, "redis")].count(Verdict.FAIL) == 1
