"""What is unfinished, as operators see it."""

import pytest
from sqlalchemy import text

from tests.uplift.ledger import rows
from uplift.ledger import backlog, pauses
from uplift.ledger.audit import SYSTEM
from uplift.ledger.database import Database
from uplift.ledger.users import UserRow
from uplift.lifecycle import State
from uplift.sealing import KeyRing


@pytest.fixture
async def some(database: Database, alice: UserRow) -> None:
    """Three queued, one of them due in an hour and one for a minute; one sending, one parked."""
    ids = [await rows.put(database, alice) for _ in range(6)]
    await rows.bring_to(database, ids[0], State.SENDING)
    await rows.bring_to(database, ids[1], State.PARKED)
    await rows.bring_to(database, ids[2], State.DELIVERED)
    async with database.transaction() as connection:
        for id_, at in ((ids[3], "- interval '1 min'"), (ids[4], "+ interval '1 hour'")):
            await connection.execute(
                text(f"UPDATE uploads SET next_attempt_at = now() {at} WHERE id = :id"),  # noqa: S608
                {"id": id_},
            )


async def seen(database: Database) -> backlog.Backlog:
    async with database.transaction() as connection:
        return await backlog.backlog(connection)


async def test_the_unfinished_are_counted_by_state_and_what_is_over_is_not(
    database: Database, some: None
) -> None:
    found = await seen(database)
    assert {each.state: each.uploads for each in found.waiting} == {
        State.QUEUED: 3,
        State.SENDING: 1,
        State.PARKED: 1,
    }
    assert {each.queue for each in found.waiting} == {"uploads"}
    assert found.users_parked == 1


async def test_only_what_is_due_now_is_due_since_its_oldest(database: Database, some: None) -> None:
    (queued,) = [each for each in (await seen(database)).waiting if each.state == State.QUEUED]
    assert queued.due == 2
    assert 60 <= queued.due_seconds < 90


async def test_what_is_paused_is_not_due(
    database: Database, alice: UserRow, key_ring: KeyRing, some: None
) -> None:
    await rows.put(database, await rows.add_user(database, key_ring, "bob"))
    async with database.transaction() as connection:
        await pauses.pause(connection, alice.id, by=SYSTEM)
    found = await seen(database)
    assert sum(each.due for each in found.waiting) == 1
    assert (found.all_paused, found.users_paused) == (False, 1)
    async with database.transaction() as connection:
        await pauses.pause(connection, None, by=SYSTEM)
    found = await seen(database)
    assert sum(each.due for each in found.waiting) == 0
    assert (found.all_paused, found.users_paused) == (True, 1)


async def test_an_empty_ledger_has_no_backlog(database: Database) -> None:
    found = await seen(database)
    assert found == backlog.Backlog(waiting=(), users_parked=0, all_paused=False, users_paused=0)
