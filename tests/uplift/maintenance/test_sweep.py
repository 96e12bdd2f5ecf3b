"""One sweep: what it finds in the ledger, and what it dispatches."""

import asyncio
import time
from datetime import UTC, timedelta
from uuid import UUID

import pytest
import redis.asyncio
from pydantic import SecretStr
from sqlalchemy import text

from tests.keys import KEY_RING, MASTER_KEYS
from tests.uplift.ledger import rows
from tests.uplift.test_dispatch import all_ids, messages
from uplift.address_check import AddressCheck
from uplift.delivery.rate_limiter import RateLimiter
from uplift.destinations.configured import configured_destinations
from uplift.dispatch import Dispatcher
from uplift.ledger import erasing, grants, leases, sweeping
from uplift.ledger.audit import SYSTEM
from uplift.ledger.database import Database
from uplift.ledger.token_pair import TokenPair
from uplift.ledger.users import UserRow
from uplift.lifecycle import REFUSED_AFTER_CRASHES_ALONE, Reason, State
from uplift.logs import configure_logs
from uplift.maintenance.retry_collisions import CollisionRetrier
from uplift.maintenance.sweep import Sweeper, Swept
from uplift.queues import BULK, UPLOADS
from uplift.redis_connection import open_redis
from uplift.sealing import KeyRing
from uplift.settings import Settings
from uplift.users.erase import Eraser
from uplift.users.move import Mover
from uplift.wiring import open_relay

_LATER = text("now() + interval '1 hour'")
_LONG_AGO = -1000.0  # for a lease


@pytest.fixture
async def alice(database: Database, key_ring: KeyRing) -> UserRow:
    return await rows.add_user(database, key_ring)


async def sweep(database: Database, settings: Settings) -> Swept:
    """One sweep, with all that it dispatches published."""
    dispatcher = Dispatcher(settings)
    dispatcher.start()
    try:
        async with open_redis(settings) as counter:
            rate_limiter = RateLimiter(counter, settings)
            retrier = CollisionRetrier(database, KeyRing.parse(MASTER_KEYS))
            return await Sweeper(
                database,
                dispatcher,
                Eraser(database, KEY_RING, settings),
                Mover(database, {}),
                retrier,
                AddressCheck(database, configured_destinations(settings)),
                {"oneup": rate_limiter},
                settings,
            ).sweep()
    finally:
        await dispatcher.close()


def swept(lease_expired: int, released: int, expired: int, dispatched: int) -> Swept:
    return Swept(
        refused=0,
        lease_expired=lease_expired,
        released=released,
        moved=0,
        retried=0,
        expired=expired,
        dispatched=dispatched,
        erased=0,
    )


async def states(database: Database, ids: list[UUID]) -> list[str]:
    return [(await rows.row(database, id_)).state for id_ in ids]


async def test_an_empty_ledger_gives_nothing_to_do(
    database: Database, own_settings: Settings, client: "redis.asyncio.Redis"
) -> None:
    assert await sweep(database, own_settings) == swept(0, 0, 0, 0)
    assert await messages(client) == []


async def test_due_uploads_are_dispatched_to_their_queue_and_not_again_at_once(
    database: Database, own_settings: Settings, client: "redis.asyncio.Redis", alice: UserRow
) -> None:
    due = [await rows.put(database, alice) for _ in range(3)]
    bulk = await rows.put(database, alice, queue=BULK)
    later = await rows.put(database, alice)
    await rows.bring_to(database, later, State.QUEUED, next_attempt_at=_LATER)
    assert await sweep(database, own_settings) == swept(0, 0, 0, 4)
    # Their messages wait, so every worker is awake.
    assert await sweep(database, own_settings) == swept(0, 0, 0, 0)
    assert sorted(await all_ids(client, UPLOADS)) == due
    assert await all_ids(client, BULK) == [bulk]


async def test_an_upload_whose_lease_expired_is_queued_and_dispatched(
    database: Database, own_settings: Settings, client: "redis.asyncio.Redis", alice: UserRow
) -> None:
    abandoned, claimed = await rows.put(database, alice), await rows.put(database, alice)
    await rows.claim(database, abandoned, lease_seconds=_LONG_AGO)
    await rows.claim(database, claimed)
    assert await sweep(database, own_settings) == swept(1, 0, 0, 1)
    assert await states(database, [abandoned, claimed]) == ["queued", "sending"]
    assert await all_ids(client) == [abandoned]


@pytest.mark.parametrize(
    ("left", "settle", "delay"), [(-60, 60, 0), (-60, 90, 30), (45, 60, 105), (-100, 60, 0)]
)
async def test_1uphealth_has_time_to_settle_what_a_vanished_worker_may_have_sent(
    database: Database,
    own_settings: Settings,
    client: "redis.asyncio.Redis",
    alice: UserRow,
    left: float,
    settle: float,
    delay: float,
) -> None:
    settings = own_settings.model_copy(update={"settle_seconds": settle})
    upload_id = await rows.put(database, alice)
    await rows.bring_to(
        database,
        upload_id,
        State.SENDING,
        lease_until=text("now()"),
        attempt_until=text(f"now() + interval '{left} s'"),
    )
    await sweep(database, settings)
    row = await rows.row(database, upload_id)
    assert (row.next_attempt_at - row.updated_at).total_seconds() == pytest.approx(delay, abs=3)


async def test_an_upload_past_its_deadline_expires_unless_it_may_have_been_sent(
    database: Database, own_settings: Settings, client: "redis.asyncio.Redis", alice: UserRow
) -> None:
    ids = [await rows.put(database, alice) for _ in range(3)]
    over = text("now() - interval '1 second'")
    await rows.bring_to(database, ids[0], State.QUEUED, give_up_at=over)
    await rows.bring_to(database, ids[1], State.QUEUED, give_up_at=over, maybe_sent=True)
    await rows.bring_to(database, ids[2], State.PARKED, give_up_at=over, maybe_sent=True)
    assert await sweep(database, own_settings) == swept(0, 0, 2, 1)
    assert await states(database, ids) == ["expired", "queued", "expired"]
    assert await all_ids(client) == [ids[1]]


async def test_an_upload_parked_just_after_a_new_grant_is_released_and_dispatched(
    database: Database,
    own_settings: Settings,
    client: "redis.asyncio.Redis",
    alice: UserRow,
    key_ring: KeyRing,
) -> None:
    upload_id = await rows.put(database, alice)
    await rows.bring_to(database, upload_id, State.PARKED)
    assert await sweep(database, own_settings) == swept(0, 0, 0, 0)
    async with database.transaction() as connection:
        await grants.put_grant(
            connection, alice.id, alice.key(key_ring), TokenPair("a", None, 60.0), "backend"
        )
    assert await sweep(database, own_settings) == swept(0, 1, 0, 1)
    assert await all_ids(client) == [upload_id]


async def test_while_messages_wait_the_sweep_dispatches_no_more(
    database: Database, own_settings: Settings, client: "redis.asyncio.Redis", alice: UserRow
) -> None:
    settings = own_settings.model_copy(update={"max_queued_messages": 2})
    ids = [await rows.put(database, alice) for _ in range(120)]
    await client.lpush(UPLOADS, b"message")
    assert (await sweep(database, settings)).dispatched == 0
    await client.delete(UPLOADS)
    assert (await sweep(database, settings)).dispatched == 120
    assert (await sweep(database, settings)).dispatched == 0
    assert set(await all_ids(client)) == set(ids)


async def test_without_redis_a_sweep_requeues_expired_leases_and_dispatches_later(
    database: Database, own_settings: Settings, alice: UserRow, client: "redis.asyncio.Redis"
) -> None:
    abandoned = await rows.put(database, alice)
    await rows.claim(database, abandoned, lease_seconds=_LONG_AGO)
    nowhere = own_settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:1/0")})
    assert await sweep(database, nowhere) == swept(1, 0, 0, 0)
    assert await sweep(database, own_settings) == swept(0, 0, 0, 1)
    assert await all_ids(client) == [abandoned]


async def outage(client: "redis.asyncio.Redis", *, probe_in: float) -> None:
    """1upHealth is away, and the next probe may go in that many seconds."""
    now = (await client.time())[0] * 1000
    await client.hset(
        "uplift:rate_limiter:oneup",
        mapping={"probing": now, "probe": now + probe_in * 1000, "at": now, "limit": 0.2},
    )


async def test_while_1uphealth_is_away_the_sweep_dispatches_one_probe_and_nothing_else(
    database: Database, own_settings: Settings, client: "redis.asyncio.Redis", alice: UserRow
) -> None:
    ids = [await rows.put(database, alice) for _ in range(5)]
    await outage(client, probe_in=60)
    assert (await sweep(database, own_settings)).dispatched == 0
    await outage(client, probe_in=-1)
    assert (await sweep(database, own_settings)).dispatched == 1
    assert await all_ids(client) == ids[:1]
    assert (await sweep(database, own_settings)).dispatched == 0  # nobody took it yet


async def test_at_a_throttled_rate_no_more_is_dispatched_than_can_be_sent(
    database: Database, own_settings: Settings, client: "redis.asyncio.Redis", alice: UserRow
) -> None:
    for _ in range(30):
        await rows.put(database, alice)
    await client.hset("uplift:rate_limiter:oneup", mapping={"limit": 5})
    assert (await sweep(database, own_settings)).dispatched == 5 * own_settings.sweep_seconds * 2
    assert (await sweep(database, own_settings)).dispatched == 0


async def test_stalled_time_is_credited_to_the_deadlines_of_what_waits(
    database: Database, own_settings: Settings, client: "redis.asyncio.Redis", alice: UserRow
) -> None:
    over, began = await rows.put(database, alice), await rows.put(database, alice)
    new, parked = await rows.put(database, alice), await rows.put(database, alice)
    await rows.bring_to(
        database, over, State.QUEUED, give_up_at=text("now() - interval '1 minute'")
    )
    await rows.bring_to(database, began, State.QUEUED, give_up_at=_LATER)
    await rows.bring_to(database, parked, State.PARKED, give_up_at=_LATER)
    before = {id_: (await rows.row(database, id_)).give_up_at for id_ in (over, began, parked)}
    settings = own_settings.model_copy(update={"give_up_seconds": 200 * 3600.0})
    await outage(client, probe_in=60)

    # It counts at once, and is written to the rows when it is long enough.
    await client.hset("uplift:rate_limiter:oneup", "stalled", 3600_000)
    assert (await sweep(database, settings)).expired == 0
    assert (await rows.row(database, over)).give_up_at == before[over]
    async with database.transaction() as connection:
        (claim,) = await leases.claim(
            connection,
            [over],
            **rows.terms(lease_seconds=60, give_up_seconds=60, stalled_seconds=3600),
        )
    assert not claim.past_deadline
    await rows.bring_to(database, over, State.QUEUED)

    await client.hset("uplift:rate_limiter:oneup", "stalled", 3 * 3600_000)
    assert (await sweep(database, settings)).expired == 0
    for id_ in (over, began):
        moved = (await rows.row(database, id_)).give_up_at - before[id_]
        assert 3 * 3600 <= moved.total_seconds() < 3 * 3600 + 60
    assert (await rows.row(database, new)).give_up_at is None
    assert (await rows.row(database, parked)).give_up_at == before[parked]
    assert float(await client.hget("uplift:rate_limiter:oneup", "stalled") or "inf") < 60_000
    await sweep(database, settings)
    assert ((await rows.row(database, began)).give_up_at - before[began]).total_seconds() < 4 * 3600


async def test_stalled_time_is_credited_in_portions_to_every_upload_once(
    database: Database, alice: UserRow
) -> None:
    ids = [await rows.put(database, alice) for _ in range(7)]
    for nth, id_ in enumerate(ids):
        at = text(f"timestamptz '2030-01-01' + interval '{nth // 3} seconds'")
        await rows.bring_to(database, id_, State.QUEUED, give_up_at=at)
    before, portions = None, 0
    while True:
        async with database.transaction() as connection:
            before = await sweeping.credit_stalled_time(
                connection, "oneup", seconds=3600, before=before, limit=2
            )
        if before is None:
            break
        portions += 1
    assert portions == 4
    found = [(await rows.row(database, id_)).give_up_at for id_ in ids]
    assert {at.astimezone(UTC).isoformat()[:16] for at in found} == {"2030-01-01T01:00"}


async def test_without_redis_nothing_expires_because_the_stalled_time_is_unknown(
    database: Database, own_settings: Settings, client: "redis.asyncio.Redis", alice: UserRow
) -> None:
    upload_id = await rows.put(database, alice)
    over = text("now() - interval '1 second'")
    await rows.bring_to(database, upload_id, State.QUEUED, give_up_at=over)
    nowhere = own_settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:1/0")})
    assert (await sweep(database, nowhere)).expired == 0
    assert (await sweep(database, own_settings)).expired == 1


@pytest.mark.parametrize(
    ("crashes", "state", "reason"),
    [
        (0, State.QUEUED, Reason.LEASE_EXPIRED),
        (REFUSED_AFTER_CRASHES_ALONE - 2, State.QUEUED, Reason.LEASE_EXPIRED),
        (REFUSED_AFTER_CRASHES_ALONE - 1, State.REFUSED, Reason.CRASHES_WORKER),
    ],
)
async def test_an_upload_that_crashed_too_many_workers_is_refused_with_its_body_kept(
    database: Database,
    own_settings: Settings,
    client: "redis.asyncio.Redis",
    alice: UserRow,
    crashes: int,
    state: State,
    reason: Reason,
) -> None:
    upload_id = await rows.put(database, alice)
    await rows.bring_to(database, upload_id, State.QUEUED, crashes=crashes, crashes_alone=crashes)
    process_id = await rows.add_process(database)
    await rows.claim(database, upload_id, process_id=process_id)
    await rows.end_process(database, process_id)
    found = await sweep(database, own_settings)
    assert (found.refused, found.lease_expired) == ((1, 0) if state is State.REFUSED else (0, 1))
    row = await rows.row(database, upload_id)
    assert (row.state, row.reason, row.crashes) == (state, reason, crashes + 1)
    assert row.maybe_sent
    assert row.sealed_body is not None


_REFUSE = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'canary'; END $$
"""


async def test_a_user_who_cannot_be_erased_does_not_delay_the_others(
    database: Database,
    own_settings: Settings,
    client: "redis.asyncio.Redis",
    key_ring: KeyRing,
    capfd: pytest.CaptureFixture[str],
) -> None:
    configure_logs(own_settings)
    users = [await rows.add_user(database, key_ring, f"user-{n}") for n in range(3)]
    abandoned = await rows.put(database, await rows.add_user(database, key_ring))
    await rows.claim(database, abandoned, lease_seconds=0.0)
    async with database.transaction() as connection:
        for user in users:
            assert await erasing.begin(connection, user.app_user_id, SYSTEM)
        await connection.execute(text(_REFUSE))
        await connection.execute(
            text(
                "CREATE TRIGGER refuse BEFORE DELETE ON users FOR EACH ROW"
                f" WHEN (OLD.id = '{users[0].id}') EXECUTE FUNCTION refuse()"
            )
        )
    try:
        found = await sweep(database, own_settings)
    finally:
        async with database.transaction() as connection:
            await connection.execute(text("DROP FUNCTION refuse CASCADE"))
    assert (found.lease_expired, found.erased) == (1, 2)
    shown = "".join(capfd.readouterr())
    assert "erasing_failed" in shown
    assert "canary" not in shown
    assert (await sweep(database, own_settings)).erased == 1


async def test_a_sweep_erases_a_bounded_number_of_users_and_the_next_one_others(
    database: Database, key_ring: KeyRing
) -> None:
    users = [await rows.add_user(database, key_ring, f"user-{n}") for n in range(6)]
    seen: set[UUID] = set()
    async with database.transaction() as connection:
        for user in users:
            assert await erasing.begin(connection, user.app_user_id, SYSTEM)
        for _ in range(200):
            some = await erasing.some_begun(connection, limit=2)
            assert len(some) == 2
            seen |= set(some)
    assert seen == {user.id for user in users}


_DAY_AHEAD = text("now() + interval '1 day'")


async def test_waits_that_a_clock_a_day_ahead_began_are_shortened(
    database: Database, own_settings: Settings, client: "redis.asyncio.Redis", alice: UserRow
) -> None:
    settles, retries, waits, leased = [await rows.put(database, alice) for _ in range(4)]
    for upload_id, columns in (
        (settles, {"next_attempt_at": _DAY_AHEAD, "reason": Reason.SETTLING, "attempts": 1}),
        (retries, {"next_attempt_at": _DAY_AHEAD, "reason": Reason.RETRY, "attempts": 1}),
        # Its backoff may be that long by now.
        (waits, {"next_attempt_at": _LATER, "reason": Reason.SETTLING, "attempts": 20}),
    ):
        await rows.bring_to(database, upload_id, State.QUEUED, **columns)
    await rows.bring_to(database, leased, State.SENDING, lease_until=_DAY_AHEAD)
    await sweep(database, own_settings)
    async with database.transaction() as connection:
        seconds = {
            row.id: row.seconds
            for row in await connection.execute(
                text(
                    "SELECT id, extract(epoch FROM coalesce(lease_until, next_attempt_at) - now())"
                    "::float8 AS seconds FROM uploads"
                )
            )
        }
    assert 0 < seconds[settles] <= 2 * own_settings.settle_seconds
    assert seconds[retries] <= 2 * own_settings.settle_seconds
    assert seconds[waits] > 3500
    assert seconds[leased] <= own_settings.lease_seconds
    assert await all_ids(client) == []


async def test_so_are_the_waits_for_older_versions_and_for_deletions_upstream(
    database: Database, own_settings: Settings, alice: UserRow
) -> None:
    newer = await rows.put(database, alice)
    async with database.transaction() as connection:
        for statement in (
            (
                "INSERT INTO deliveries (record_id, destination, in_doubt_version, in_doubt_until)"
                " SELECT record_id, destination, 0, now() + interval '1 day' FROM uploads"
                " WHERE id = :id"
            ),
            (
                "INSERT INTO upstream_deletions (user_id, destination, key, fhir_version,"
                " resource_type, sealed_target, due_at) SELECT user_id, destination, '', 'R4',"
                " 'Observation', '', now() + interval '1 day' FROM uploads WHERE id = :id"
            ),
        ):
            await connection.execute(text(statement), {"id": newer})
    await sweep(database, own_settings)
    longest = own_settings.attempt_seconds + 2 * max(
        own_settings.settle_seconds, own_settings.index_lag_seconds
    )
    async with database.transaction() as connection:
        for statement in (
            "SELECT max(in_doubt_until) - now() FROM deliveries",
            "SELECT max(due_at) - now() FROM upstream_deletions",
        ):
            left = await connection.scalar(text(statement))
            assert left <= timedelta(seconds=longest)


async def closed(database: Database, upload_id: UUID, status: int) -> None:
    """Its attempt ended just now with that status."""
    async with database.transaction() as connection:
        await connection.execute(
            text(
                "UPDATE attempts SET closed_at = now(), status_code = :status WHERE upload_id = :id"
            ),
            {"status": status, "id": upload_id},
        )


async def test_the_first_success_makes_due_what_failed_while_nothing_succeeded(
    database: Database, own_settings: Settings, client: "redis.asyncio.Redis", alice: UserRow
) -> None:
    failed, held, sent, ahead, long_before, succeeds = [
        await rows.put(database, alice) for _ in range(6)
    ]
    for upload_id, columns in (
        (failed, {"reason": Reason.RETRY}),
        (held, {"reason": Reason.HELD}),
        # It may be there: it settles first.
        (sent, {"reason": Reason.SETTLING, "maybe_sent": True, "attempts": 20}),
        # PostgreSQL's clock was a day ahead then.
        (
            ahead,
            {
                "reason": Reason.SETTLING,
                "maybe_sent": True,
                "attempts": 20,
                "updated_at": _DAY_AHEAD,
            },
        ),
        (long_before, {"reason": Reason.RETRY, "updated_at": text("now() - interval '1 day'")}),
    ):
        await rows.bring_to(database, upload_id, State.QUEUED, next_attempt_at=_LATER, **columns)
    await sweep(database, own_settings)
    assert await waits(database) == dict.fromkeys((failed, held, sent, ahead, long_before), 3600)

    await rows.claim(database, succeeds)
    await closed(database, succeeds, 201)
    await sweep(database, own_settings)
    seconds = await waits(database)
    assert seconds[failed] <= 1
    assert seconds[held] <= 1
    assert 1 < seconds[sent] <= own_settings.settle_seconds
    assert 1 < seconds[ahead] <= own_settings.settle_seconds
    assert seconds[long_before] == 3600


async def test_while_others_succeed_a_failed_upload_keeps_its_backoff(
    database: Database, own_settings: Settings, client: "redis.asyncio.Redis", alice: UserRow
) -> None:
    failed, succeeds = [await rows.put(database, alice) for _ in range(2)]
    await rows.claim(database, succeeds)
    await closed(database, succeeds, 201)
    dispatcher = Dispatcher(own_settings)
    async with open_redis(own_settings) as counter:
        rate_limiter = RateLimiter(counter, own_settings)
        retrier = CollisionRetrier(database, KeyRing.parse(MASTER_KEYS))
        sweeper = Sweeper(
            database,
            dispatcher,
            Eraser(database, KEY_RING, own_settings),
            Mover(database, {}),
            retrier,
            AddressCheck(database, configured_destinations(own_settings)),
            {"oneup": rate_limiter},
            own_settings,
        )
        await sweeper.sweep()
        await rows.bring_to(
            database, failed, State.QUEUED, next_attempt_at=_LATER, reason=Reason.RETRY
        )
        await sweeper.sweep()
    await dispatcher.close()
    assert await waits(database) == {failed: 3600}


async def waits(database: Database) -> dict[UUID, int]:
    """In how many seconds each queued upload is due."""
    async with database.transaction() as connection:
        found = await connection.execute(
            text(
                "SELECT id, round(extract(epoch FROM next_attempt_at - now()))::int AS seconds"
                " FROM uploads WHERE state = 'queued' AND next_attempt_at > now() - interval '1 h'"
                " AND reason <> 'new'"
            )
        )
        # A test takes some seconds.
        return {row.id: 3600 if 3500 < row.seconds <= 3600 else row.seconds for row in found}


async def test_silence_counts_only_when_the_sweep_itself_has_written_for_as_long(
    database: Database, own_settings: Settings, client: "redis.asyncio.Redis", alice: UserRow
) -> None:
    settings = own_settings.model_copy(update={"max_silence_seconds": 1.0, "sweep_seconds": 1.0})
    process_id = await rows.add_process(database, silent_seconds=40)
    upload_id = await rows.put(database, alice)
    await rows.claim(database, upload_id, process_id=process_id)
    async with open_relay(settings) as relay:

        async def sweep_for(seconds: float) -> int:
            until = time.monotonic() + seconds
            taken = 0
            while time.monotonic() < until and not taken:
                taken += (await relay.sweeper.sweep()).lease_expired
                await asyncio.sleep(0.05)
            return taken

        assert await sweep_for(0.5) == 0
        await asyncio.sleep(2)  # as if PostgreSQL stood still
        assert await sweep_for(0.5) == 0
        assert await sweep_for(20) == 1
