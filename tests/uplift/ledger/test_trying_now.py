"""Waiting uploads that somebody wants to be tried now."""

from uuid import UUID

import pytest
from sqlalchemy import text

from tests.uplift.ledger import rows
from uplift.ledger import trying_now
from uplift.ledger.audit import SYSTEM
from uplift.ledger.database import Database
from uplift.ledger.filters import Filter
from uplift.ledger.users import UserRow
from uplift.lifecycle import State


async def _due_in(database: Database, upload_id: UUID) -> float:
    async with database.transaction() as connection:
        return float(
            await connection.scalar(
                text(
                    "SELECT extract(epoch FROM next_attempt_at - now()) FROM uploads WHERE id = :id"
                ),
                {"id": upload_id},
            )
        )


@pytest.mark.parametrize(
    ("maybe_sent", "rested", "waits", "due_in"),
    [
        (False, 0, 3600, 0),
        (False, 0, -5, -5),
        (True, 0, 3600, 300),
        (True, 200, 3600, 100),
        (True, 900, 3600, 0),
        (True, 0, 60, 60),
        (True, -86400, 90000, 300),
    ],
    ids=[
        "it was never sent",
        "it is due already",
        "it may have been sent just now",
        "it may have been sent a while ago",
        "it may have been sent long ago",
        "it is due before the settle time is over",
        "it may have been sent while the clock was a day ahead",
    ],
)
async def test_it_is_due_now_but_not_before_the_settle_time_is_over(
    database: Database, alice: UserRow, *, maybe_sent: bool, rested: int, waits: int, due_in: int
) -> None:
    upload_id = await rows.put(database, alice)
    async with database.transaction() as connection:
        await connection.execute(
            text(
                "UPDATE uploads SET maybe_sent = :maybe_sent,"
                " updated_at = now() - make_interval(secs => :rested),"
                " next_attempt_at = now() + make_interval(secs => :waits)"
            ),
            {"maybe_sent": maybe_sent, "rested": rested, "waits": waits},
        )
    async with database.transaction() as connection:
        tried = await trying_now.try_now(connection, [upload_id], settle_seconds=300.0, by=SYSTEM)
    assert tried == ([upload_id] if due_in < waits else [])
    assert await _due_in(database, upload_id) == pytest.approx(due_in, abs=5)


async def test_only_what_waits_is_found_and_changed(database: Database, alice: UserRow) -> None:
    due, waiting, sending, ended = [await rows.put(database, alice) for _ in range(4)]
    await rows.bring_to(database, sending, State.SENDING)
    await rows.bring_to(database, ended, State.REFUSED)
    async with database.transaction() as connection:
        await connection.execute(
            text("UPDATE uploads SET next_attempt_at = now() + interval '1 hour' WHERE id = :id"),
            {"id": waiting},
        )
    ids = [due, waiting, sending, ended]
    async with database.transaction() as connection:
        assert await trying_now.find(connection, Filter(), after=None, limit=9) == [waiting]
        assert await trying_now.find(connection, Filter(), after=waiting, limit=9) == []
        assert await trying_now.count(connection, Filter(reason="held")) == 0
        assert await trying_now.count(connection, Filter()) == 1
        assert await trying_now.try_now(connection, ids, settle_seconds=1.0, by=SYSTEM) == [waiting]
