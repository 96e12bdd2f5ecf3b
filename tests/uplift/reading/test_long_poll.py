"""Waiting for an upload to change."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, event, text

from tests.uplift.ledger import rows
from uplift.ledger import uploads
from uplift.ledger.database import Database
from uplift.ledger.uploads import UploadRow
from uplift.ledger.users import UserRow
from uplift.lifecycle import State
from uplift.reading.long_poll import LongPoll
from uplift.sealing import KeyRing


@pytest.fixture
async def alice(database: Database, key_ring: KeyRing) -> UserRow:
    return await rows.add_user(database, key_ring)


@pytest.fixture
async def long_poll(database: Database) -> AsyncIterator[LongPoll]:
    opened = LongPoll(database)
    yield opened
    await opened.close()


async def read(database: Database, upload_id: UUID) -> UploadRow:
    async with database.transaction() as connection:
        return (await uploads.get_uploads(connection, [upload_id]))[upload_id]


async def park(database: Database, upload_id: UUID) -> None:
    async with database.transaction() as connection:
        await connection.execute(
            text(
                "UPDATE uploads SET state = 'parked', next_attempt_at = NULL,"
                " revision = revision + 1 WHERE id = :id"
            ),
            {"id": upload_id},
        )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  it happens in the task that polls
            await asyncio.sleep(0.01)


def at_rest(row: UploadRow) -> bool:
    return not row.state.in_progress


async def test_a_change_ends_the_wait(
    database: Database, long_poll: LongPoll, alice: UserRow
) -> None:
    row = await read(database, await rows.put(database, alice))
    waiting = asyncio.create_task(long_poll.wait(row, at_rest, 30))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await park(database, row.id)
    async with asyncio.timeout(10):
        seen = await waiting
    assert (seen.state, seen.revision) == (State.PARKED, 2)


async def test_a_wait_for_what_is_so_already_ends_at_once(
    database: Database, long_poll: LongPoll, alice: UserRow
) -> None:
    row = await read(database, await rows.put(database, alice))
    async with asyncio.timeout(5):
        assert await long_poll.wait(row, lambda _: True, 30) == row


async def test_a_change_before_the_wait_began_is_not_missed(
    database: Database, long_poll: LongPoll, alice: UserRow
) -> None:
    row = await read(database, await rows.put(database, alice))
    await park(database, row.id)
    async with asyncio.timeout(10):
        assert (await long_poll.wait(row, at_rest, 30)).state is State.PARKED


async def test_a_change_that_others_have_seen_before_the_wait_began_is_not_missed(
    database: Database, long_poll: LongPoll, alice: UserRow
) -> None:
    stale = await read(database, await rows.put(database, alice))
    await park(database, stale.id)
    fresh = await read(database, stale.id)
    other = asyncio.create_task(long_poll.wait(fresh, lambda _: False, 1))
    await asyncio.sleep(0.05)
    async with asyncio.timeout(10):
        assert (await long_poll.wait(stale, at_rest, 30)).state is State.PARKED
    await other


async def test_a_change_to_something_else_does_not_end_the_wait(
    database: Database, long_poll: LongPoll, alice: UserRow
) -> None:
    row = await read(database, await rows.put(database, alice))
    seen: list[State] = []

    def has_ended(row: UploadRow) -> bool:
        seen.append(row.state)
        return row.state.final

    waiting = asyncio.create_task(long_poll.wait(row, has_ended, 30))
    await until(lambda: seen == [State.QUEUED])
    (claim,) = await rows.claim(database, row.id)
    await until(lambda: seen == [State.QUEUED, State.SENDING])
    assert not waiting.done()
    await rows.bring_to(database, row.id, State.DELIVERED, revision=3)
    async with asyncio.timeout(10):
        assert (await waiting).state is State.DELIVERED
    assert claim.upload_id == row.id


async def test_when_the_time_is_up_the_wait_ends_with_the_upload_as_it_is_now(
    database: Database, long_poll: LongPoll, alice: UserRow
) -> None:
    row = await read(database, await rows.put(database, alice))
    waiting = asyncio.create_task(long_poll.wait(row, lambda _: False, 0.1))
    await rows.claim(database, row.id)
    seen = await waiting
    assert (seen.state, seen.revision) == (State.SENDING, 2)


async def test_many_that_wait_share_one_query(
    database: Database, long_poll: LongPoll, alice: UserRow
) -> None:
    found = [await read(database, await rows.put(database, alice)) for _ in range(5)]
    asked: list[int] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if "revision" in statement and "FROM uploads" in statement:
            asked.append(len(parameters["ids"]))

    waiting = [asyncio.create_task(long_poll.wait(row, at_rest, 30)) for row in found * 10]
    await asyncio.sleep(0)
    event.listen(Engine, "before_cursor_execute", note)
    await until(lambda: asked != [])
    assert asked == [5]
    event.remove(Engine, "before_cursor_execute", note)
    for row in found:
        await park(database, row.id)
    async with asyncio.timeout(20):
        assert {row.id for row in await asyncio.gather(*waiting)} == {row.id for row in found}


async def test_nothing_is_kept_of_waits_that_ended_or_were_cancelled(
    database: Database, long_poll: LongPoll, alice: UserRow
) -> None:
    row = await read(database, await rows.put(database, alice))
    cancelled = asyncio.create_task(long_poll.wait(row, at_rest, 30))
    await long_poll.wait(row, lambda _: False, 0.01)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    await until(lambda: "long poll" not in {task.get_name() for task in asyncio.all_tasks()})
    await park(database, row.id)
    async with asyncio.timeout(10):
        assert (await long_poll.wait(row, at_rest, 30)).state is State.PARKED


async def test_a_database_that_was_away_is_asked_again(
    database: Database, long_poll: LongPoll, alice: UserRow
) -> None:
    row = await read(database, await rows.put(database, alice))
    failures = 0

    def fail(*_: Any) -> None:
        nonlocal failures
        failures += 1
        raise ConnectionError

    event.listen(Engine, "before_cursor_execute", fail)
    waiting = asyncio.create_task(long_poll.wait(row, at_rest, 30))
    await until(lambda: failures >= 2)
    event.remove(Engine, "before_cursor_execute", fail)
    await park(database, row.id)
    async with asyncio.timeout(10):
        assert (await waiting).state is State.PARKED


async def test_release_gives_all_that_wait_the_upload_as_it_is(
    database: Database, long_poll: LongPoll, alice: UserRow
) -> None:
    row = await read(database, await rows.put(database, alice))
    waiting = asyncio.create_task(long_poll.wait(row, at_rest, 30))
    await asyncio.sleep(0.05)
    long_poll.release()
    async with asyncio.timeout(5):
        assert (await waiting).state is State.QUEUED
        assert (await long_poll.wait(row, at_rest, 30)).state is State.QUEUED


async def test_closing_without_a_wait_is_nothing(database: Database) -> None:
    await LongPoll(database).close()
