"""The life of records in random order makes only the transitions that the table allows.

`UPLIFT_MODEL_WALKS=100 pytest tests/uplift/ledger/test_model.py` walks longer.
"""

import os
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from tests.uplift.ledger.walk import UNWATCH, WATCH, Walk
from uplift.ledger.database import Database
from uplift.ledger.users import UserRow

WALKS = int(os.environ.get("UPLIFT_MODEL_WALKS", "3"))
STEPS = 120


@pytest.fixture
async def watched(database: Database) -> AsyncIterator[Database]:
    """The ledger, with a trigger that notes each change of state."""
    async with database.transaction() as connection:
        for statement in WATCH:
            await connection.execute(text(statement))
    yield database
    async with database.transaction() as connection:
        for statement in UNWATCH:
            await connection.execute(text(statement))


@pytest.mark.parametrize("seed", range(WALKS))
async def test_no_order_of_events_leads_where_the_table_forbids(
    watched: Database, alice: UserRow, seed: int
) -> None:
    walk = Walk(watched, alice, seed)
    for number in range(STEPS):
        try:
            await walk.step()
        except BaseException as error:
            trail = "\n  ".join(walk.trail[-40:])
            error.add_note(f"seed {seed}, step {number}; the last steps:\n  {trail}")
            raise
    # A walk in which nothing was claimed would prove nothing.
    assert {("queued", "sending"), ("sending", "queued")} <= walk.transitions
