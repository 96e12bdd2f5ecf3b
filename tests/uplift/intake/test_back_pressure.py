"""Too much waits: nothing more comes in, until there is room again."""

from contextlib import suppress

import pytest
from pydantic import SecretStr

from tests.uplift.ledger import rows
from uplift.errors import BacklogFull
from uplift.intake.back_pressure import BackPressure
from uplift.ledger.database import Database
from uplift.lifecycle import State
from uplift.sealing import KeyRing
from uplift.settings import Settings


async def counted(pressure: BackPressure) -> None:
    """Have it count anew."""
    pressure._next = 0.0
    with suppress(BacklogFull):
        pressure.check()
    await pressure.counted()


async def test_it_is_full_with_so_many_unfinished_and_has_room_when_some_end(
    database: Database, key_ring: KeyRing, own_settings: Settings
) -> None:
    alice = await rows.add_user(database, key_ring)
    pressure = BackPressure(database, own_settings.model_copy(update={"max_backlog": 3}))
    ids = [await rows.put(database, alice) for _ in range(2)]
    await rows.bring_to(database, await rows.put(database, alice), State.DELIVERED)
    await counted(pressure)
    pressure.check()
    await rows.put(database, alice)
    await counted(pressure)
    with pytest.raises(BacklogFull, match="3 uploads") as full:
        pressure.check()
    assert full.value.retry_after > 0
    await rows.bring_to(database, ids[0], State.DELIVERED)
    await counted(pressure)
    pressure.check()


async def test_a_ledger_that_does_not_answer_changes_nothing(own_settings: Settings) -> None:
    away = SecretStr("postgresql://u:p@127.0.0.1:1/x")
    database = Database.connect(own_settings.model_copy(update={"database_url": away}))
    pressure = BackPressure(database, own_settings)
    await counted(pressure)
    pressure.check()
    await pressure.close()
    await database.close()
