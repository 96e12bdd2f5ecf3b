"""What a process may send, by what the ledger has heard of it."""

import asyncio
import resource
import time

import pytest
from sqlalchemy import text

from tests.uplift.ledger import rows
from uplift.delivery.heartbeats import Heartbeats
from uplift.errors import HeartbeatMissing
from uplift.ledger import processes
from uplift.ledger.database import Database
from uplift.settings import Settings


class Clock:
    """Seconds that pass only when a test lets them."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def heartbeats(database: Database, ledger_settings: Settings, clock: Clock) -> Heartbeats:
    return Heartbeats(database, ledger_settings, clock=clock)


async def _rows(database: Database) -> list[tuple[bool, bool]]:
    async with database.reading() as connection:
        found = await connection.execute(text("SELECT ended_at, crashed FROM processes"))
        return [(row.ended_at is not None, row.crashed) for row in found]


async def test_a_process_is_in_the_ledger_from_its_first_claim_until_it_says_that_it_ends(
    database: Database, heartbeats: Heartbeats, clock: Clock
) -> None:
    assert not heartbeats.may_send(clock.now)
    await heartbeats.ready()
    assert heartbeats.may_send(clock.now)
    assert await _rows(database) == [(False, False)]
    await heartbeats.close()
    assert await _rows(database) == [(True, False)]


async def test_a_process_that_claims_nothing_is_not_in_the_ledger(
    database: Database, heartbeats: Heartbeats
) -> None:
    await heartbeats.close()
    assert await _rows(database) == []


async def test_ten_seconds_after_its_last_heartbeat_a_process_sends_nothing(
    heartbeats: Heartbeats, clock: Clock
) -> None:
    await heartbeats.ready()
    claimed_at = clock.now
    clock.now += 9.9
    assert heartbeats.may_send(claimed_at)
    clock.now += 0.2
    assert not heartbeats.may_send(claimed_at)
    await heartbeats.close()


async def test_after_a_silence_only_what_is_claimed_from_then_on_may_be_sent(
    heartbeats: Heartbeats, clock: Clock
) -> None:
    await heartbeats.ready()
    before = clock.now
    clock.now += 40
    await heartbeats.ready()
    assert heartbeats.may_send(clock.now)
    # The sweep may have taken it meanwhile.
    assert not heartbeats.may_send(before)
    await heartbeats.close()


async def test_a_process_that_is_noted_as_ended_claims_nothing_more(
    database: Database, heartbeats: Heartbeats, clock: Clock
) -> None:
    await heartbeats.ready()
    await rows.end_process(database, heartbeats.process_id)
    clock.now += 11
    with pytest.raises(HeartbeatMissing):
        await heartbeats.ready()
    assert heartbeats.noted_as_ended
    assert not heartbeats.may_send(clock.now)
    await heartbeats.close()
    assert await _rows(database) == [(True, True)]


async def test_a_name_is_of_one_process_only(database: Database, ledger_settings: Settings) -> None:
    taken = await rows.add_process(database)
    named = ledger_settings.model_copy(update={"process_id": taken})
    heartbeats = Heartbeats(database, named)
    await heartbeats.ready()
    assert heartbeats.process_id != taken
    assert len(await _rows(database)) == 2
    await heartbeats.close()


async def test_a_process_that_claims_nothing_is_heard_of_once_it_begins(
    database: Database, heartbeats: Heartbeats
) -> None:
    heartbeats.begin("api")
    seen: list[processes.Seen] = []
    while not seen:
        await asyncio.sleep(0.01)
        async with database.reading() as connection:
            seen = await processes.living(connection)
    assert [(each.kind, each.lacks_files) for each in seen] == [("api", False)]
    assert abs(seen[0].ahead) < 5
    await heartbeats.close()
    async with database.reading() as connection:
        assert await processes.living(connection) == []


async def test_a_heartbeat_says_that_files_are_missing_and_which_time_the_machine_has(
    database: Database, heartbeats: Heartbeats, clock: Clock
) -> None:
    heartbeats.begin("worker")
    await heartbeats.ready()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        clock.now += 11
        await heartbeats.ready()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    async with database.transaction() as connection:
        (seen,) = await processes.living(connection)
        assert seen.lacks_files
        await processes.beat(
            connection, heartbeats.process_id, kind="worker", machine=time.time() + 86_400
        )
        (seen,) = await processes.living(connection)
    assert not seen.lacks_files
    assert abs(seen.ahead - 86_400) < 5
    await heartbeats.close()


async def test_a_process_that_another_clock_forgot_is_there_again(
    database: Database, heartbeats: Heartbeats, clock: Clock
) -> None:
    await heartbeats.ready()
    async with database.transaction() as connection:
        # PostgreSQL's clock is a day ahead, and another process starts.
        await connection.execute(text("DELETE FROM processes"))
    clock.now += 11
    await heartbeats.ready()
    assert not heartbeats.noted_as_ended
    assert await _rows(database) == [(False, False)]
    await heartbeats.close()


async def test_a_process_of_yesterday_is_forgotten(database: Database) -> None:
    await rows.add_process(database, silent_seconds=90_000)
    other = await rows.add_process(database)
    async with database.transaction() as connection:
        assert await processes.beat(connection, other)
    assert await _rows(database) == [(False, False)]
