"""Two labels turn out to be names of one source: what collided under them is tried again."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.uplift.ledger import rows
from tests.uplift.ledger.test_joining import OTHER_PLACE, Put, end, put_in, records, states
from uplift.ledger.database import Database
from uplift.ledger.users import UserRow
from uplift.lifecycle import Reason, State
from uplift.maintenance.retry_collisions import CollisionRetrier
from uplift.sealing import KeyRing
from uplift.watermark import NO_TIMES, Times


@pytest.fixture
async def alice(database: Database, key_ring: KeyRing) -> UserRow:
    return await rows.add_user(database, key_ring)


@pytest.fixture
def retrier(database: Database, key_ring: KeyRing) -> CollisionRetrier:
    return CollisionRetrier(database, key_ring)


def day(number: int) -> Times:
    return Times(updated=datetime(2026, 1, number, tzinfo=UTC))


@pytest.fixture
def put(database: Database, alice: UserRow, key_ring: KeyRing) -> Put:
    """Puts in some content of one place, from a source, updated at some time."""
    key = alice.key(key_ring)

    async def put(
        content: str, source: str, times: Times = NO_TIMES, *, place: bytes = OTHER_PLACE
    ) -> tuple[UUID, bool]:
        new = rows.new_upload(
            alice,
            identity=f"{source} {place.hex()}".encode(),
            digest=content.encode(),
            upstream_key=place,
            source_key=source.encode(),
            key=key,
            times=times,
        )
        (kept,) = await put_in(database, [new])
        return kept

    return put


async def collided(database: Database, put: Put, *times: Any) -> tuple[UUID, UUID]:
    """One that was delivered, and one of a new label that was refused because of it."""
    first, _ = await put("c", "old", *times[:1])
    await end(database, first)
    second, _ = await put("d", "new", *times[1:])
    await end(database, second, State.REFUSED)
    return first, second


async def learn(put: Put) -> None:
    """The same content of another record says that both labels are names of one source."""
    place = b"a third place".ljust(32, b"\0")
    await put("x", "old", place=place)
    assert (await put("x", "new", place=place))[1]


async def test_what_was_refused_is_the_next_version_of_what_was_delivered(
    database: Database, put: Put, retrier: CollisionRetrier
) -> None:
    first, second = await collided(database, put)
    assert await retrier.retry() == 0
    await learn(put)
    assert await retrier.retry() == 1
    assert await retrier.retry() == 0
    row = await rows.row(database, second)
    assert (row.state, row.reason, row.version) == (State.QUEUED, Reason.REDRIVEN, 2)
    assert row.record_id == (await rows.row(database, first)).record_id
    (claim,) = await rows.claim(database, second)
    assert not claim.collides
    assert await put("d", "new") == (second, True)
    assert await put("d", "old") == (second, True)
    assert len(await records(database)) == 2


@pytest.mark.parametrize(
    ("delivered", "refused", "expected"),
    [
        (2, 1, (State.SUPERSEDED, Reason.OLDER_VERSION)),
        (1, 2, (State.QUEUED, Reason.REDRIVEN)),
        (1, 1, (State.QUEUED, Reason.REDRIVEN)),
    ],
)
async def test_what_is_older_turns_nothing_back(
    database: Database,
    put: Put,
    retrier: CollisionRetrier,
    delivered: int,
    refused: int,
    expected: tuple[str, str],
) -> None:
    _, second = await collided(database, put, day(delivered), day(refused))
    await learn(put)
    await retrier.retry()
    assert await states(database, second) == [expected]


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        (NO_TIMES, (State.SUPERSEDED, Reason.NEWER_VERSION)),
        (day(3), (State.SUPERSEDED, Reason.OLDER_VERSION)),
        (day(1), (State.QUEUED, Reason.REDRIVEN)),
    ],
)
async def test_of_what_came_since_the_newer_counts(
    database: Database,
    put: Put,
    retrier: CollisionRetrier,
    later: Times,
    expected: tuple[str, str],
) -> None:
    _, second = await collided(database, put, NO_TIMES, day(2))
    update, _ = await put("c2", "old", later)
    await learn(put)
    await retrier.retry()
    assert await states(database, second) == [expected]
    sent = (await rows.row(database, update)).state == State.QUEUED
    assert sent is (expected[0] == State.SUPERSEDED)


async def test_the_watermark_moves_with_it(
    database: Database, put: Put, retrier: CollisionRetrier
) -> None:
    _, second = await collided(database, put, day(1), day(4))
    await learn(put)
    await retrier.retry()
    late, _ = await put("e", "old", day(3))
    assert await states(database, second, late) == [
        (State.QUEUED, Reason.REDRIVEN),
        (State.SUPERSEDED, Reason.OLDER_VERSION),
    ]


async def test_many_are_tried_again_in_portions(
    database: Database, put: Put, retrier: CollisionRetrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uplift.maintenance.retry_collisions._MAX_PAIRS", 2)
    for number in range(5):
        place = b"%032d" % number
        first, _ = await put("c", "old", place=place)
        await end(database, first)
        second, _ = await put("d", "new", place=place)
        await end(database, second, State.REFUSED)
    await learn(put)
    assert await retrier.retry() == 5
    assert await retrier.retry() == 0


@pytest.mark.parametrize("state", [State.QUEUED, State.PARKED])
async def test_of_two_that_wait_the_newer_is_sent(
    database: Database, put: Put, retrier: CollisionRetrier, state: State
) -> None:
    first, _ = await put("c", "old")
    second, _ = await put("d", "new")
    await rows.bring_to(database, second, state)
    await learn(put)
    assert await retrier.retry() == 1
    assert await states(database, first, second) == [
        (State.SUPERSEDED, Reason.NEWER_VERSION),
        (state, Reason.NEW),
    ]
    assert (await rows.row(database, second)).version == 2


async def test_content_that_comes_before_the_retry_is_compared_with_what_collided(
    database: Database, put: Put, retrier: CollisionRetrier
) -> None:
    _, second = await collided(database, put, day(1), day(5))
    await learn(put)
    late, _ = await put("e", "new", day(3))
    assert await states(database, second, late) == [
        (State.QUEUED, Reason.REDRIVEN),
        (State.SUPERSEDED, Reason.OLDER_VERSION),
    ]


async def test_a_user_whose_key_does_not_open_or_who_is_being_erased_is_passed_over(
    database: Database, put: Put, retrier: CollisionRetrier
) -> None:
    await collided(database, put)
    await learn(put)
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE users SET wrapped_key = 'x'"))
    assert await retrier.retry() == 0
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE users SET wrapped_key = NULL, erased_at = now()"))
    assert await retrier.retry() == 0
