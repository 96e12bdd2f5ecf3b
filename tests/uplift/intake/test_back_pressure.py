"""While too many uploads wait, nothing more is accepted."""

from contextlib import suppress
from dataclasses import dataclass

import pytest
from pydantic import SecretStr

from tests.uplift.ledger import rows
from uplift.errors import BacklogFull, UserBacklogFull
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
        pressure.check("alice")
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
    pressure.check("alice")
    await rows.put(database, alice)
    await counted(pressure, clock)
    with pytest.raises(BacklogFull, match="UPLIFT_MAX_BACKLOG") as full:
        pressure.check("alice")
    assert full.value.retry_after
    await rows.bring_to(database, ids[0], State.DELIVERED)
    await counted(pressure, clock)
    pressure.check("alice")


async def test_bodies_count_as_well(
    database: Database, key_ring: KeyRing, own_settings: Settings
) -> None:
    alice = await rows.add_user(database, key_ring)
    clock = Clock()
    settings = own_settings.model_copy(update={"max_backlog_bytes": 1000})
    pressure = BackPressure(database, settings, clock=clock)
    await rows.put(database, alice, body_bytes=999)
    await counted(pressure, clock)
    pressure.check("alice")
    await rows.put(database, alice, body_bytes=1)
    await counted(pressure, clock)
    with pytest.raises(BacklogFull):
        pressure.check("alice")


async def test_what_is_parked_fills_nothing_for_others(
    database: Database, key_ring: KeyRing, own_settings: Settings
) -> None:
    alice = await rows.add_user(database, key_ring)
    clock = Clock()
    settings = own_settings.model_copy(update={"max_backlog": 3, "max_user_backlog": 4})
    pressure = BackPressure(database, settings, clock=clock)
    for _ in range(4):
        await rows.bring_to(database, await rows.put(database, alice), State.PARKED)
    await counted(pressure, clock)
    pressure.check("bob")
    with pytest.raises(UserBacklogFull) as full:
        pressure.check("alice")
    assert full.value.retry_after


async def test_a_ledger_that_does_not_answer_changes_nothing(own_settings: Settings) -> None:
    away = SecretStr("postgresql://u:p@127.0.0.1:1/x")
    database = Database.connect(own_settings.model_copy(update={"database_url": away}))
    clock = Clock()
    pressure = BackPressure(database, own_settings, clock=clock)
    await counted(pressure, clock)
    pressure.check("alice")
    await pressure.close()
    await database.close()
