"""While too many uploads wait, nothing more is accepted."""

from contextlib import suppress
from dataclasses import dataclass

import pytest
from pydantic import SecretStr

from tests.uplift.ledger import rows
from uplift.errors import BacklogFull
from uplift.intake.back_pressure import BackPressure
from uplift.ledger.database import Database
from uplift.lifecycle import State
from uplift.sealing import KeyRing
from uplift.settings import Settings


@dataclass
class Clock:
    """A clock that goes when a test moves it."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


async def counted(pressure: BackPressure, clock: Clock) -> None:
    """Let it count again."""
    clock.now += 60
    with suppress(BacklogFull):
        pressure.check()
    await pressure.counted()


async def test_it_refuses_with_so_many_unfinished_and_accepts_when_some_end(
    database: Database, key_ring: KeyRing, own_settings: Settings
) -> None:
    alice = await rows.add_user(database, key_ring)
    clock = Clock()
    three = own_settings.model_copy(update={"max_backlog": 3})
    pressure = BackPressure(database, three, clock=clock)
    ids = [await rows.put(database, alice) for _ in range(2)]
    await rows.bring_to(database, await rows.put(database, alice), State.DELIVERED)
    await counted(pressure, clock)
    pressure.check()
    await rows.put(database, alice)
    await counted(pressure, clock)
    with pytest.raises(BacklogFull, match="3 uploads") as full:
        pressure.check()
    assert full.value.retry_after
    await rows.bring_to(database, ids[0], State.DELIVERED)
    await counted(pressure, clock)
    pressure.check()


async def test_a_ledger_that_does_not_answer_changes_nothing(own_settings: Settings) -> None:
    away = SecretStr("postgresql://u:p@127.0.0.1:1/x")
    database = Database.connect(own_settings.model_copy(update={"database_url": away}))
    clock = Clock()
    pressure = BackPressure(database, own_settings, clock=clock)
    await counted(pressure, clock)
    pressure.check()
    await pressure.close()
    await database.close()
