"""The ways that Postgres takes: through what is unfinished, never through all history.

What is asked for is the generic plan: the one that a prepared statement of a process that has run
for long may have, and that knows no parameter's value.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection

from relay.ledger import parking, sweeping, uploads, work
from relay.ledger.database import Database
from relay.ledger.users import UserRow
from relay.lifecycle import State
from tests.relay.ledger import rows

_HISTORY = 3000
_PARAMETER = re.compile(r"%\((\w+)\)s")


@pytest.fixture
async def unfinished(database: Database, alice: UserRow) -> list[UUID]:
    """A few unfinished uploads in front of much history, as the planner's statistics know."""
    await rows.add_history(database, alice, _HISTORY)
    ids = [await rows.put(database, alice) for _ in range(6)]
    await rows.bring_to(database, ids[0], State.SENDING)
    await rows.bring_to(database, ids[1], State.PARKED)
    async with database.transaction() as connection:
        await connection.execute(text("ANALYZE uploads"))
    return ids


async def plans(
    database: Database, use: Callable[[AsyncConnection, UserRow], Awaitable[Any]], user: UserRow
) -> str:
    """The generic plans of the statements that `use` sends."""
    sent: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        sent.append(statement)

    async with database.transaction() as connection:
        sync = connection.sync_connection
        assert sync is not None
        event.listen(sync, "before_cursor_execute", note)
        await use(connection, user)
        event.remove(sync, "before_cursor_execute", note)
        raw: Any = (await connection.get_raw_connection()).driver_connection
        # This history is still short enough for a few plans to read all of it; none may have to.
        await raw.execute("SET LOCAL enable_seqscan = off")
        lines: list[str] = []
        for statement in sent:
            if not statement.startswith("INSERT"):
                answer = await raw.execute(f"EXPLAIN (GENERIC_PLAN) {_numbered(statement)}")
                lines += [line for (line,) in await answer.fetchall()]
        return "\n".join(lines)


def _numbered(statement: str) -> str:
    names: list[str] = list(dict.fromkeys(_PARAMETER.findall(statement)))
    return _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", statement)


_WAYS: dict[str, tuple[Callable[[AsyncConnection, UserRow], Awaitable[Any]], str]] = {
    "ring": (
        lambda c, _: sweeping.ring_due(c, queue="uploads", most=100, ring_seconds=1),
        "ix_uploads_due",
    ),
    "recover": (lambda c, _: sweeping.recover_abandoned(c, most=9, delay=0), "ix_uploads_leased"),
    "expire": (lambda c, _: sweeping.expire_outlived(c, most=9), "ix_uploads_giving_up"),
    "release late": (lambda c, _: parking.release_authorized(c, most=9), "ix_uploads_parked"),
    "release": (lambda c, user: parking.release_parked(c, user.id), "ix_uploads_parked"),
    "park": (lambda c, user: parking.park_waiting(c, user.id, clock=1), "ix_uploads_due"),
    "put in": (
        lambda c, user: uploads.put_in(c, [rows.new_upload(user)], ring_seconds=1),
        "(ix_uploads_unfinished|uq_uploads_record_id_version)",
    ),
    "watch": (lambda c, user: uploads.get_revisions(c, [user.id]), "pk_uploads"),
    "status": (lambda c, user: uploads.get_uploads(c, [user.id]), "pk_uploads"),
}


async def test_no_work_reads_through_history(
    database: Database, alice: UserRow, unfinished: list[UUID]
) -> None:
    for name, (use, index) in _WAYS.items():
        plan = await plans(database, use, alice)
        assert re.search(rf"(using|on) {index}\b", plan), name
        assert "Seq Scan on uploads" not in plan, name


async def test_uploads_that_are_named_are_found_by_their_ids_however_many_wait(
    database: Database, alice: UserRow, unfinished: list[UUID]
) -> None:
    for use in (
        lambda c, _: work.sizes_of_due(c, unfinished),
        lambda c, _: work.claim(c, unfinished, lease_seconds=9, give_up_seconds=9),
    ):
        plan = await plans(database, use, alice)
        # Either leads by the ids: PostgreSQL 18 may skip through the second.
        assert re.search(r"(using|on) (pk_uploads|ix_uploads_user_id_id)\b", plan)
        # The statistics say that little waits; each claim would read the backlog that came since.
        assert "ix_uploads_due" not in plan
        assert "Seq Scan on uploads" not in plan
