"""Pauses in the ledger: what stands still, and for how long."""

import asyncio
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.uplift.ledger import rows
from uplift.ledger import audit, cancelling, fair_queue, pauses, sweeping, users
from uplift.ledger.audit import SYSTEM
from uplift.ledger.database import Database
from uplift.ledger.due import due_among, front
from uplift.ledger.users import UserRow
from uplift.lifecycle import State
from uplift.sealing import KeyRing

_OVER = text("now() - interval '1 second'")


@pytest.fixture
async def bob(database: Database, key_ring: KeyRing) -> UserRow:
    return await rows.add_user(database, key_ring, "bob")


async def pause(database: Database, user: UserRow | None, *, ago: float = 0.0) -> datetime:
    """Pause somebody, since so many seconds."""
    async with database.transaction() as connection:
        since = await pauses.pause(connection, user.id if user else None, by=SYSTEM)
        if ago:
            await connection.execute(
                text(
                    "UPDATE pauses SET since = now() - make_interval(secs => :ago)"
                    " WHERE user_id IS NOT DISTINCT FROM CAST(:user_id AS uuid)"
                ),
                {"ago": ago, "user_id": user.id if user else None},
            )
        return since


async def resume(database: Database, user: UserRow | None) -> bool:
    async with database.transaction() as connection:
        return await pauses.resume(connection, user.id if user else None, by=SYSTEM)


async def dispatched(database: Database) -> list[UUID]:
    async with database.transaction() as connection:
        await front(connection, "uploads", "oneup", limit=99)
        await fair_queue.tag_due(connection, "uploads", "oneup", each=9, limit=99)
        return await fair_queue.first_ready(connection, "uploads", "oneup", limit=99)


async def claimed(database: Database, *ids: UUID) -> list[UUID]:
    async with database.transaction() as connection:
        seen = await due_among(connection, ids)
    found = [claim.upload_id for claim in await rows.claim(database, *ids)]
    assert sorted(seen) == sorted(found)
    return found


async def expired(database: Database) -> set[UUID]:
    async with database.transaction() as connection:
        return await sweeping.expire_past_deadline(connection, "oneup", limit=99)


async def test_a_paused_user_waits_and_others_go_on(
    database: Database, alice: UserRow, bob: UserRow
) -> None:
    hers, his = await rows.put(database, alice), await rows.put(database, bob)
    await pause(database, alice)
    assert await dispatched(database) == [his]
    assert await claimed(database, hers, his) == [his]
    assert (await rows.row(database, hers)).reason == "new"
    assert await resume(database, alice)
    assert await dispatched(database) == [hers]
    assert await claimed(database, hers, his) == [hers]


async def test_while_everybody_is_paused_nothing_is_dispatched_claimed_or_expired(
    database: Database, alice: UserRow
) -> None:
    waiting, over, parked = [await rows.put(database, alice) for _ in range(3)]
    await rows.bring_to(database, over, State.QUEUED, give_up_at=_OVER)
    await rows.bring_to(database, parked, State.PARKED, give_up_at=_OVER)
    await pause(database, None)
    assert await dispatched(database) == []
    assert await claimed(database, waiting, over) == []
    assert await expired(database) == set()
    await resume(database, None)
    assert await expired(database) == {over, parked}
    assert await claimed(database, waiting) == [waiting]


async def test_nothing_of_a_paused_user_expires(
    database: Database, alice: UserRow, bob: UserRow
) -> None:
    hers, his = await rows.put(database, alice), await rows.put(database, bob)
    for id_ in (hers, his):
        await rows.bring_to(database, id_, State.QUEUED, give_up_at=_OVER)
    await pause(database, alice)
    assert await expired(database) == {his}


async def test_what_is_new_is_put_in_while_paused_and_cancelling_still_works(
    database: Database, alice: UserRow
) -> None:
    await pause(database, None)
    upload_id = await rows.put(database, alice)
    async with database.transaction() as connection:
        await cancelling.cancel(connection, [upload_id], by=SYSTEM)
    assert (await rows.row(database, upload_id)).state == State.CANCELLED


async def _moved(database: Database, before: dict[UUID, object]) -> list[float]:
    """By how many seconds the time to give up of each moved."""
    moved = []
    for id_, was in before.items():
        now = (await rows.row(database, id_)).give_up_at
        difference: timedelta = now - was
        moved.append(difference.total_seconds())
    return moved


async def _with_clock(database: Database, *users_: UserRow, state: State) -> dict[UUID, object]:
    clocks: dict[UUID, object] = {}
    for user in users_:
        upload_id = await rows.put(database, user)
        later = text("now() + interval '1 hour'")
        await rows.bring_to(database, upload_id, state, give_up_at=later)
        clocks[upload_id] = (await rows.row(database, upload_id)).give_up_at
    return clocks


async def test_the_time_to_give_up_moves_by_the_pause(
    database: Database, alice: UserRow, bob: UserRow
) -> None:
    clocks = await _with_clock(database, alice, bob, state=State.QUEUED)
    fresh = await rows.put(database, alice)
    parked = await _with_clock(database, alice, state=State.PARKED)
    await pause(database, alice, ago=100)
    await resume(database, alice)
    assert await _moved(database, clocks) == [pytest.approx(100, abs=5), 0]
    await pause(database, None, ago=1000)
    await resume(database, None)
    assert await _moved(database, clocks) == [
        pytest.approx(1100, abs=10),
        pytest.approx(1000, abs=5),
    ]
    assert (await rows.row(database, fresh)).give_up_at is None
    assert await _moved(database, parked) == [0]  # its person may consent any time


@pytest.mark.parametrize("first", ["alice", "everybody"])
@pytest.mark.parametrize(
    ("alice_ago", "all_ago", "hers"), [(100, 300, 300), (300, 100, 300), (200, 200, 200)]
)
async def test_pauses_that_overlap_are_counted_once(
    database: Database,
    alice: UserRow,
    bob: UserRow,
    first: str,
    alice_ago: float,
    all_ago: float,
    hers: float,
) -> None:
    clocks = await _with_clock(database, alice, bob, state=State.QUEUED)
    await pause(database, alice, ago=alice_ago)
    await pause(database, None, ago=all_ago)
    for user in (alice, None) if first == "alice" else (None, alice):
        await resume(database, user)
    assert await _moved(database, clocks) == [
        pytest.approx(hers, abs=5),
        pytest.approx(all_ago, abs=5),
    ]


async def test_two_who_resume_at_once_move_the_clock_once(
    database: Database, alice: UserRow
) -> None:
    clocks = await _with_clock(database, alice, state=State.QUEUED)
    await pause(database, None, ago=100)
    async with database.transaction() as connection:
        assert await pauses.resume(connection, None, by=SYSTEM)
        second = asyncio.create_task(resume(database, None))
        await rows.until_locked_out(database)
    assert not await second
    assert await _moved(database, clocks) == [pytest.approx(100, abs=5)]


async def test_repeating_changes_nothing_and_notes_nothing(
    database: Database, alice: UserRow
) -> None:
    assert await pause(database, alice) == await pause(database, alice)
    assert await pause(database, None) == await pause(database, None)
    async with database.transaction() as connection:
        assert len(await pauses.list_pauses(connection)) == 2
    assert await resume(database, alice)
    assert not await resume(database, alice)
    assert await resume(database, None)
    assert not await resume(database, None)
    async with database.transaction() as connection:
        events = [event.action for event in await audit.list_events(connection)]
    assert events == ["user_added", "paused", "paused", "resumed", "resumed"]


async def test_who_is_paused_is_listed_and_shown_with_the_user(
    database: Database, alice: UserRow, bob: UserRow
) -> None:
    async def shown() -> tuple[list[str | None], list[bool]]:
        async with database.transaction() as connection:
            listed = await pauses.list_pauses(connection)
            people = await users.list_users(connection, limit=9)
        return [row.app_user_id for row in listed], [row.paused for row in people]

    assert await shown() == ([], [False, False])
    await pause(database, bob, ago=9)
    assert await shown() == (["bob"], [True, False])  # bob was added last
    await pause(database, None)
    assert await shown() == (["bob", None], [True, True])
