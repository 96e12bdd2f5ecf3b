"""Uploads put in as groups: one by one or together, the ledger ends the same."""

import asyncio
import random
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import Row, event, func, select, text
from uuid_utils.compat import uuid7

from relay.ledger import uploads
from relay.ledger.database import Database
from relay.ledger.tables import Record, Upload
from relay.ledger.uploads import NewUpload
from relay.ledger.users import UserRow
from relay.lifecycle import State
from relay.queues import BULK
from relay.sealing import KeyRing
from relay.settings import Settings
from tests.relay.ledger import rows


def new(user: UserRow, identity: int, content: int) -> NewUpload:
    return rows.new_upload(
        user, identity=f"identity {identity}".encode(), digest=f"content {content}".encode()
    )


async def put(database: Database, group: list[NewUpload]) -> list[tuple[UUID, bool]]:
    async with database.transaction() as connection:
        return await uploads.put_in(connection, group, ring_seconds=15)


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


async def test_a_group_of_new_records_is_as_many_uploads(
    database: Database, alice: UserRow
) -> None:
    group = [new(alice, number, number) for number in range(250)]
    assert await put(database, group) == [(each.id, False) for each in group]
    assert len(await ledger(database)) == 250


async def test_an_empty_group_is_nothing(database: Database, alice: UserRow) -> None:
    assert await put(database, []) == []


async def test_the_answers_come_in_the_order_of_the_group(
    database: Database, alice: UserRow
) -> None:
    known = [new(alice, number, number) for number in range(0, 20, 2)]
    await put(database, known)
    group = [new(alice, number, number) for number in range(20)]
    random.Random(5).shuffle(group)
    ids = {each.identity: each.id for each in known}
    answers = await put(database, group)
    assert answers == [
        (ids[each.identity], True) if each.identity in ids else (each.id, False) for each in group
    ]


async def test_twins_in_a_group_are_one_upload(database: Database, alice: UserRow) -> None:
    group = [new(alice, 1, 1) for _ in range(5)]
    assert await put(database, group) == [(group[0].id, False)] + [(group[0].id, True)] * 4
    assert len(await ledger(database)) == 1


async def test_versions_in_a_group_are_numbered_and_only_the_last_is_waiting(
    database: Database, alice: UserRow
) -> None:
    group = [new(alice, 1, content) for content in (1, 2, 2, 1)]
    answers = await put(database, group)
    assert answers == [
        (group[0].id, False),
        (group[1].id, False),
        (group[1].id, True),
        (group[3].id, False),
    ]
    states = [(version, state) for _, version, _, state in await ledger(database)]
    assert states == [(1, "superseded"), (2, "superseded"), (3, "queued")]


async def test_a_group_may_be_of_several_users(
    database: Database, alice: UserRow, ring: KeyRing
) -> None:
    bob = await rows.add_user(database, ring, "bob")
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
)
def test_a_group_ends_as_its_uploads_would_one_by_one(
    migrated: str, ring: KeyRing, steps: list[list[tuple[int, int]]], state: State
) -> None:
    async def outcome(*, together: bool) -> tuple[object, object, list[bool]]:
        database = Database.connect(Settings(database_url=SecretStr(migrated)))
        try:
            async with database.transaction() as connection:
                await connection.execute(text("TRUNCATE users CASCADE"))
            alice = await rows.add_user(database, ring)
            answers: list[tuple[UUID, bool]] = []
            for step in steps:
                group = [new(alice, *each) for each in step]
                parts = [group] if together else [[each] for each in group]
                for part in parts:
                    answers += await put(database, part)
                # What the last one made is brought to another state, before the next comes.
                if answers and not answers[-1][1]:
                    await rows.bring_to(database, answers[-1][0], state)
            found = [row._tuple() for row in await latest(database)]
            return await ledger(database), found, [duplicate for _, duplicate in answers]
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
    def statements(connection: object) -> list[str]:
        sent: list[str] = []
        event.listen(connection, "before_cursor_execute", lambda *args: sent.append(args[2]))
        return sent

    counts = []
    for size, offset in ((1, 0), (100, 1000)):
        async with database.transaction() as connection:
            sent = statements(connection.sync_connection)
            group = [new(alice, offset + number, number) for number in range(size)]
            await uploads.put_in(connection, group, ring_seconds=15)
            counts.append(len(sent))
    assert counts[0] == counts[1]


async def test_bodies_of_several_mebibytes_are_kept_byte_for_byte(
    database: Database, alice: UserRow
) -> None:
    body = bytes(range(256)) * 4096 * 5
    large = NewUpload(
        id=uuid7(),
        user_id=alice.id,
        identity=b"large",
        digest=b"large",
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
