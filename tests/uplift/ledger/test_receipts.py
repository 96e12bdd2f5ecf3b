"""An id that a destination assigns is the receipt of one record of a user."""

import asyncio
from uuid import UUID

from msgspec import structs

from tests.uplift.ledger import rows
from tests.uplift.ledger.test_leases import ended
from uplift.identity import receipt_key
from uplift.ledger import leases, receipts
from uplift.ledger.database import Database
from uplift.ledger.leases import Claim, Outcome
from uplift.ledger.users import UserRow
from uplift.lifecycle import Reason, State
from uplift.sealing import KeyRing

KEY, OTHER_KEY = bytes(32), bytes(range(32))


def stored(claim: Claim, key: bytes | None = KEY, *, assigned: bool = True) -> Outcome:
    """The claimed upload is stored under an id with that key."""
    taken = ended(claim, State.QUEUED, reason=Reason.SETTLING, maybe_sent=True)
    return structs.replace(
        ended(claim, record_receipt=b"receipt"),
        receipt_key=key,
        if_taken=(lambda: taken) if assigned else None,
    )


async def record(database: Database, *outcomes: Outcome) -> list[State]:
    """Record them in one transaction; the states that they came to."""
    async with database.transaction() as connection:
        true = await receipts.without_taken(connection, outcomes)
        await leases.record(connection, true)
    return [each.change.target for each in true]


async def claims(database: Database, user: UserRow, count: int) -> list[Claim]:
    ids = [await rows.put(database, user) for _ in range(count)]
    return await rows.claim(database, *ids)


async def state(database: Database, upload_id: UUID) -> str:
    return str((await rows.row(database, upload_id)).state)


async def test_an_id_that_is_another_records_receipt_is_no_receipt(
    database: Database, alice: UserRow
) -> None:
    first, second, third = await claims(database, alice, 3)
    assert await record(database, stored(first)) == [State.DELIVERED]
    assert await record(database, stored(second), stored(third, OTHER_KEY)) == [
        State.QUEUED,
        State.DELIVERED,
    ]
    assert await state(database, second.upload_id) == "queued"


async def test_a_record_may_get_its_own_id_again(database: Database, alice: UserRow) -> None:
    (first,) = await claims(database, alice, 1)
    await record(database, stored(first))
    identity = (await rows.record_of(database, first.upload_id)).identity
    update = await rows.put(database, alice, identity=identity, digest=b"new content")
    (second,) = await rows.claim(database, update)
    assert second.record_id == first.record_id
    assert await record(database, stored(second)) == [State.DELIVERED]


async def test_another_user_may_have_the_same_id(
    database: Database, alice: UserRow, key_ring: KeyRing
) -> None:
    bob = await rows.add_user(database, key_ring, "bob")
    ends = []
    for user in (alice, bob):
        (claim,) = await claims(database, user, 1)
        key = receipt_key(
            user.key(key_ring).identity_key,
            fhir_version="R4",
            resource_type="Observation",
            resource_id="1",
        )
        ends += await record(database, stored(claim, key))
    assert ends == [State.DELIVERED] * 2


async def test_an_id_that_was_known_beforehand_is_not_asked_about(
    database: Database, alice: UserRow
) -> None:
    first, second, third = await claims(database, alice, 3)
    await record(database, stored(first, assigned=False))
    assert await record(database, stored(second, assigned=False), stored(third, None)) == [
        State.DELIVERED,
        State.DELIVERED,
    ]


async def test_one_of_two_records_in_a_group_gets_the_id(
    database: Database, alice: UserRow
) -> None:
    first, second = await claims(database, alice, 2)
    assert await record(database, stored(first), stored(second)) == [
        State.DELIVERED,
        State.QUEUED,
    ]


async def test_one_of_two_records_at_once_gets_the_id(database: Database, alice: UserRow) -> None:
    several = await claims(database, alice, 8)
    ends = await asyncio.gather(*(record(database, stored(claim)) for claim in several))
    assert sorted(end for (end,) in ends) == sorted([State.DELIVERED, *[State.QUEUED] * 7])
