"""What comes late: an older version never takes the place of a newer one."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.uplift.ledger import rows
from uplift.ledger import accepting, dead_letters, leases, restoring
from uplift.ledger.audit import SYSTEM
from uplift.ledger.database import Database
from uplift.ledger.leases import Outcome
from uplift.ledger.transitions import Change
from uplift.ledger.users import UserRow
from uplift.lifecycle import Reason, State
from uplift.sealing import KeyRing
from uplift.watermark import Times

Put = Callable[..., Awaitable[tuple[UUID, bool]]]


def day(number: int, **more: Any) -> Times:
    return Times(updated=datetime(2026, 1, number, tzinfo=UTC), **more)


@pytest.fixture
def put(database: Database, alice: UserRow, key_ring: KeyRing) -> Put:
    """Puts a version of one record in: its content, and when it was updated."""
    key = alice.key(key_ring)

    async def put(content: str, times: Times, *, force: bool = False) -> tuple[UUID, bool]:
        new = rows.new_upload(
            alice, identity=b"one", digest=content.encode(), key=key, times=times, force=force
        )
        async with database.transaction() as connection:
            (kept,) = await rows.put_in_unread(connection, [new])
        return kept

    return put


async def deliver(database: Database, upload_id: UUID) -> None:
    (claim,) = await rows.claim(database, upload_id)
    change = Change(
        upload_id=upload_id,
        source=State.SENDING,
        target=State.DELIVERED,
        lease_id=claim.lease_id,
        maybe_sent=False,
    )
    async with database.transaction() as connection:
        await leases.record(connection, [Outcome(claim=claim, change=change, code="stored")])


async def state(database: Database, upload_id: UUID) -> tuple[str, str | None]:
    row = await rows.row(database, upload_id)
    return row.state, row.reason


LATE = (State.SUPERSEDED, Reason.OLDER_VERSION)


async def test_an_older_version_ends_at_once_and_leaves_the_newer_one_in_its_place(
    database: Database, put: Put
) -> None:
    newer, _ = await put("new", day(2))
    older, duplicate = await put("old", day(1))
    assert not duplicate
    assert await state(database, older) == LATE
    assert (await rows.row(database, older)).sealed_body is None
    assert await state(database, newer) == (State.QUEUED, Reason.NEW)
    assert await put("new", day(2)) == (newer, True)
    assert await put("old", day(1)) == (older, True)


async def test_an_old_export_pushed_after_the_sync_turns_nothing_back(
    database: Database, put: Put
) -> None:
    first, _ = await put("old", day(1))
    await deliver(database, first)
    second, _ = await put("new", day(2))
    await deliver(database, second)
    again, _ = await put("old", day(1))
    assert await state(database, again) == LATE
    third, _ = await put("newest", day(3))
    assert await state(database, third) == (State.QUEUED, Reason.NEW)


@pytest.mark.parametrize("times", [day(2), Times(), day(1, server="t")])
async def test_what_cannot_be_compared_counts_in_the_order_of_its_arrival(
    database: Database, put: Put, times: Times
) -> None:
    first, _ = await put("one", day(2, server="s"))
    second, _ = await put("other", times)
    assert await state(database, first) == (State.SUPERSEDED, Reason.NEWER_VERSION)
    assert await state(database, second) == (State.QUEUED, Reason.NEW)


async def test_force_lets_an_older_version_take_the_place(database: Database, put: Put) -> None:
    first, _ = await put("new", day(2))
    second, _ = await put("old", day(1), force=True)
    assert await state(database, first) == (State.SUPERSEDED, Reason.NEWER_VERSION)
    assert await state(database, second) == (State.QUEUED, Reason.NEW)


async def test_a_duplicate_moves_the_watermark_forward(database: Database, put: Put) -> None:
    first, _ = await put("one", day(1))
    assert await put("one", day(5)) == (first, True)
    assert await put("one", day(2)) == (first, True)
    between, _ = await put("other", day(4))
    assert await state(database, between) == LATE


async def test_what_went_back_to_what_was_delivered_moves_it_too(
    database: Database, put: Put
) -> None:
    first, _ = await put("one", day(1))
    await deliver(database, first)
    second, _ = await put("other", day(2))
    assert await put("one", day(3)) == (first, True)
    assert await state(database, second) == (State.SUPERSEDED, Reason.NEWER_VERSION)
    late, _ = await put("other", day(2))
    assert await state(database, late) == LATE


@pytest.mark.parametrize("end", [State.REJECTED, State.REFUSED, State.EXPIRED, State.CANCELLED])
@pytest.mark.parametrize("maybe_sent", [False, True])
async def test_a_version_that_ended_undelivered_counts_only_if_it_may_be_there(
    database: Database, put: Put, end: State, maybe_sent: bool
) -> None:
    first, _ = await put("new", day(2))
    await rows.bring_to(database, first, end, maybe_sent=maybe_sent)
    second, _ = await put("old", day(1))
    expected = LATE if maybe_sent else (State.QUEUED, Reason.NEW)
    assert await state(database, second) == expected


async def test_a_dead_letter_that_is_redriven_counts_again(database: Database, put: Put) -> None:
    first, _ = await put("one", day(3))
    await rows.bring_to(database, first, State.REJECTED)
    second, _ = await put("two", day(1))
    await rows.bring_to(database, second, State.CANCELLED)
    async with database.transaction() as connection:
        await dead_letters.redrive(connection, [first], settle_seconds=0, by=SYSTEM)
    third, _ = await put("three", day(2))
    assert await state(database, third) == LATE


async def test_what_was_delivered_and_thinned_out_still_counts(
    database: Database, put: Put
) -> None:
    first, _ = await put("new", day(2))
    await deliver(database, first)
    async with database.transaction() as connection:
        await connection.execute(text("DELETE FROM attempts"))
        await connection.execute(text("DELETE FROM uploads"))
    second, _ = await put("old", day(1))
    assert await state(database, second) == LATE
    assert (await rows.record_of(database, second)).latest_upload_id == first


async def test_versions_in_one_group_are_judged_one_after_the_other(
    database: Database, alice: UserRow, key_ring: KeyRing
) -> None:
    def new(content: bytes, number: int) -> Any:
        return rows.new_upload(
            alice,
            identity=b"one",
            digest=content,
            key=alice.key(key_ring),
            times=day(number),
        )

    group = [new(b"a", 1), new(b"a", 3), new(b"b", 2), new(b"c", 4)]
    async with database.transaction() as connection:
        owners = {alice.id: alice}
        kept = await accepting.put_in(connection, group, owners)
    shown = [(each[0].state, each[0].reason, each[1]) for each in kept if each]
    assert shown == [
        (State.SUPERSEDED, Reason.NEWER_VERSION, False),
        (State.SUPERSEDED, Reason.NEWER_VERSION, True),
        (*LATE, False),
        (State.QUEUED, Reason.NEW, False),
    ]


async def test_a_late_version_stays_late_while_everything_is_looked_up(
    database: Database, put: Put
) -> None:
    async with database.transaction() as connection:
        await restoring.note_restore(
            connection, datetime.now(UTC) - timedelta(days=1), look_seconds=600, settle_seconds=0
        )
    await put("new", day(2))
    older, _ = await put("old", day(1))
    assert await state(database, older) == LATE


async def test_a_watermark_that_does_not_open_is_none(database: Database, put: Put) -> None:
    await put("new", day(2))
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE records SET sealed_watermark = 'x'"))
    second, _ = await put("old", day(1))
    assert await state(database, second) == (State.QUEUED, Reason.NEW)


async def test_times_are_sealed_in_the_ledger(database: Database, put: Put) -> None:
    upload_id, _ = await put("new", day(2))
    sealed = (await rows.record_of(database, upload_id)).sealed_watermark
    assert sealed is not None
    assert b"2026" not in sealed
