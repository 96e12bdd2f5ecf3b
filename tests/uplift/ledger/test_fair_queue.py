"""Fair queueing: whose upload is claimed next, and what costs a claim nothing."""

import asyncio
import re
from uuid import UUID

import pytest
from psycopg import AsyncRawCursor
from sqlalchemy import text

from bench.sent_statements import sent_by
from tests.uplift.ledger import rows
from uplift.ledger import dead_letters, fair_queue, leases, pauses
from uplift.ledger.audit import SYSTEM
from uplift.ledger.database import Database, driver_of
from uplift.ledger.due import front
from uplift.ledger.leases import Claim, Outcome
from uplift.ledger.transitions import Change
from uplift.ledger.users import UserRow
from uplift.lifecycle import Reason, State
from uplift.queues import BULK, UPLOADS
from uplift.sealing import KeyRing

_LATER = text("now() + interval '1 hour'")
_KIB = 1024


@pytest.fixture
async def bob(database: Database, key_ring: KeyRing) -> UserRow:
    return await rows.add_user(database, key_ring, "bob")


async def put_many(database: Database, user: UserRow, count: int, **more: object) -> list[UUID]:
    """That many uploads of one request."""
    group = [rows.new_upload(user, **more) for _ in range(count)]  # type: ignore[arg-type]
    async with database.transaction() as connection:
        put = await rows.put_in_unread(connection, group)
    return [id_ for id_, _ in put]


async def claim(database: Database, limit: int, *, queue: str = UPLOADS) -> list[UUID]:
    """Claim at the front; what was claimed, in that order."""
    return [each.upload_id for each in await claims(database, limit, queue=queue)]


async def claims(database: Database, limit: int, *, queue: str = UPLOADS) -> list[Claim]:
    async with database.transaction() as connection:
        found = await front(connection, queue, "oneup", limit=limit)
        return await leases.lease(connection, found.due, **rows.terms())


async def tag_due(database: Database, *, each: int = 999, limit: int = 999) -> list[UUID]:
    async with database.transaction() as connection:
        return await fair_queue.tag_due(connection, UPLOADS, "oneup", each=each, limit=limit)


async def tags(database: Database, ids: list[UUID]) -> list[int | None]:
    return [(await rows.row(database, id_)).finish_tag for id_ in ids]


async def ready(database: Database) -> int:
    async with database.transaction() as connection:
        return await fair_queue.count_ready(connection, UPLOADS, "oneup", limit=9999)


async def hand_back(database: Database, claimed: Claim, reason: Reason, **more: float) -> None:
    change = Change(
        upload_id=claimed.upload_id,
        source=State.SENDING,
        target=State.QUEUED,
        reason=reason,
        lease_id=claimed.lease_id,
        **more,  # type: ignore[arg-type]
    )
    async with database.transaction() as connection:
        await leases.record(connection, [Outcome(claim=claimed, change=change, code="code")])


async def test_newcomers_wait_for_one_upload_of_who_has_thousands_waiting(
    database: Database, alice: UserRow, key_ring: KeyRing
) -> None:
    many = await put_many(database, alice, 3000)
    assert await claim(database, 50) == many[:50]
    others = [await rows.add_user(database, key_ring, f"user-{n}") for n in range(20)]
    theirs = [await rows.put(database, each) for each in others]
    next_ = await claim(database, 21)
    assert set(theirs) < set(next_)
    assert set(next_) - set(theirs) == {many[50]}
    assert await claim(database, 9) == many[51:60]


async def test_two_with_much_waiting_take_turns(
    database: Database, alice: UserRow, bob: UserRow
) -> None:
    hers = await put_many(database, alice, 20)
    his = await put_many(database, bob, 10)
    first = await claim(database, 20)
    assert set(first) == {*hers[:10], *his}
    assert all({first[n], first[n + 1]} == {hers[n // 2], his[n // 2]} for n in range(0, 20, 2))


async def test_a_large_upload_counts_as_many_small_ones(
    database: Database, alice: UserRow, bob: UserRow
) -> None:
    large = await put_many(database, alice, 3, body_bytes=64 * 9 * _KIB)
    small = await put_many(database, bob, 30)
    assert await claim(database, 9) == small[:9]
    assert set(await claim(database, 2)) == {large[0], small[9]}
    assert await claim(database, 9) == small[10:19]


async def test_each_queue_has_an_order_of_its_own(database: Database, alice: UserRow) -> None:
    await put_many(database, alice, 30, queue=BULK)
    await claim(database, 30, queue=BULK)
    bulk, single = await rows.put(database, alice, queue=BULK), await rows.put(database, alice)
    assert await claim(database, 9) == [single]
    assert await claim(database, 9, queue=BULK) == [bulk]


async def test_who_waited_for_something_has_no_credit_and_no_debt(
    database: Database, alice: UserRow, bob: UserRow
) -> None:
    retry = await rows.put(database, bob)
    (first,) = await claims(database, 1)
    await hand_back(database, first, Reason.RETRY)
    assert await tags(database, [retry]) == [None]
    await put_many(database, alice, 40)
    await claim(database, 20)
    assert await tag_due(database) == [retry]
    assert retry in await claim(database, 2)


async def test_what_is_handed_back_unattempted_is_next_again(
    database: Database, alice: UserRow
) -> None:
    many = await put_many(database, alice, 9)
    (first,) = await claims(database, 1)
    before = await tags(database, many[:1])
    await hand_back(database, first, Reason.HANDED_BACK)
    assert await tags(database, many[:1]) == before
    assert await claim(database, 2) == many[:2]


async def test_what_may_not_be_claimed_costs_a_claim_once_and_comes_back_when_it_may(
    database: Database, alice: UserRow, bob: UserRow
) -> None:
    older = await rows.put(database, alice, identity=b"i")
    await rows.claim(database, older)
    newer = await rows.put(database, alice, identity=b"i")
    paused = await put_many(database, bob, 3)
    async with database.transaction() as connection:
        await pauses.pause(connection, bob.id, by=SYSTEM)
        found = await front(connection, UPLOADS, "oneup", limit=9)
        assert (found.found, found.due) == (4, {})
        found = await front(connection, UPLOADS, "oneup", limit=9)
        assert (found.found, found.due) == (0, {})
    assert await ready(database) == 0
    assert await tag_due(database) == []

    await rows.bring_to(database, older, State.DELIVERED)
    assert await tag_due(database) == [newer]
    async with database.transaction() as connection:
        await pauses.resume(connection, bob.id, by=SYSTEM)
    assert sorted(await tag_due(database)) == sorted(paused)
    assert set(await claim(database, 9)) == {newer, *paused}


async def test_what_was_ready_while_the_clock_ran_a_day_ahead_does_not_wait_for_a_day(
    database: Database, alice: UserRow
) -> None:
    (ready,) = await put_many(database, alice, 1)
    async with database.transaction() as connection:
        ahead = "UPDATE uploads SET next_attempt_at = now() + interval '1 day'"
        await connection.execute(text(ahead))
        assert (await front(connection, UPLOADS, "oneup", limit=9, longest_wait=60)).found == 1
    row = await rows.row(database, ready)
    assert row.finish_tag is None
    async with database.transaction() as connection:
        left = "SELECT extract(epoch FROM next_attempt_at - now()) FROM uploads"
        assert await connection.scalar(text(left)) <= 60


async def test_a_pause_of_everybody_leaves_everybody_where_they_stand(
    database: Database, alice: UserRow
) -> None:
    many = await put_many(database, alice, 3)
    before = await tags(database, many)
    async with database.transaction() as connection:
        await pauses.pause(connection, None, by=SYSTEM)
    assert await ready(database) == 0
    assert await claim(database, 9) == []
    assert await tags(database, many) == before


async def test_the_sweep_gives_tags_by_turns_between_the_users(
    database: Database, alice: UserRow, key_ring: KeyRing
) -> None:
    many = await put_many(database, alice, 50)
    others = [
        await rows.put(database, await rows.add_user(database, key_ring, f"user-{n}"))
        for n in range(5)
    ]
    later = await rows.put(database, alice)
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE uploads SET finish_tag = NULL"))
    await rows.bring_to(database, later, State.QUEUED, next_attempt_at=_LATER)
    first = await tag_due(database, each=3, limit=7)
    assert set(others) < set(first)
    assert len(set(first) & set(many)) == 2
    rest = [await tag_due(database, each=30) for _ in range(3)]
    assert [len(group) for group in rest] == [30, 18, 0]
    assert {*first, *rest[0], *rest[1]} == {*many, *others}


async def test_two_sweeps_at_once_give_each_upload_one_tag(
    database: Database, alice: UserRow
) -> None:
    ids = await put_many(database, alice, 20)
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE uploads SET finish_tag = NULL"))
    groups = await asyncio.gather(*(tag_due(database) for _ in range(4)))
    assert sorted(id_ for group in groups for id_ in group) == sorted(ids)
    assert len(set(await tags(database, ids))) == len(ids)


async def test_a_claim_that_waits_for_a_lock_takes_what_is_behind_it(
    database: Database, alice: UserRow
) -> None:
    many = await put_many(database, alice, 4)
    async with database.transaction() as connection:
        assert list((await front(connection, UPLOADS, "oneup", limit=2)).due) == many[:2]
        async with asyncio.timeout(5):
            assert await claim(database, 9) == many[2:]


_DEAD = """
    WITH made AS (
        SELECT gen_random_uuid() AS record_id FROM generate_series(1, 10000)
    ), made_records AS (
        INSERT INTO records (id, user_id, identity, versions)
        SELECT record_id, :user_id, uuid_send(record_id), 1 FROM made
    )
    INSERT INTO uploads (id, user_id, record_id, version, queue, fhir_version, resource_type,
        digest, body_bytes, sealed_body, state, reason)
    SELECT gen_random_uuid(), :user_id, record_id, 1, 'uploads', 'R4', 'Observation', '', 6, '',
        'expired', 'gave_up'
    FROM made RETURNING id
"""


async def test_one_persons_redrive_of_10_000_dead_letters_is_a_backlog_like_any_other(
    database: Database, alice: UserRow, bob: UserRow
) -> None:
    async with database.transaction() as connection:
        found = await connection.scalars(text(_DEAD), {"user_id": alice.id})
        dead = list(found)
    before = await rows.put(database, bob)
    for first in range(0, len(dead), 500):
        async with database.transaction() as connection:
            await dead_letters.redrive(
                connection, dead[first : first + 500], settle_seconds=60.0, by=SYSTEM
            )
    after = await rows.put(database, bob)
    async with database.transaction() as connection:
        assert await fair_queue.count_ready(connection, UPLOADS, "oneup", limit=99_999) == 10_002
    claimed = await claim(database, 4)
    # One of hers and one of his, by turns: he waits for two of the ten thousand.
    assert {before, after} < set(claimed)
    assert len(set(claimed) & set(dead)) == 2


# Of one user: retries that wait, what is due and paused, newer versions that are blocked, and what
# is of a type that the destination lacks. 25,000 of each.
_WAITING = """
    WITH made AS (
        SELECT gen_random_uuid() AS record_id, n FROM generate_series(1, 20000) AS n
    ), made_records AS (
        INSERT INTO records (id, user_id, identity, versions)
        SELECT record_id, :user_id, uuid_send(record_id), 1 FROM made
    )
    INSERT INTO uploads (id, user_id, record_id, version, queue, fhir_version, resource_type,
        digest, body_bytes, sealed_body, state, reason, next_attempt_at)
    SELECT gen_random_uuid(), :user_id,
        CASE WHEN n % 4 = 0 THEN lag(record_id) OVER (ORDER BY n) ELSE record_id END,
        CASE WHEN n % 4 = 0 THEN 2 ELSE 1 END,
        'uploads', CASE WHEN n % 4 = 2 THEN 'DSTU2' ELSE 'R4' END, 'Observation', '', 6, '',
        'queued', CASE WHEN n % 4 = 2 THEN 'held' ELSE 'retry' END,
        now() + CASE WHEN n % 4 IN (2, 3) THEN interval '1 hour' ELSE '0' END
    FROM made
"""


async def plan_of_claim(database: Database, limit: int) -> str:
    """How PostgreSQL finds what is claimed next: the claim's own statement, run."""
    async with database.transaction() as connection:
        with sent_by(connection) as sent:
            await front(connection, UPLOADS, "oneup", limit=limit)
    ((statement, parameters),) = sent
    async with database.transaction() as connection:
        raw = AsyncRawCursor(driver_of(connection))
        lines = await raw.execute(f"EXPLAIN (ANALYZE, BUFFERS, TIMING off) {statement}", parameters)
        return "\n".join(line for (line,) in await lines.fetchall())


async def test_20_000_that_wait_are_paused_blocked_or_set_aside_cost_a_claim_nothing(
    database: Database, alice: UserRow, bob: UserRow
) -> None:
    async with database.transaction() as connection:
        # What tests before deleted is still in the pages.
        await connection.execute(text("TRUNCATE uploads CASCADE"))
    his = [await rows.put(database, bob) for _ in range(3)]
    async with database.transaction() as connection:
        await connection.execute(text(_WAITING), {"user_id": alice.id})
        await pauses.pause(connection, alice.id, by=SYSTEM)
        await connection.execute(text("ANALYZE uploads"))
    plan = await plan_of_claim(database, 100)
    assert "ix_uploads_ready" in plan
    read = [int(number) for number in re.findall(r"rows=(\d+)(?:\.\d+)? loops=[1-9]", plan)]
    assert read
    assert max(read) <= len(his), plan
    passed = [int(number) for number in re.findall(r"Removed by Filter: (\d+)", plan)]
    assert max(passed, default=0) <= len(his), plan
    found = re.search(r"shared hit=(\d+)", plan)  # of all nodes; that of planning comes last
    assert found
    assert int(found[1]) < 100
    assert await claim(database, 100) == his
