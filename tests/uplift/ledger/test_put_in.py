"""Uploads put in as groups: one by one or together, the ledger ends the same."""

import asyncio
import random
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import Row, delete, func, select, text
from uuid_utils.compat import uuid7

from bench.sent_statements import sent_by
from tests.uplift.ledger import rows
from uplift.ledger.audit import SYSTEM, Action, Actor, list_events
from uplift.ledger.database import Database
from uplift.ledger.new_uploads import NewUpload
from uplift.ledger.tables import Record, Upload
from uplift.ledger.users import UserRow
from uplift.lifecycle import State
from uplift.queues import BULK
from uplift.sealing import KeyRing
from uplift.settings import Settings


def new(user: UserRow, identity: int, content: int) -> NewUpload:
    return rows.new_upload(
        user, identity=f"identity {identity}".encode(), digest=f"content {content}".encode()
    )


async def put(database: Database, group: list[NewUpload]) -> list[tuple[UUID, bool]]:
    async with database.transaction() as connection:
        return await rows.put_in_unread(connection, group)


async def ledger(database: Database) -> list[tuple[bytes, int, bytes, str]]:
    """Identity, version, content and state of every upload."""
    async with database.transaction() as connection:
        found = await connection.execute(
            select(Record.identity, Upload.version, Upload.digest, Upload.state)
            .join(Record, Record.id == Upload.record_id)
            .order_by(Record.identity, Upload.version)
        )
        return [row._tuple() for row in found]


async def latest(database: Database) -> list[Row[tuple[bytes, int, bytes | None, bytes]]]:
    """What each record says of its latest version, and what that upload says."""
    async with database.transaction() as connection:
        return list(
            await connection.execute(
                select(Record.identity, Record.versions, Record.latest_digest, Upload.digest)
                .join(Upload, Upload.id == Record.latest_upload_id)
                .order_by(Record.identity)
            )
        )


async def deliver(database: Database, upload_id: UUID) -> None:
    """Bring it to delivered, and its record to say so."""
    await rows.bring_to(database, upload_id, State.DELIVERED, maybe_sent=False)
    delivered = await rows.row(database, upload_id)
    await rows.set_delivered(database, upload_id, delivered.version, delivered.digest)


async def put_one(database: Database, upload: NewUpload) -> tuple[UUID, bool]:
    return (await put(database, [upload]))[0]


async def test_a_group_of_new_records_is_as_many_uploads(
    database: Database, alice: UserRow
) -> None:
    group = [new(alice, number, number) for number in range(250)]
    assert await put(database, group) == [(each.id, False) for each in group]
    assert len(await ledger(database)) == 250


async def test_an_empty_group_is_nothing(database: Database, alice: UserRow) -> None:
    assert await put(database, []) == []


async def test_the_results_come_in_the_order_of_the_group(
    database: Database, alice: UserRow
) -> None:
    known = [new(alice, number, number) for number in range(0, 20, 2)]
    await put(database, known)
    group = [new(alice, number, number) for number in range(20)]
    random.Random(5).shuffle(group)
    ids = {each.identity: each.id for each in known}
    responses = await put(database, group)
    assert responses == [
        (ids[each.identity], True) if each.identity in ids else (each.id, False) for each in group
    ]


async def test_twins_in_a_group_are_one_upload(database: Database, alice: UserRow) -> None:
    group = [new(alice, 1, 1) for _ in range(5)]
    assert await put(database, group) == [(group[0].id, False)] + [(group[0].id, True)] * 4
    assert len(await ledger(database)) == 1


async def test_what_is_kept_is_in_the_audit_trail_and_duplicates_are_not(
    database: Database, alice: UserRow
) -> None:
    first, second = Actor("key:1"), Actor("key:2")
    known = new(alice, 1, 1)
    await put(database, [known])
    group = [
        replace(new(alice, *each), by=by)
        for each, by in (((1, 1), first), ((1, 2), first), ((2, 1), second), ((2, 1), first))
    ]
    await put(database, group)
    async with database.transaction() as connection:
        events = await list_events(connection, user_id=alice.id)
    noted = [
        (event.upload_id, event.actor) for event in events if event.action == Action.UPLOAD_ACCEPTED
    ]
    assert noted[0] == (known.id, SYSTEM)
    assert sorted(noted[1:]) == sorted([(group[1].id, first), (group[2].id, second)])


async def test_versions_in_a_group_are_numbered_and_only_the_last_is_waiting(
    database: Database, alice: UserRow
) -> None:
    group = [new(alice, 1, content) for content in (1, 2, 2, 1)]
    responses = await put(database, group)
    assert responses == [
        (group[0].id, False),
        (group[1].id, False),
        (group[1].id, True),
        (group[3].id, False),
    ]
    states = [(version, state) for _, version, _, state in await ledger(database)]
    assert states == [(1, "superseded"), (2, "superseded"), (3, "queued")]


async def test_a_group_may_be_of_several_users(
    database: Database, alice: UserRow, key_ring: KeyRing
) -> None:
    bob = await rows.add_user(database, key_ring, "bob")
    group = [new(alice, 1, 1), new(bob, 1, 1)]
    assert await put(database, group) == [(each.id, False) for each in group]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=st.lists(
        st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=8),
        min_size=1,
        max_size=3,
    ),
    state=st.sampled_from([State.QUEUED, State.PARKED, State.CANCELLED, State.DELIVERED]),
    maybe_sent=st.booleans(),
)
def test_a_group_ends_as_its_uploads_would_one_by_one(
    migrated: str,
    key_ring: KeyRing,
    steps: list[list[tuple[int, int]]],
    state: State,
    maybe_sent: bool,
) -> None:
    async def outcome(*, together: bool) -> tuple[object, object, list[bool]]:
        database = Database.connect(Settings(database_url=SecretStr(migrated)))
        try:
            async with database.transaction() as connection:
                await connection.execute(text("TRUNCATE users CASCADE"))
            alice = await rows.add_user(database, key_ring)
            responses: list[tuple[UUID, bool]] = []
            for step in steps:
                group = [new(alice, *each) for each in step]
                parts = [group] if together else [[each] for each in group]
                for part in parts:
                    responses += await put(database, part)
                # What the last one made is brought to another state, before the next comes.
                if responses and not responses[-1][1]:
                    if state is State.DELIVERED:
                        await deliver(database, responses[-1][0])
                    else:
                        await rows.bring_to(
                            database, responses[-1][0], state, maybe_sent=maybe_sent, attempts=1
                        )
            found = [row._tuple() for row in await latest(database)]
            return await ledger(database), found, [duplicate for _, duplicate in responses]
        finally:
            await database.close()

    assert asyncio.run(outcome(together=True)) == asyncio.run(outcome(together=False))


async def test_groups_with_records_in_common_wait_for_each_other_and_none_dead_locks(
    database: Database, alice: UserRow
) -> None:
    chance = random.Random(7)

    async def shuffled(content: int) -> list[tuple[UUID, bool]]:
        group = [new(alice, number, content) for number in range(60)]
        chance.shuffle(group)
        return await put(database, group)

    await asyncio.gather(*(shuffled(content % 3) for content in range(12)))
    found = await ledger(database)
    waiting = [identity for identity, _, _, state in found if state == "queued"]
    assert len(waiting) == len(set(waiting)) == 60
    assert all(each.latest_digest == each.digest for each in await latest(database))


async def test_a_group_costs_as_many_statements_as_one_upload(
    database: Database, alice: UserRow
) -> None:
    counts = []
    for size, offset in ((1, 0), (100, 1000)):
        async with database.transaction() as connection:
            group = [new(alice, offset + number, number) for number in range(size)]
            with sent_by(connection) as sent:
                await rows.put_in_unread(connection, group)
            counts.append(len(sent))
    assert counts[0] == counts[1] > 0


async def test_bodies_of_several_mebibytes_are_kept_byte_for_byte(
    database: Database, alice: UserRow
) -> None:
    body = bytes(range(256)) * 4096 * 5
    large = NewUpload(
        id=uuid7(),
        user_id=alice.id,
        identity=b"large",
        digest=b"large",
        destination="oneup",
        fhir_version="R4",
        resource_type="DocumentReference",
        body_bytes=len(body),
        sealed_body=body,
        queue=BULK,
    )
    await put(database, [large, new(alice, 1, 1)])
    assert bytes((await rows.row(database, large.id)).sealed_body) == body
    async with database.transaction() as connection:
        assert await connection.scalar(select(func.count()).select_from(Upload)) == 2


@pytest.mark.parametrize(
    ("state", "content"),
    [
        (State.EXPIRED, 1),
        (State.EXPIRED, 2),
        (State.CANCELLED, 1),
        (State.CANCELLED, 2),
        (State.REFUSED, 2),
        (State.REJECTED, 2),
    ],
)
@pytest.mark.parametrize("maybe_sent", [True, False])
async def test_what_may_be_upstream_still_may_be_when_the_record_comes_again(
    database: Database, alice: UserRow, state: State, content: int, maybe_sent: bool
) -> None:
    first, _ = await put_one(database, new(alice, 1, 1))
    await rows.bring_to(database, first, state, maybe_sent=maybe_sent, attempts=1)
    again, duplicate = await put_one(database, new(alice, 1, content))
    other, _ = await put_one(database, new(alice, 2, 1))
    assert not duplicate
    (claim,) = await rows.claim(database, again)
    assert claim.maybe_sent is maybe_sent
    assert not (await rows.row(database, other)).maybe_sent


async def test_versions_after_one_that_may_be_upstream_all_look_first_and_go_in_order(
    database: Database, alice: UserRow
) -> None:
    first, _ = await put_one(database, new(alice, 1, 1))
    await rows.bring_to(database, first, State.EXPIRED, maybe_sent=True, attempts=1)
    group = [new(alice, 1, content) for content in (2, 3, 4)]
    await put(database, group)
    found = [await rows.row(database, each.id) for each in group]
    assert all(row.maybe_sent for row in found)
    assert [row.state for row in found] == ["queued"] * 3
    ids = [each.id for each in group]
    assert [claim.upload_id for claim in await rows.claim(database, *ids)] == ids[:1]


async def test_a_later_delivery_settles_what_may_have_been_upstream(
    database: Database, alice: UserRow
) -> None:
    first, _ = await put_one(database, new(alice, 1, 1))
    await rows.bring_to(database, first, State.EXPIRED, maybe_sent=True, attempts=1)
    second, _ = await put_one(database, new(alice, 1, 2))
    await deliver(database, second)
    third, _ = await put_one(database, new(alice, 1, 3))
    assert not (await rows.row(database, third)).maybe_sent


async def test_a_record_that_went_back_to_what_was_delivered_is_not_sent_again(
    database: Database, alice: UserRow
) -> None:
    records = range(3)
    group = [new(alice, record, 1) for record in records]
    await put(database, group)
    for each in group:
        await deliver(database, each.id)
    await put(database, [new(alice, record, 2) for record in records])
    back = [new(alice, record, 1) for record in records]
    never_delivered = new(alice, 0, 3)
    for _ in range(2):
        assert await put(database, back) == [(each.id, True) for each in group]
    states = [(version, state) for _, version, _, state in await ledger(database)]
    assert states == [(1, "delivered"), (2, "superseded")] * 3
    assert all(each.latest_digest == each.digest for each in await latest(database))
    assert await put_one(database, never_delivered) == (never_delivered.id, False)
    assert (await rows.row(database, never_delivered.id)).version == 3


@pytest.mark.parametrize(
    "state",
    [
        State.QUEUED,
        State.PARKED,
        State.SENDING,
        State.EXPIRED,
        State.CANCELLED,
        State.REFUSED,
    ],
)
async def test_what_was_delivered_goes_out_again_when_other_content_may_be_upstream(
    database: Database, alice: UserRow, state: State
) -> None:
    first, _ = await put_one(database, new(alice, 1, 1))
    await deliver(database, first)
    second, _ = await put_one(database, new(alice, 1, 2))
    await rows.bring_to(database, second, state, maybe_sent=True, attempts=1)
    back = new(alice, 1, 1)
    assert await put_one(database, back) == (back.id, False)
    assert (await rows.row(database, second)).state == state


@pytest.mark.parametrize("state", [State.PARKED, State.EXPIRED, State.CANCELLED, State.REFUSED])
async def test_other_content_that_never_arrived_does_not_make_what_was_delivered_go_out_again(
    database: Database, alice: UserRow, state: State
) -> None:
    first, _ = await put_one(database, new(alice, 1, 1))
    await deliver(database, first)
    second, _ = await put_one(database, new(alice, 1, 2))
    await rows.bring_to(database, second, state, attempts=1)
    assert await put_one(database, new(alice, 1, 1)) == (first, True)


async def thin_out(database: Database, upload_id: UUID) -> None:
    async with database.transaction() as connection:
        await connection.execute(delete(Upload).where(Upload.id == upload_id))


async def test_what_was_delivered_last_is_a_duplicate_long_after_its_upload_was_thinned_out(
    database: Database, alice: UserRow
) -> None:
    first, _ = await put_one(database, new(alice, 1, 1))
    await deliver(database, first)
    await thin_out(database, first)
    for _ in range(2):
        assert await put_one(database, new(alice, 1, 1)) == (first, True)
    changed = new(alice, 1, 2)
    assert await put_one(database, changed) == (changed.id, False)
    assert (await rows.row(database, changed.id)).version == 2


@pytest.mark.parametrize(
    "state", [State.REFUSED, State.REJECTED, State.EXPIRED, State.CANCELLED, State.SUPERSEDED]
)
async def test_what_ended_undelivered_and_was_thinned_out_is_a_new_upload(
    database: Database, alice: UserRow, state: State
) -> None:
    first, _ = await put_one(database, new(alice, 1, 1))
    await rows.bring_to(database, first, state)
    await thin_out(database, first)
    again = new(alice, 1, 1)
    assert await put_one(database, again) == (again.id, False)
    assert (await rows.row(database, again.id)).version == 2


async def test_what_was_delivered_and_thinned_out_is_looked_for_when_it_comes_back(
    database: Database, alice: UserRow
) -> None:
    first, _ = await put_one(database, new(alice, 1, 1))
    await deliver(database, first)
    await put_one(database, new(alice, 1, 2))
    await thin_out(database, first)
    back = new(alice, 1, 1)
    assert await put_one(database, back) == (back.id, False)
    (claim,) = await rows.claim(database, back.id)
    # It is still there: sent unseen, it would be there twice.
    assert claim.maybe_sent


async def test_what_was_delivered_is_looked_for_when_it_comes_back_after_what_may_not_arrive(
    database: Database, alice: UserRow
) -> None:
    first, _ = await put_one(database, new(alice, 1, 1))
    await deliver(database, first)
    second, _ = await put_one(database, new(alice, 1, 2))
    await rows.claim(database, second)
    back, _ = await put_one(database, new(alice, 1, 1))
    await rows.bring_to(database, second, State.REFUSED, maybe_sent=False)
    (claim,) = await rows.claim(database, back)
    assert claim.maybe_sent


@pytest.mark.parametrize("devices", [2, 8])
async def test_devices_that_send_one_record_at_once_make_one_upload(
    database: Database, alice: UserRow, devices: int
) -> None:
    kept = await asyncio.gather(*(put_one(database, new(alice, 1, 1)) for _ in range(devices)))
    assert len({id_ for id_, _ in kept}) == 1
    assert sorted(duplicate for _, duplicate in kept) == [False] + [True] * (devices - 1)
    assert len(await ledger(database)) == 1


async def test_devices_that_send_different_versions_at_once_leave_the_last_one_waiting(
    database: Database, alice: UserRow
) -> None:
    await asyncio.gather(*(put_one(database, new(alice, 1, content)) for content in range(8)))
    found = await ledger(database)
    assert [version for _, version, _, _ in found] == list(range(1, 9))
    assert [state for *_, state in found] == ["superseded"] * 7 + ["queued"]
    assert [each.latest_digest == found[-1][2] for each in await latest(database)] == [True]
