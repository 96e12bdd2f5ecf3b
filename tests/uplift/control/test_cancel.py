"""Many uploads are cancelled while workers go on."""

import asyncio

from sqlalchemy import text

from tests.uplift.ledger import rows
from uplift.control.cancel import Canceller
from uplift.ledger.database import Database
from uplift.ledger.filters import Filter
from uplift.lifecycle import State
from uplift.sealing import KeyRing

_LOCK = text("SELECT id FROM uploads WHERE id = :id FOR UPDATE")
_WAITING = text("SELECT count(*) FROM pg_locks WHERE NOT granted")


async def test_a_deadlock_with_a_worker_that_records_is_tried_again(
    database: Database, key_ring: KeyRing
) -> None:
    alice = await rows.add_user(database, key_ring)
    first, second = [await rows.put(database, alice) for _ in range(2)]
    async with database.transaction() as worker:
        # So that the other is the one that Postgres ends.
        await worker.execute(text("SET LOCAL deadlock_timeout = '1min'"))
        await worker.execute(_LOCK, {"id": second})
        async with database.transaction() as other:
            await other.execute(text("SET deadlock_timeout = '500ms'"))
        cancelling = asyncio.create_task(Canceller(database).cancel_all(Filter(user_id=alice.id)))
        while not await worker.scalar(_WAITING):  # noqa: ASYNC110  Postgres tells nobody
            await asyncio.sleep(0.005)
        await worker.execute(_LOCK, {"id": first})
    await cancelling
    states = [(await rows.row(database, id_)).state for id_ in (first, second)]
    assert states == [State.CANCELLED, State.CANCELLED]
