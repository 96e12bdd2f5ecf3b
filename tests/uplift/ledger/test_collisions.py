"""Two records of a user that 1upHealth would keep under one id: exactly one may be sent."""

import asyncio
from uuid import UUID

import pytest

from tests.uplift.ledger import rows
from uplift.ledger import leases, restoring
from uplift.ledger.database import Database
from uplift.ledger.leases import Claim, Outcome
from uplift.ledger.transitions import Change
from uplift.ledger.users import UserRow
from uplift.lifecycle import Reason, State
from uplift.sealing import KeyRing

KEY = b"k" * 32


async def put(database: Database, user: UserRow, key: bytes | None = KEY) -> UUID:
    """The upload of another record with that key."""
    return await rows.put(database, user, upstream_key=key)


async def end(database: Database, claim: Claim, state: State, *, maybe_sent: bool = False) -> None:
    change = Change(
        upload_id=claim.upload_id,
        source=State.SENDING,
        target=state,
        reason=Reason.ID_COLLISION if state is State.REFUSED else None,
        lease_id=claim.lease_id,
        maybe_sent=maybe_sent,
    )
    async with database.transaction() as connection:
        await leases.record(connection, [Outcome(claim=claim, change=change, code="code")])


async def collides(database: Database, upload_id: UUID) -> bool:
    (claim,) = await rows.claim(database, upload_id)
    return claim.collides


async def test_of_two_that_wait_the_first_goes_whichever_is_claimed_first(
    database: Database, alice: UserRow
) -> None:
    first, second = await put(database, alice), await put(database, alice)
    (late,) = await rows.claim(database, second)
    assert late.collides
    # It is not sent, so it does not stand in the other's way.
    assert not (await rows.row(database, second)).maybe_sent
    assert not await collides(database, first)
    assert (await rows.row(database, first)).maybe_sent


async def test_of_two_claimed_together_the_first_goes(database: Database, alice: UserRow) -> None:
    first, second = await put(database, alice), await put(database, alice)
    claims = await rows.claim(database, second, first)
    assert [(claim.upload_id, claim.collides) for claim in claims] == [
        (first, False),
        (second, True),
    ]


async def again(database: Database, user: UserRow, upload_id: UUID) -> UUID:
    """The next version of that upload's record."""
    identity = (await rows.record_of(database, upload_id)).identity
    return await rows.put(database, user, identity=identity, upstream_key=KEY)


async def test_what_was_delivered_is_never_overwritten(database: Database, alice: UserRow) -> None:
    first, second = await put(database, alice), await put(database, alice)
    await rows.bring_to(database, first, State.CANCELLED)
    (claim,) = await rows.claim(database, second)
    assert not claim.collides
    await end(database, claim, State.DELIVERED)
    older = await again(database, alice, first)
    # Neither does it stand back for the older record that waits now.
    assert not await collides(database, await again(database, alice, second))
    assert await collides(database, older)


async def test_the_next_version_of_what_was_delivered_goes(
    database: Database, alice: UserRow
) -> None:
    first = await put(database, alice)
    (claim,) = await rows.claim(database, first)
    await end(database, claim, State.DELIVERED)
    await put(database, alice)
    assert not await collides(database, await again(database, alice, first))


async def test_what_is_on_its_way_goes_before_an_older_record_that_gets_its_id_later(
    database: Database, alice: UserRow
) -> None:
    older = await put(database, alice, None)
    early = await put(database, alice)
    (claim,) = await rows.claim(database, early)
    assert not claim.collides
    assert await collides(database, await again(database, alice, older))
    await rows.bring_to(database, early, State.QUEUED, maybe_sent=True)
    assert not await collides(database, early)


@pytest.mark.parametrize(
    ("state", "maybe_sent", "in_the_way"),
    [
        (State.QUEUED, False, True),
        (State.PARKED, False, True),
        (State.SENDING, True, True),
        (State.REFUSED, False, False),
        (State.REJECTED, False, False),
        (State.CANCELLED, False, False),
        (State.EXPIRED, False, False),
        (State.EXPIRED, True, True),
        (State.REFUSED, True, True),
    ],
)
async def test_what_came_first_is_in_the_way_until_it_ended_without_being_sent(
    database: Database, alice: UserRow, state: State, maybe_sent: bool, in_the_way: bool
) -> None:
    first, second = await put(database, alice), await put(database, alice)
    await rows.bring_to(database, first, state, maybe_sent=maybe_sent)
    assert await collides(database, second) is in_the_way


@pytest.mark.parametrize("state", [State.QUEUED, State.PARKED, State.EXPIRED])
async def test_what_came_second_but_may_be_upstream_is_in_the_way(
    database: Database, alice: UserRow, state: State
) -> None:
    first, second = await put(database, alice), await put(database, alice)
    await rows.bring_to(database, second, state, maybe_sent=True)
    assert await collides(database, first)


async def mark_all(database: Database) -> None:
    async with database.transaction() as connection:
        await restoring.mark_some(connection, after=restoring.FIRST, limit=9, settle_seconds=0.0)


async def test_of_two_that_a_restore_marked_the_first_is_sent(
    database: Database, alice: UserRow
) -> None:
    first, second = await put(database, alice), await put(database, alice)
    await mark_all(database)
    claims = await rows.claim(database, first, second)
    assert [claim.collides for claim in claims] == [False, True]


async def test_what_was_refused_before_a_restore_does_not_block_what_was_delivered(
    database: Database, alice: UserRow
) -> None:
    first, second = await put(database, alice), await put(database, alice)
    (claim,) = await rows.claim(database, first)
    await end(database, claim, State.DELIVERED)
    (claim,) = await rows.claim(database, second)
    await end(database, claim, State.REFUSED)
    await mark_all(database)
    assert not await collides(database, await again(database, alice, first))
    await rows.bring_to(database, second, State.QUEUED)
    assert await collides(database, second)


async def test_what_may_be_upstream_is_looked_for_although_an_older_record_waits(
    database: Database, alice: UserRow
) -> None:
    _, second = await put(database, alice), await put(database, alice)
    await rows.bring_to(database, second, State.QUEUED, maybe_sent=True)
    assert not await collides(database, second)


async def test_other_ids_other_users_and_records_without_an_id_do_not_collide(
    database: Database, alice: UserRow, key_ring: KeyRing
) -> None:
    bob = await rows.add_user(database, key_ring, "bob")
    await put(database, alice)
    await put(database, alice, None)
    for user, key in ((alice, b"other" * 6), (alice, None), (bob, KEY)):
        assert not await collides(database, await put(database, user, key))


async def test_a_setting_lets_them_share_an_id(database: Database, alice: UserRow) -> None:
    ids = [await put(database, alice), await put(database, alice)]
    async with database.transaction() as connection:
        claims = await leases.claim(
            connection,
            ids,
            **rows.terms(lease_seconds=60, give_up_seconds=60, allow_shared_ids=True),
        )
    assert [claim.collides for claim in claims] == [False, False]


async def test_a_record_is_where_its_latest_version_says(
    database: Database, alice: UserRow
) -> None:
    first = await put(database, alice)
    identity = (await rows.record_of(database, first)).identity
    moved = await rows.put(database, alice, identity=identity, upstream_key=b"m" * 32)
    assert (await rows.record_of(database, moved)).upstream_key == b"m" * 32
    second = await put(database, alice)
    assert not await collides(database, second)
    third = await put(database, alice, b"m" * 32)
    assert await collides(database, third)


async def test_a_record_from_before_keys_gets_its_key_when_it_comes_again(
    database: Database, alice: UserRow
) -> None:
    first = await rows.put(database, alice, identity=b"1", digest=b"1")
    again = await rows.put(database, alice, identity=b"1", digest=b"1", upstream_key=KEY)
    assert again == first
    assert (await rows.record_of(database, first)).upstream_key == KEY


async def test_of_two_claimed_at_the_same_time_exactly_one_goes(
    database: Database, alice: UserRow
) -> None:
    for _ in range(10):
        key = rows.new_upload(alice).digest * 2
        pair = [await put(database, alice, key), await put(database, alice, key)]
        claims = await asyncio.gather(*(rows.claim(database, each) for each in pair))
        assert sorted(claim.collides for (claim,) in claims) == [False, True]


async def test_a_claim_waits_for_another_of_the_same_id_and_then_sees_it(
    database: Database, alice: UserRow
) -> None:
    # The second is committed while the first is being claimed by a transaction that cannot see it.
    first = await put(database, alice)
    async with database.transaction() as connection:
        (claim,) = await leases.claim(
            connection, [first], **rows.terms(lease_seconds=60, give_up_seconds=60)
        )
        second = await put(database, alice)
        waiting = asyncio.create_task(rows.claim(database, second))
        await rows.until_locked_out(database)
    ((late,),) = await asyncio.gather(waiting)
    assert (claim.collides, late.collides) == (False, True)
