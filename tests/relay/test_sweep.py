"""One sweep: what it finds in the ledger, and what it rings for."""

from uuid import UUID

import pytest
import redis.asyncio
from pydantic import SecretStr
from sqlalchemy import text

from relay.bell import Bell
from relay.erase import Eraser
from relay.ledger import erasing, grants
from relay.ledger.audit import SYSTEM
from relay.ledger.database import Database
from relay.ledger.users import UserRow
from relay.lifecycle import State
from relay.logs import configure_logs
from relay.queues import BULK, UPLOADS
from relay.sealing import KeyRing
from relay.settings import Settings
from relay.sweep import Sweeper, Swept
from relay.tokens import Tokens
from tests.relay.ledger import rows
from tests.relay.test_bell import all_ids, messages

_LATER = text("now() + interval '1 hour'")


@pytest.fixture
async def alice(database: Database, ring: KeyRing) -> UserRow:
    return await rows.add_user(database, ring)


async def sweep(database: Database, settings: Settings) -> Swept:
    """One sweep, and all that it rings for published."""
    bell = Bell(settings)
    bell.start()
    try:
        return await Sweeper(database, bell, Eraser(database), settings).sweep()
    finally:
        await bell.close()


def swept(recovered: int, released: int, expired: int, rung: int) -> Swept:
    return Swept(recovered=recovered, released=released, expired=expired, rung=rung, erased=0)


async def states(database: Database, ids: list[UUID]) -> list[str]:
    return [(await rows.row(database, id_)).state for id_ in ids]


async def test_an_empty_ledger_gives_nothing_to_do(
    database: Database, own_settings: Settings, client: "redis.asyncio.Redis"
) -> None:
    assert await sweep(database, own_settings) == swept(0, 0, 0, 0)
    assert await messages(client) == []


async def test_due_uploads_are_rung_for_in_their_queue_and_not_again_at_once(
    database: Database, own_settings: Settings, client: "redis.asyncio.Redis", alice: UserRow
) -> None:
    due = [await rows.put(database, alice) for _ in range(3)]
    bulk = await rows.put(database, alice, queue=BULK)
    later = await rows.put(database, alice)
    await rows.bring_to(database, later, State.QUEUED, next_attempt_at=_LATER)
    assert await sweep(database, own_settings) == swept(0, 0, 0, 4)
    assert await sweep(database, own_settings) == swept(0, 0, 0, 0)
    assert sorted(await all_ids(client, UPLOADS)) == due
    assert await all_ids(client, BULK) == [bulk]


async def test_what_a_vanished_worker_held_is_queued_and_rung_for(
    database: Database, own_settings: Settings, client: "redis.asyncio.Redis", alice: UserRow
) -> None:
    abandoned, held = await rows.put(database, alice), await rows.put(database, alice)
    await rows.claim(database, abandoned, lease_seconds=0.0)
    await rows.claim(database, held)
    assert await sweep(database, own_settings) == swept(1, 0, 0, 1)
    assert await states(database, [abandoned, held]) == ["queued", "sending"]
    assert await all_ids(client) == [abandoned]


@pytest.mark.parametrize(
    ("attempt", "settle", "lease", "delay"), [(60, 60, 120, 0), (60, 90, 120, 30), (5, 60, 10, 55)]
)
async def test_what_a_vanished_worker_may_have_sent_last_is_given_its_time_to_settle(
    database: Database,
    own_settings: Settings,
    client: "redis.asyncio.Redis",
    alice: UserRow,
    attempt: float,
    settle: float,
    lease: float,
    delay: float,
) -> None:
    settings = own_settings.model_copy(
        update={"attempt_seconds": attempt, "settle_seconds": settle, "lease_seconds": lease}
    )
    upload_id = await rows.put(database, alice)
    await rows.claim(database, upload_id, lease_seconds=0.0)
    await sweep(database, settings)
    row = await rows.row(database, upload_id)
    assert (row.next_attempt_at - row.updated_at).total_seconds() == delay


async def test_what_has_outlived_its_time_expires_but_for_what_may_be_upstream(
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


async def test_what_was_parked_just_after_its_user_came_back_is_released_and_rung_for(
    database: Database,
    own_settings: Settings,
    client: "redis.asyncio.Redis",
    alice: UserRow,
    ring: KeyRing,
) -> None:
    upload_id = await rows.put(database, alice)
    await rows.bring_to(database, upload_id, State.PARKED)
    assert await sweep(database, own_settings) == swept(0, 0, 0, 0)
    async with database.transaction() as connection:
        await grants.put_grant(
            connection, alice.id, alice.key(ring), Tokens("a", None, 60.0), "backend"
        )
    assert await sweep(database, own_settings) == swept(0, 1, 0, 1)
    assert await all_ids(client) == [upload_id]


async def test_while_a_queue_is_full_the_sweep_rings_no_more(
    database: Database, own_settings: Settings, client: "redis.asyncio.Redis", alice: UserRow
) -> None:
    settings = own_settings.model_copy(update={"queued_messages_most": 2})
    ids = [await rows.put(database, alice) for _ in range(120)]
    await client.lpush(UPLOADS, b"message", b"message")
    assert (await sweep(database, settings)).rung == 0
    await client.lpop(UPLOADS)
    assert (await sweep(database, settings)).rung == 100
    assert (await sweep(database, settings)).rung == 0
    await client.delete(UPLOADS)
    assert (await sweep(database, settings)).rung == 20
    assert set(await all_ids(client)) <= set(ids)


async def test_without_redis_a_sweep_still_mends_the_ledger_and_leaves_ringing_for_later(
    database: Database, own_settings: Settings, alice: UserRow, client: "redis.asyncio.Redis"
) -> None:
    abandoned = await rows.put(database, alice)
    await rows.claim(database, abandoned, lease_seconds=0.0)
    nowhere = own_settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:1/0")})
    assert await sweep(database, nowhere) == swept(1, 0, 0, 0)
    assert await sweep(database, own_settings) == swept(0, 0, 0, 1)
    assert await all_ids(client) == [abandoned]


_REFUSE = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'canary'; END $$
"""


async def test_a_user_who_cannot_be_erased_keeps_no_other_waiting(
    database: Database,
    own_settings: Settings,
    client: "redis.asyncio.Redis",
    ring: KeyRing,
    capfd: pytest.CaptureFixture[str],
) -> None:
    configure_logs(own_settings)
    users = [await rows.add_user(database, ring, f"user-{n}") for n in range(3)]
    abandoned = await rows.put(database, await rows.add_user(database, ring))
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
    assert (found.recovered, found.erased) == (1, 2)
    shown = "".join(capfd.readouterr())
    assert "erasing_failed" in shown
    assert "canary" not in shown
    assert (await sweep(database, own_settings)).erased == 1


async def test_a_sweep_erases_a_bounded_number_of_users_and_the_next_one_others(
    database: Database, ring: KeyRing
) -> None:
    users = [await rows.add_user(database, ring, f"user-{n}") for n in range(6)]
    seen: set[UUID] = set()
    async with database.transaction() as connection:
        for user in users:
            assert await erasing.begin(connection, user.app_user_id, SYSTEM)
        for _ in range(200):
            some = await erasing.some_begun(connection, most=2)
            assert len(some) == 2
            seen |= set(some)
    assert seen == {user.id for user in users}
