"""Versions of a record where no look-up is needed: none of unknown outcome is sent again late."""

import time
from uuid import UUID

import pytest
from msgspec import structs
from sqlalchemy import text

from tests.uplift.ledger import rows
from tests.uplift.ledger.test_leases import ended
from uplift.ledger import destinations, leases
from uplift.ledger.database import Database
from uplift.ledger.leases import Claim, Outcome
from uplift.ledger.users import UserRow, add_user
from uplift.lifecycle import Reason, State
from uplift.sealing import KeyRing

SETTLE_SECONDS = 60.0


@pytest.fixture
async def bob(database: Database, key_ring: KeyRing) -> UserRow:
    """A user whose records go to a server where Uplift derives ids."""
    async with database.transaction() as connection:
        await destinations.note_new(
            connection, {"hapi": {"mode": "put"}, "oneup": {"mode": "oneup"}}
        )
        return await add_user(connection, "bob", key_ring, destination="hapi")


async def record(database: Database, *outcomes: Outcome) -> None:
    async with database.transaction() as connection:
        await leases.record(connection, outcomes, settle_seconds=SETTLE_SECONDS)


def unknown(claim: Claim, *, may_be_late: bool = True) -> Outcome:
    """It was sent, and nobody knows whether it was stored."""
    outcome = ended(claim, State.QUEUED, reason=Reason.RETRY, maybe_sent=True)
    return structs.replace(outcome, may_be_late=may_be_late)


async def state(database: Database, upload_id: UUID) -> tuple[str, str | None, bool]:
    row = await rows.row(database, upload_id)
    return row.state, row.reason, row.maybe_sent


async def had_time(database: Database) -> None:
    """What may be stored late has had its time to arrive."""
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE deliveries SET in_doubt_until = now()"))


SUPERSEDED = ("superseded", "newer_version", True)


async def test_a_ledger_a_day_ahead_knows_still_what_may_be_stored_late(
    database: Database, bob: UserRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await rows.put(database, bob, identity=b"i")
    (claim,) = await rows.claim(database, first)
    await record(database, unknown(claim))
    second = await rows.put(database, bob, identity=b"i")
    # 25 hours: no test turns PostgreSQL's clock, so it turns all others back.
    async with database.transaction() as connection:
        await connection.execute(
            text("UPDATE deliveries SET in_doubt_until = in_doubt_until - interval '25 hours'")
        )
    behind = time.time() - 25 * 3600
    monkeypatch.setattr(time, "time", lambda: behind)
    assert await rows.claim(database, second) == []  # the older one may arrive
    monkeypatch.setattr(time, "time", lambda: behind + 2 * SETTLE_SECONDS)
    (_,) = await rows.claim(database, second)
    assert (await rows.row(database, second)).maybe_overwritten


async def test_what_is_noted_while_the_ledger_is_a_day_ahead_is_waited_for_no_longer(
    database: Database, bob: UserRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await rows.put(database, bob, identity=b"i")
    (claim,) = await rows.claim(database, first)
    behind = time.time() - 25 * 3600
    monkeypatch.setattr(time, "time", lambda: behind)
    await record(database, unknown(claim))
    second = await rows.put(database, bob, identity=b"i")
    monkeypatch.setattr(time, "time", lambda: behind + 2 * SETTLE_SECONDS)
    (_,) = await rows.claim(database, second)
    assert (await rows.row(database, second)).maybe_overwritten


async def test_the_same_version_is_sent_again_at_once(database: Database, bob: UserRow) -> None:
    first = await rows.put(database, bob)
    (claim,) = await rows.claim(database, first)
    await record(database, unknown(claim))
    (again,) = await rows.claim(database, first)
    assert again.maybe_sent
    assert not (await rows.row(database, first)).maybe_overwritten


async def test_a_version_of_unknown_outcome_ends_when_a_newer_one_is_accepted(
    database: Database, bob: UserRow
) -> None:
    first = await rows.put(database, bob, identity=b"i")
    (claim,) = await rows.claim(database, first)
    await record(database, unknown(claim))
    second = await rows.put(database, bob, identity=b"i")
    assert await state(database, first) == SUPERSEDED
    # The older one may arrive until then.
    assert await rows.claim(database, second) == []
    await had_time(database)
    (claim,) = await rows.claim(database, second)
    assert claim.older_in_doubt
    assert (await rows.row(database, second)).maybe_overwritten


async def test_one_that_is_being_sent_when_a_newer_one_is_accepted_is_not_sent_again(
    database: Database, bob: UserRow
) -> None:
    first = await rows.put(database, bob, identity=b"i")
    (claim,) = await rows.claim(database, first)
    second = await rows.put(database, bob, identity=b"i")
    await record(database, unknown(claim))
    assert await state(database, first) == SUPERSEDED
    assert await rows.claim(database, second) == []


async def test_one_whose_worker_vanished_is_not_sent_again_after_a_newer_one(
    database: Database, bob: UserRow
) -> None:
    first = await rows.put(database, bob, identity=b"i")
    await rows.claim(database, first, lease_seconds=0.0)
    second = await rows.put(database, bob, identity=b"i")
    async with database.transaction() as connection:
        await rows.take_abandoned(connection, settle_seconds=SETTLE_SECONDS)
    assert await state(database, first) == SUPERSEDED
    assert await rows.claim(database, second) == []


async def test_a_newer_one_that_is_accepted_just_then_is_seen_by_the_next_claim(
    database: Database, bob: UserRow
) -> None:
    first = await rows.put(database, bob, identity=b"i")
    await rows.claim(database, first)
    second = await rows.put(database, bob, identity=b"i")
    await rows.bring_to(database, first, State.QUEUED, maybe_sent=True)
    assert await rows.claim(database, first) == []
    assert await state(database, first) == SUPERSEDED
    assert len(await rows.claim(database, second)) == 1


async def test_a_precondition_makes_waiting_and_the_mark_needless(
    database: Database, bob: UserRow
) -> None:
    first = await rows.put(database, bob, identity=b"i")
    (claim,) = await rows.claim(database, first)
    await record(database, unknown(claim, may_be_late=False))
    second = await rows.put(database, bob, identity=b"i")
    assert len(await rows.claim(database, second)) == 1
    assert not (await rows.row(database, second)).maybe_overwritten


async def test_after_it_is_delivered_in_a_second_send_the_first_may_still_arrive(
    database: Database, bob: UserRow
) -> None:
    first = await rows.put(database, bob, identity=b"i")
    (claim,) = await rows.claim(database, first)
    await record(database, unknown(claim))
    (claim,) = await rows.claim(database, first)
    await record(database, ended(claim, record_receipt=b"receipt"))
    second = await rows.put(database, bob, identity=b"i")
    assert await rows.claim(database, second) == []
    await had_time(database)
    (claim,) = await rows.claim(database, second)
    assert claim.record_receipt == b"receipt"
    assert (await rows.row(database, second)).maybe_overwritten


async def test_at_1uphealth_it_is_looked_up_and_ends_first(
    database: Database, key_ring: KeyRing, bob: UserRow
) -> None:
    alice = await rows.add_user(database, key_ring)
    first = await rows.put(database, alice, identity=b"i")
    (claim,) = await rows.claim(database, first)
    second = await rows.put(database, alice, identity=b"i")
    await record(database, unknown(claim))
    assert await state(database, first) == ("queued", "retry", True)
    assert await rows.claim(database, second) == []
    assert await rows.delivery_of(database, first) is None


async def test_after_a_restore_the_first_send_of_each_record_reads_first(
    database: Database, bob: UserRow
) -> None:
    delivered, fresh = [await rows.put(database, bob, identity=each) for each in (b"1", b"2")]
    (claim,) = await rows.claim(database, delivered)
    await record(database, ended(claim, record_receipt=b"receipt"))
    async with database.transaction() as connection:
        await connection.execute(
            text("INSERT INTO restores (since, look_until) VALUES (now(), now())")
        )
    newer = await rows.put(database, bob, identity=b"1")
    claims = {claim.upload_id: claim for claim in await rows.claim(database, newer, fresh)}
    assert [claims[id_].read_first for id_ in (newer, fresh)] == [True, True]
    await record(database, *(ended(claim, record_receipt=b"new") for claim in claims.values()))
    after = [await rows.put(database, bob, identity=each) for each in (b"1", b"3")]
    assert [claim.read_first for claim in await rows.claim(database, *after)] == [False, False]


async def test_a_second_send_of_a_vanished_worker_makes_no_copy(
    database: Database, bob: UserRow
) -> None:
    upload_id = await rows.put(database, bob)
    for _ in range(2):
        await rows.claim(database, upload_id, lease_seconds=0.0)
        async with database.transaction() as connection:
            await rows.take_abandoned(connection)
    assert not (await rows.row(database, upload_id)).possible_duplicate
