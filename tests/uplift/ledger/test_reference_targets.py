"""What records refer to: those of one user and one source, of all who ask at once."""

from tests.uplift.ledger import rows
from uplift.ledger.database import Database
from uplift.ledger.new_uploads import NewUpload
from uplift.ledger.reference_targets import Wanted, find_targets
from uplift.ledger.users import UserRow
from uplift.lifecycle import State
from uplift.sealing import KeyRing

_KEY, _OTHER, _UNKNOWN = b"k" * 32, b"o" * 32, b"u" * 32


async def _put(database: Database, *new: NewUpload) -> None:
    async with database.transaction() as connection:
        await rows.put_in_unread(connection, list(new))


async def test_each_gets_what_it_refers_to_of_its_own_user_and_source(
    database: Database, alice: UserRow, key_ring: KeyRing
) -> None:
    bob = await rows.add_user(database, key_ring, "bob")
    of_alice = rows.new_upload(alice, upstream_key=_KEY)
    of_bob = rows.new_upload(bob, upstream_key=_KEY)
    of_another_source = rows.new_upload(alice, upstream_key=_OTHER, source_key=b"s" * 32)
    asking = [rows.new_upload(user) for user in (alice, bob)]
    await _put(database, of_alice, of_bob, of_another_source, *asking)
    await rows.bring_to(database, of_bob.id, State.DELIVERED)
    async with database.reading() as connection:
        first, second, nothing = await find_targets(
            connection,
            [
                Wanted(asking[0].record_id, "oneup", (_KEY, _OTHER, _UNKNOWN)),
                Wanted(asking[1].record_id, "oneup", (_KEY,)),
                Wanted(asking[0].record_id, "oneup", (_UNKNOWN,)),
            ],
        )
    assert [(each.key, each.record_id, each.unfinished) for each in first] == [
        (_KEY, of_alice.record_id, True)
    ]
    assert [(each.key, each.record_id, each.unfinished) for each in second] == [
        (_KEY, of_bob.record_id, False)
    ]
    assert nothing == []


async def test_another_destination_has_its_own_deliveries(
    database: Database, alice: UserRow
) -> None:
    target, asking = rows.new_upload(alice, upstream_key=_KEY), rows.new_upload(alice)
    await _put(database, target, asking)
    wanted = [Wanted(asking.record_id, name, (_KEY,)) for name in ("oneup", "other")]
    async with database.reading() as connection:
        [[here], [there]] = await find_targets(connection, wanted)
    assert (here.unfinished, there.unfinished) == (True, False)
