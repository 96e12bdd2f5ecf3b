"""Many uploads are cancelled or redriven while others have locked some of them."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from sqlalchemy import text

from tests.uplift.ledger import rows
from uplift.control.cancel import Canceller
from uplift.control.redrive import Redriver
from uplift.ledger.database import Database
from uplift.ledger.filters import Filter
from uplift.lifecycle import State
from uplift.sealing import KeyRing
from uplift.settings import Settings

_LOCK = text("SELECT id FROM uploads WHERE id = :id FOR UPDATE")


async def cancel(database: Database, matching: Filter, _: Settings) -> object:
    return await Canceller(database).cancel_all(matching)


async def redrive(database: Database, matching: Filter, settings: Settings) -> object:
    return await Redriver(database, settings).redrive_all(matching)


@pytest.mark.parametrize(
    ("use", "before", "after"),
    [(cancel, State.QUEUED, State.CANCELLED), (redrive, State.EXPIRED, State.QUEUED)],
)
async def test_a_deadlock_is_retried(
    database: Database,
    key_ring: KeyRing,
    own_settings: Settings,
    use: Callable[[Database, Filter, Settings], Coroutine[Any, Any, object]],
    before: State,
    after: State,
) -> None:
    alice = await rows.add_user(database, key_ring)
    first, second = [await rows.put(database, alice) for _ in range(2)]
    for id_ in (first, second):
        await rows.bring_to(database, id_, before)
    async with database.transaction() as worker:
        # So that PostgreSQL ends the other one.
        await worker.execute(text("SET LOCAL deadlock_timeout = '1min'"))
        await worker.execute(_LOCK, {"id": second})
        async with database.transaction() as other:
            await other.execute(text("SET deadlock_timeout = '200ms'"))
        using = asyncio.create_task(use(database, Filter(user_id=alice.id), own_settings))
        await rows.until_locked_out(database)
        await worker.execute(_LOCK, {"id": first})
    await using
    assert [(await rows.row(database, id_)).state for id_ in (first, second)] == [after, after]
