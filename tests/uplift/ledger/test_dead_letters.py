"""Redriving in the ledger: what is queued, superseded or left, and two at once."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from uuid_utils.compat import uuid4

from tests.uplift.ledger import rows
from uplift.ledger import audit, dead_letters, leases
from uplift.ledger.audit import SYSTEM
from uplift.ledger.database import Database
from uplift.ledger.dead_letters import Left, Redriven
from uplift.ledger.filters import Filter
from uplift.ledger.leases import Outcome
from uplift.ledger.new_uploads import NewUpload
from uplift.ledger.transitions import Change
from uplift.ledger.users import UserRow
from uplift.lifecycle import DEAD_LETTERS, Reason, State
from uplift.queues import BULK, UPLOADS
from uplift.sealing import KeyRing

_SETTLE = 60.0


async def redrive(database: Database, *ids: UUID) -> Redriven:
    async with database.transaction() as connection:
        return await dead_letters.redrive(connection, ids, settle_seconds=_SETTLE, by=SYSTEM)


async def noted(database: Database) -> list[UUID | None]:
    async with database.transaction() as connection:
        events = await audit.list_events(connection)
    return [event.upload_id for event in events if event.action == "upload_redriven"]


async def dead(
    database: Database, alice: UserRow, state: State = State.EXPIRED, **more: Any
) -> UUID:
    """A dead letter; of a record of its own unless `identity` says which."""
    columns = more.pop("columns", {})
    upload_id = await rows.put(database, alice, **more)
    await rows.bring_to(database, upload_id, state, **columns)
    return upload_id


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


async def state_of(database: Database, upload_id: UUID) -> tuple[str, str | None]:
    row = await rows.row(database, upload_id)
    return row.state, row.reason


@pytest.mark.parametrize("state", sorted(DEAD_LETTERS))
async def test_a_dead_letter_begins_as_if_it_had_just_been_accepted(
    database: Database, alice: UserRow, state: State
) -> None:
    tried = {
        "attempts": 9,
        "crashes": 5,
        "empty_searches": 1,
        "issues": {"total": 1, "issue": []},
        "cancel_requested": True,
        "give_up_at": text("now()"),
        "last_response": "http_500",
    }
    upload_id = await dead(database, alice, state, columns=tried)
    redriven = await redrive(database, upload_id)
    assert (redriven.queued, redriven.due) == ([upload_id], {UPLOADS: [upload_id]})
    row = await rows.row(database, upload_id)
    assert (row.state, row.reason) == (State.QUEUED, Reason.REDRIVEN)
    assert (row.attempts, row.crashes, row.empty_searches) == (0, 0, 0)
    assert (row.issues, row.cancel_requested, row.give_up_at) == (None, False, None)
    assert row.last_response == "http_500"
    assert row.next_attempt_at == row.updated_at
    assert row.finish_tag is not None
    (claim,) = await rows.claim(database, upload_id)
    assert not claim.validated
    assert not claim.past_deadline


async def test_what_may_be_upstream_says_so_and_is_due_once_it_has_settled(
    database: Database, alice: UserRow
) -> None:
    just = await dead(database, alice, columns={"maybe_sent": True, "updated_at": text("now()")})
    ago = text("now() - interval '61 seconds'")
    long = await dead(database, alice, columns={"maybe_sent": True, "updated_at": ago})
    redriven = await redrive(database, just, long)
    assert sorted(redriven.queued) == [just, long]
    assert redriven.due == {UPLOADS: [long]}
    row = await rows.row(database, just)
    assert row.maybe_sent
    assert 58 < (row.next_attempt_at - row.updated_at).total_seconds() <= 60
    (claim,) = await rows.claim(database, just, long)
    assert (claim.upload_id, claim.maybe_sent) == (long, True)


async def test_what_ended_while_the_clock_was_a_day_ahead_waits_no_longer(
    database: Database, alice: UserRow
) -> None:
    ahead = text("now() + interval '1 day'")
    upload_id = await dead(database, alice, columns={"maybe_sent": True, "updated_at": ahead})
    await redrive(database, upload_id)
    row = await rows.row(database, upload_id)
    assert (row.next_attempt_at - row.updated_at).total_seconds() == _SETTLE


async def test_each_is_due_in_its_own_queue(database: Database, alice: UserRow) -> None:
    ids = [await dead(database, alice, queue=queue) for queue in (UPLOADS, BULK)]
    assert (await redrive(database, *ids)).due == {UPLOADS: ids[:1], BULK: ids[1:]}


async def test_redriving_twice_changes_and_notes_it_once(
    database: Database, alice: UserRow
) -> None:
    upload_id = await dead(database, alice)
    await redrive(database, upload_id)
    before = await rows.row(database, upload_id)
    assert (await redrive(database, upload_id)).left == {upload_id: Left.NOT_DEAD}
    assert await rows.row(database, upload_id) == before
    assert await noted(database) == [upload_id]


@pytest.mark.parametrize("state", sorted(set(State) - DEAD_LETTERS))
async def test_what_is_no_dead_letter_stays_as_it_is(
    database: Database, alice: UserRow, state: State
) -> None:
    upload_id = await rows.put(database, alice)
    await rows.bring_to(database, upload_id, state)
    before = await rows.row(database, upload_id)
    nobodys = uuid4()
    left = (await redrive(database, upload_id, nobodys)).left
    assert left == {upload_id: Left.NOT_DEAD, nobodys: Left.NOT_DEAD}
    assert await rows.row(database, upload_id) == before


async def test_without_a_body_there_is_nothing_to_send(database: Database, alice: UserRow) -> None:
    upload_id = await dead(database, alice, columns={"sealed_body": None})
    assert (await redrive(database, upload_id)).left == {upload_id: Left.NO_BODY}
    assert await state_of(database, upload_id) == (State.EXPIRED, Reason.NEW)


async def test_an_old_version_is_superseded_once_a_newer_one_was_delivered(
    database: Database, alice: UserRow
) -> None:
    old = await dead(database, alice, identity=b"record")
    await deliver(database, await rows.put(database, alice, identity=b"record"))
    redriven = await redrive(database, old)
    assert (redriven.queued, redriven.superseded) == ([], [old])
    assert await state_of(database, old) == (State.SUPERSEDED, Reason.NEWER_VERSION)
    assert await noted(database) == [old]


@pytest.mark.parametrize("state", [State.QUEUED, State.SENDING, State.PARKED])
async def test_an_old_version_is_superseded_while_a_newer_one_is_on_its_way(
    database: Database, alice: UserRow, state: State
) -> None:
    old = await dead(database, alice, identity=b"record")
    newer = await rows.put(database, alice, identity=b"record")
    await rows.bring_to(database, newer, state)
    assert (await redrive(database, old)).superseded == [old]
    assert (await rows.row(database, newer)).state == state


async def test_an_old_version_is_superseded_when_what_was_delivered_came_back_after_it(
    database: Database, alice: UserRow
) -> None:
    first = await rows.put(database, alice, identity=b"record", digest=b"a")
    await deliver(database, first)
    second = await dead(database, alice, identity=b"record", digest=b"b")
    assert await rows.put(database, alice, identity=b"record", digest=b"a") == first
    assert (await redrive(database, second)).superseded == [second]


@pytest.mark.parametrize("state", [State.EXPIRED, State.CANCELLED, State.REFUSED])
async def test_an_old_version_waits_for_a_newer_one_that_may_be_upstream(
    database: Database, alice: UserRow, state: State
) -> None:
    old = await dead(database, alice, identity=b"record")
    await dead(database, alice, state, identity=b"record", columns={"maybe_sent": True})
    assert (await redrive(database, old)).left == {old: Left.NEWER_MAYBE_SENT}
    assert (await rows.row(database, old)).state == State.EXPIRED


async def test_an_old_version_is_redriven_if_no_newer_one_was_ever_sent(
    database: Database, alice: UserRow
) -> None:
    old = await dead(database, alice, identity=b"record")
    await dead(database, alice, State.REJECTED, identity=b"record")
    assert (await redrive(database, old)).queued == [old]


@pytest.mark.parametrize("apart", [False, True])
async def test_of_one_record_the_newest_dead_letter_goes_and_the_older_ones_give_way(
    database: Database, alice: UserRow, apart: bool
) -> None:
    ids = [await dead(database, alice, identity=b"record") for _ in range(3)]
    if apart:  # the older first, as if somebody had asked for them one by one
        for id_ in ids:
            await redrive(database, id_)
    else:
        await redrive(database, *ids)
    states = [(await rows.row(database, id_)).state for id_ in ids]
    assert states == [State.SUPERSEDED, State.SUPERSEDED, State.QUEUED]


async def test_what_an_older_version_may_have_sent_ends_first(
    database: Database, alice: UserRow
) -> None:
    older = await rows.put(database, alice, identity=b"record")
    await rows.bring_to(database, older, State.SENDING)
    newer = await dead(database, alice, identity=b"record")
    assert (await redrive(database, newer)).queued == [newer]
    assert await rows.claim(database, newer) == []
    assert (await rows.row(database, older)).state == State.SENDING


async def test_a_redrive_and_a_newer_version_at_once_leave_one_of_them_to_be_sent(
    database: Database, alice: UserRow
) -> None:
    for _ in range(10):
        identity = uuid4().bytes
        old = await dead(database, alice, identity=identity)
        new = rows.new_upload(alice, identity=identity)

        async def put_in(new: NewUpload = new) -> None:
            async with database.transaction() as connection:
                await rows.put_in_unread(connection, [new])

        await asyncio.gather(redrive(database, old), put_in())
        states = [(await rows.row(database, id_)).state for id_ in (old, new.id)]
        assert states == [State.SUPERSEDED, State.QUEUED]


async def test_many_redrives_of_the_same_at_once_make_one_and_wait_for_no_circle(
    database: Database, alice: UserRow
) -> None:
    ids = [await dead(database, alice, identity=bytes([n % 5])) for n in range(20)]
    orders = [ids, ids[::-1], ids[::2] + ids[1::2]]
    redriven = await asyncio.gather(*(redrive(database, *order) for order in orders))
    assert sum(len(each.queued) for each in redriven) == 5
    assert sum(len(each.superseded) for each in redriven) == 15
    assert sorted(await noted(database), key=str) == ids


async def test_the_dead_letters_of_an_erased_user_are_nobodys(
    database: Database, alice: UserRow
) -> None:
    upload_id = await dead(database, alice)
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE users SET erased_at = now(), wrapped_key = NULL"))
        assert await dead_letters.find(connection, Filter(), after=None, limit=9) == []
        assert await dead_letters.count(connection, Filter()) == 0
        assert await dead_letters.get_state(connection, upload_id) is None
    assert (await redrive(database, upload_id)).left == {upload_id: Left.NOT_DEAD}


async def _found(database: Database, matching: Filter) -> Sequence[UUID]:
    async with database.transaction() as connection:
        found = await dead_letters.find(connection, matching, after=None, limit=99)
        assert await dead_letters.count(connection, matching) == len(found)
    return found


async def test_a_filter_finds_dead_letters_of_which_all_of_it_is_true_the_newest_first(
    database: Database, alice: UserRow, key_ring: KeyRing
) -> None:
    bob = await rows.add_user(database, key_ring, "bob")
    ago = text("timestamptz '2026-01-01 00:00Z'")
    refused = await dead(database, alice, State.REFUSED, columns={"updated_at": ago})
    expired = await dead(database, alice, columns={"reason": Reason.GAVE_UP})
    other = await dead(database, alice, columns={"resource_type": "Condition"})
    bobs = await dead(database, bob)
    await rows.put(database, alice)
    everything = [bobs, other, expired, refused]
    assert await _found(database, Filter()) == everything
    assert await _found(database, Filter(states=[State.REFUSED])) == [refused]
    assert await _found(database, Filter(states=[State.QUEUED])) == []
    assert await _found(database, Filter(reason="gave_up")) == [expired]
    assert await _found(database, Filter(resource_type="Condition")) == [other]
    assert await _found(database, Filter(user_id=bob.id)) == [bobs]
    assert await _found(database, Filter(batch_id=uuid4())) == []
    at = (await rows.row(database, refused)).updated_at
    assert await _found(database, Filter(since=at)) == everything
    assert await _found(database, Filter(before=at)) == []
    async with database.transaction() as connection:
        page = await dead_letters.find(connection, Filter(), after=other, limit=1)
    assert page == [expired]
