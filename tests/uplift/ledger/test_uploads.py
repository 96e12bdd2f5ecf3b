"""Uploads put in, read back and listed."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy import func, select, text
from uuid_utils.compat import uuid4

from tests.uplift.ledger import rows
from uplift.ledger import accepting, uploads, users
from uplift.ledger.database import Database
from uplift.ledger.filters import Filter
from uplift.ledger.pages import Order
from uplift.ledger.restoring import note_restore
from uplift.ledger.tables import Record, Upload
from uplift.ledger.uploads import UploadRow
from uplift.ledger.users import UserRow
from uplift.lifecycle import Reason, State
from uplift.queues import BULK
from uplift.sealing import KeyRing


async def put(
    database: Database, user: UserRow, identity: bytes, digest: bytes
) -> tuple[UUID, bool]:
    async with database.transaction() as connection:
        new = rows.new_upload(user, identity=identity, digest=digest)
        return (await rows.put_in_unread(connection, [new]))[0]


async def states(database: Database) -> list[tuple[int, str]]:
    """Version and state of every upload, by version."""
    async with database.transaction() as connection:
        found = await connection.execute(
            select(Upload.version, Upload.state).order_by(Upload.version)
        )
        return [(version, state) for version, state in found]


async def test_a_new_upload_is_queued_due_and_not_dispatched_again_at_once(
    database: Database, alice: UserRow
) -> None:
    async with database.transaction() as connection:
        new = rows.new_upload(alice, queue=BULK, body_bytes=77)
        assert await rows.put_in_unread(connection, [new]) == [(new.id, False)]
    row = await rows.row(database, new.id)
    assert (row.state, row.reason, row.version, row.attempts) == ("queued", "new", 1, 0)
    assert (row.queue, row.body_bytes, row.sealed_body) == (BULK, 77, b"sealed")
    assert row.next_attempt_at == row.created_at
    assert (row.maybe_sent, row.possible_duplicate, row.give_up_at) == (False, False, None)


@pytest.mark.parametrize(
    "state", [State.QUEUED, State.SENDING, State.PARKED, State.DELIVERED, State.REJECTED,
              State.REFUSED]
)  # fmt: skip
async def test_the_same_content_again_is_the_upload_that_is_there(
    database: Database, alice: UserRow, state: State
) -> None:
    first, _ = await put(database, alice, b"i", b"same")
    await rows.bring_to(database, first, state)
    if state is State.DELIVERED:
        await rows.set_delivered(database, first, 1, b"same")
    assert await put(database, alice, b"i", b"same") == (first, True)
    assert await states(database) == [(1, state)]


@pytest.mark.parametrize("state", [State.CANCELLED, State.EXPIRED, State.SUPERSEDED])
async def test_the_same_content_after_it_was_given_up_is_a_new_upload(
    database: Database, alice: UserRow, state: State
) -> None:
    first, _ = await put(database, alice, b"i", b"same")
    await rows.bring_to(database, first, state)
    again, duplicate = await put(database, alice, b"i", b"same")
    assert (again != first, duplicate) == (True, False)
    assert await states(database) == [(1, state), (2, "queued")]


@pytest.mark.parametrize("state", [State.QUEUED, State.PARKED])
async def test_new_content_supersedes_what_nobody_has_tried_to_send(
    database: Database, alice: UserRow, state: State
) -> None:
    first, _ = await put(database, alice, b"i", b"old")
    await rows.bring_to(database, first, state)
    await put(database, alice, b"i", b"new")
    assert await states(database) == [(1, "superseded"), (2, "queued")]
    row = await rows.row(database, first)
    assert (row.reason, row.sealed_body) == (Reason.NEWER_VERSION, None)


@pytest.mark.parametrize(
    ("state", "maybe_sent"),
    [(State.QUEUED, True), (State.PARKED, True), (State.SENDING, True), (State.SENDING, False),
     (State.DELIVERED, False), (State.REJECTED, False), (State.REFUSED, True),
     (State.EXPIRED, True), (State.CANCELLED, False)],
)  # fmt: skip
async def test_new_content_leaves_alone_what_may_be_upstream_or_has_ended(
    database: Database, alice: UserRow, state: State, maybe_sent: bool
) -> None:
    first, _ = await put(database, alice, b"i", b"old")
    await rows.bring_to(database, first, state, maybe_sent=maybe_sent)
    await put(database, alice, b"i", b"new")
    assert await states(database) == [(1, state), (2, "queued")]


async def test_old_content_that_comes_back_is_a_version_of_its_own(
    database: Database, alice: UserRow
) -> None:
    first, _ = await put(database, alice, b"i", b"one")
    await rows.bring_to(database, first, State.DELIVERED)
    await put(database, alice, b"i", b"two")
    third, duplicate = await put(database, alice, b"i", b"one")
    assert (third != first, duplicate) == (True, False)
    assert await states(database) == [(1, "delivered"), (2, "superseded"), (3, "queued")]


async def test_the_same_identity_of_two_users_is_two_records(
    database: Database, alice: UserRow, key_ring: KeyRing
) -> None:
    bob = await rows.add_user(database, key_ring, "bob")
    first, _ = await put(database, alice, b"i", b"same")
    second, duplicate = await put(database, bob, b"i", b"same")
    assert (second != first, duplicate) == (True, False)


async def test_twins_that_arrive_at_once_are_one_upload(database: Database, alice: UserRow) -> None:
    responses = await asyncio.gather(*(put(database, alice, b"i", b"same") for _ in range(20)))
    assert len({id_ for id_, _ in responses}) == 1
    assert sorted(duplicate for _, duplicate in responses) == [False] + [True] * 19
    assert await states(database) == [(1, "queued")]


async def test_versions_that_arrive_at_once_are_numbered_and_only_the_last_is_waiting(
    database: Database, alice: UserRow
) -> None:
    contents = [uuid4().bytes for _ in range(20)]
    await asyncio.gather(*(put(database, alice, b"i", content) for content in contents))
    found = await states(database)
    assert [version for version, _ in found] == list(range(1, 21))
    assert [state for _, state in found] == ["superseded"] * 19 + ["queued"]


async def test_a_version_that_comes_while_the_older_is_claimed_leaves_it_to_its_worker(
    database: Database, alice: UserRow
) -> None:
    first, _ = await put(database, alice, b"i", b"old")
    async with database.transaction() as claiming:
        await claiming.execute(select(Upload.id).where(Upload.id == first).with_for_update())
        putting = asyncio.create_task(put(database, alice, b"i", b"new"))
        await rows.until_locked_out(database)  # it has read the row as it was before
        await claiming.execute(
            text(
                "UPDATE uploads SET state = 'sending', maybe_sent = true, next_attempt_at = NULL,"
                " lease_id = gen_random_uuid(), lease_until = now() + interval '1 minute',"
                " attempt_until = now()"
            )
        )
    await putting
    assert await states(database) == [(1, "sending"), (2, "queued")]


async def test_an_upload_whose_transaction_fails_leaves_nothing(
    database: Database, alice: UserRow
) -> None:
    async def fail() -> None:
        async with database.transaction() as connection:
            await rows.put_in_unread(connection, [rows.new_upload(alice)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with database.transaction() as connection:
        assert await connection.scalar(select(func.count()).select_from(Upload)) == 0
        assert await connection.scalar(select(func.count()).select_from(Record)) == 0


async def test_statuses_are_read_by_id_and_the_unknown_are_missing(
    database: Database, alice: UserRow
) -> None:
    known, unknown = await rows.put(database, alice), uuid4()
    async with database.transaction() as connection:
        found = await uploads.get_uploads(connection, [known, unknown])
        assert await uploads.get_uploads(connection, []) == {}
    assert set(found) == {known}
    assert (found[known].app_user_id, found[known].state) == ("alice", State.QUEUED)
    due_in = found[known].due_in
    assert due_in is not None
    assert due_in <= 0


async def test_a_status_says_in_how_many_seconds_it_is_due(
    database: Database, alice: UserRow
) -> None:
    upload_id = await rows.put(database, alice)
    await rows.bring_to(
        database, upload_id, State.QUEUED, next_attempt_at=text("now() + interval '1 hour'")
    )
    async with database.transaction() as connection:
        due_in = (await uploads.get_uploads(connection, [upload_id]))[upload_id].due_in
    assert due_in is not None
    assert 3500 < due_in <= 3600


async def test_the_uploads_of_an_erased_user_are_not_shown(
    database: Database, alice: UserRow
) -> None:
    upload_id = await rows.put(database, alice)
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE users SET erased_at = now(), wrapped_key = NULL"))
        assert await uploads.get_uploads(connection, [upload_id]) == {}
        assert await uploads.list_uploads(connection, Filter(), after=None, limit=9) == []


async def test_a_revision_rises_with_every_change(database: Database, alice: UserRow) -> None:
    upload_id = await rows.put(database, alice)
    seen = []
    for _ in range(2):
        async with database.transaction() as connection:
            seen.append(await uploads.get_revisions(connection, [upload_id, uuid4()]))
        await rows.claim(database, upload_id)
    assert seen == [{upload_id: 1}, {upload_id: 2}]


async def _list(
    database: Database,
    user_id: UUID | None = None,
    states: Sequence[State] = (),
    after: UUID | None = None,
    limit: int = 100,
    order: Order = Order.OLDEST_FIRST,
) -> list[UploadRow]:
    async with database.transaction() as connection:
        return await uploads.list_uploads(
            connection,
            Filter(user_id=user_id, states=states),
            order=order,
            after=after,
            limit=limit,
        )


async def test_a_list_is_in_the_order_that_is_asked_and_can_be_paged_to_its_end(
    database: Database, alice: UserRow
) -> None:
    ids = [await rows.put(database, alice) for _ in range(7)]
    for order, expected in ((Order.OLDEST_FIRST, ids), (Order.NEWEST_FIRST, ids[::-1])):
        listed: list[UUID] = []
        while page := await _list(
            database, after=listed[-1] if listed else None, limit=3, order=order
        ):
            listed += [row.id for row in page]
        assert listed == expected


async def test_a_list_has_only_what_matches(
    database: Database, alice: UserRow, key_ring: KeyRing
) -> None:
    bob = await rows.add_user(database, key_ring, "bob")
    mine, parked, theirs = (
        await rows.put(database, alice),
        await rows.put(database, alice),
        await rows.put(database, bob),
    )
    await rows.bring_to(database, parked, State.PARKED)

    def ids(listed: list[UploadRow]) -> list[UUID]:
        return [row.id for row in listed]

    assert ids(await _list(database)) == [mine, parked, theirs]
    assert ids(await _list(database, alice.id)) == [mine, parked]
    assert ids(await _list(database, states=[State.PARKED])) == [parked]
    assert ids(await _list(database, states=[State.QUEUED, State.PARKED])) == [mine, parked, theirs]
    assert ids(await _list(database, bob.id, [State.PARKED])) == []
    assert ids(await _list(database, alice.id, after=mine)) == [parked]
    assert ids(await _list(database, uuid4())) == []


async def test_uploads_are_counted_by_state(database: Database, alice: UserRow) -> None:
    for state in (State.QUEUED, State.QUEUED, State.DELIVERED):
        await rows.bring_to(database, await rows.put(database, alice), state)
    async with database.transaction() as connection:
        counted = await uploads.count_by_state(connection)
    assert counted == {State.QUEUED: 2, State.DELIVERED: 1}


async def test_a_user_is_added_once_however_many_ask_at_once(
    database: Database, key_ring: KeyRing
) -> None:
    added = await asyncio.gather(*(rows.add_user(database, key_ring, "carol") for _ in range(10)))
    assert len({user.id for user in added}) == 1
    keys = {user.key(key_ring).identity_key for user in added}
    assert len(keys) == 1


async def test_an_unknown_user_is_none(database: Database, alice: UserRow) -> None:
    async with database.transaction() as connection:
        assert await users.find_user(connection, "Alice") is None
        assert await users.get_user(connection, uuid4()) is None
        assert await users.get_user(connection, alice.id) == alice


@pytest.mark.parametrize("restored", [False, True])
@pytest.mark.parametrize("known", [False, True])
async def test_the_row_of_a_new_upload_is_what_the_ledger_has(
    database: Database, alice: UserRow, *, restored: bool, known: bool
) -> None:
    if known:  # another version of the record
        await put(database, alice, b"record", b"before")
    async with database.transaction() as connection:
        if restored:
            await note_restore(connection, datetime.now(UTC), look_seconds=60, settle_seconds=0)
        new = rows.new_upload(alice, identity=b"record")
        (put_in,) = await accepting.put_in(connection, [new], {alice.id: alice})
        assert put_in is not None
        row, duplicate = put_in
        assert (row.maybe_sent, duplicate) == (restored, False)
        assert {new.id: row} == await uploads.get_uploads(connection, [new.id])
