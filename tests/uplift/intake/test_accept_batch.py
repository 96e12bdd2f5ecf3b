"""Batches committed: group by group, each line with its own outcome, whatever breaks."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any
from uuid import UUID

import orjson
import pytest
import redis.asyncio
from sqlalchemy import TextClause, select, text
from uuid_utils.compat import uuid4

from tests.factories import resource
from tests.keys import KEY_RING
from tests.uplift.ledger import rows
from tests.uplift.test_dispatch import all_ids
from uplift.dispatch import Dispatcher
from uplift.errors import Conflict, NotFound
from uplift.intake.accept_batch import GROUP_BYTES, BatchAcceptor, Entry
from uplift.intake.back_pressure import BackPressure
from uplift.intake.labels import Labels
from uplift.ledger import batches
from uplift.ledger.batches import BatchRow, LineRow
from uplift.ledger.database import CommitUnknown, Database
from uplift.ledger.tables import Upload
from uplift.ledger.uploads import body_context
from uplift.ledger.users import UserRow
from uplift.problem_types import ProblemType
from uplift.queues import BULK, UPLOADS
from uplift.sealing import KeyRing
from uplift.settings import Settings
from uplift.users.erase import Eraser

_R4 = Labels(fhir_version="R4")


@pytest.fixture
async def alice(database: Database, key_ring: KeyRing) -> UserRow:
    return await rows.add_user(database, key_ring)


@pytest.fixture
def acceptor(
    database: Database, key_ring: KeyRing, dispatcher: Dispatcher, own_settings: Settings
) -> BatchAcceptor:
    return BatchAcceptor(
        database, key_ring, dispatcher, BackPressure(database, own_settings), {}, own_settings
    )


def body(number: int, **elements: Any) -> bytes:
    return orjson.dumps(resource(id=f"obs-{number}", **elements))


def envelope(number: int, **more: Any) -> bytes:
    return orjson.dumps({"fhirVersion": "R4", "resource": resource(id=f"obs-{number}"), **more})


async def entries(
    bodies: Iterable[bytes | Entry], *, then: Exception | None = None
) -> AsyncIterator[list[Entry]]:
    for number, each in enumerate(bodies, start=1):
        yield [each if isinstance(each, Entry) else Entry(number, each)]
    if then is not None:
        raise then


async def take(
    acceptor: BatchAcceptor,
    *bodies: bytes | Entry,
    labels: Labels = _R4,
    then: Exception | None = None,
    batch_id: UUID | None = None,
) -> BatchRow:
    batch = await acceptor.open("alice", batch_id or uuid4(), labels)
    return await acceptor.add_entries(batch, entries(bodies, then=then))


async def lines(database: Database, batch_id: UUID) -> list[LineRow]:
    async with database.transaction() as connection:
        return await batches.list_lines(connection, batch_id, after=0, limit=1000)


async def read(database: Database, batch_id: UUID) -> BatchRow:
    async with database.transaction() as connection:
        row = await batches.get_batch(connection, batch_id)
    assert row is not None
    return row


def numbers(row: BatchRow) -> tuple[int, int, int]:
    return row.accepted, row.duplicates, row.problems


async def test_every_line_becomes_an_upload_of_the_batch_in_the_bulk_queue(
    acceptor: BatchAcceptor,
    alice: UserRow,
    database: Database,
    dispatcher: Dispatcher,
    client: "redis.asyncio.Redis",
) -> None:
    dispatcher.start()
    row = await take(acceptor, *(body(number) for number in range(250)))
    assert numbers(row) == (250, 0, 0)
    assert row.closed_at is not None
    assert not row.broken
    found = await lines(database, row.id)
    assert [each.line for each in found] == list(range(1, 251))
    async with database.transaction() as connection:
        made = (await connection.execute(select(Upload.id, Upload.queue, Upload.batch_id))).all()
    assert {each.id for each in made} == {each.upload_id for each in found}
    assert {(each.queue, each.batch_id) for each in made} == {(BULK, row.id)}
    await dispatcher.close()
    assert set(await all_ids(client, BULK)) == {each.upload_id for each in found}
    assert await all_ids(client, UPLOADS) == []


async def test_a_line_s_own_bytes_are_kept_sealed(
    acceptor: BatchAcceptor, alice: UserRow, database: Database, key_ring: KeyRing
) -> None:
    bare = b'{"resourceType":  "Observation", "id":"a", "valueDecimal": 1.50}'
    inner = b'{ "id":"b","resourceType":"Observation","x":"\\u00e9 \xc3\xa9"}'
    row = await take(acceptor, bare, b'{"fhirVersion":"R4", "resource": ' + inner + b" }")
    key = alice.key(key_ring)
    opened = []
    for line in await lines(database, row.id):
        assert line.upload_id is not None
        sealed = (await rows.row(database, line.upload_id)).sealed_body
        opened.append(key.open(sealed, body_context(line.upload_id)))
    assert opened == [bare, inner]


async def test_a_wrong_line_is_its_own_problem_and_costs_no_other(
    acceptor: BatchAcceptor, alice: UserRow, database: Database
) -> None:
    wrong = [
        b"{",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b'{"resourceType": 5}',
        b'{"resource": {}}',
        b'{"resource": {"resourceType": "X"}, "fhirVersion": 4}',
        b"[" * 5000,
        b'{"a":' * 5000,
        b'{"resourceType": "Patient", "id": "' + b"\\ud800" + b'"}',
    ]
    codes = ["not_json", "not_a_resource", "not_a_resource", "not_json", "not_a_resource"]
    codes += ["not_a_resource", "invalid_envelope", "not_json", "not_json", "not_json"]
    good = [body(number) for number in range(len(wrong))]
    mixed = [each for pair in zip(wrong, good, strict=True) for each in pair]
    row = await take(acceptor, *mixed)
    found = await lines(database, row.id)
    assert all(each.upload_id is not None for each in found[1::2])
    assert [each.problem_code for each in found[0:-1:2]] == codes
    assert all(each.problem for each in found[0::2])
    assert numbers(row) == (len(good), 0, len(wrong))


async def test_an_entry_that_was_not_readable_keeps_its_problem(
    acceptor: BatchAcceptor, alice: UserRow, database: Database
) -> None:
    row = await take(
        acceptor,
        body(1),
        Entry(2, problem_type=ProblemType.BODY_TOO_LARGE, problem="Too long."),
        body(3),
    )
    assert numbers(row) == (2, 0, 1)
    (problem,) = [each for each in await lines(database, row.id) if each.upload_id is None]
    assert (problem.line, problem.problem_code, problem.problem) == (
        2,
        "body_too_large",
        "Too long.",
    )


async def test_what_a_line_does_not_say_the_batch_says(
    acceptor: BatchAcceptor, alice: UserRow, database: Database
) -> None:
    row = await take(
        acceptor,
        body(1),
        envelope(2, fhirVersion="DSTU2"),
        labels=Labels(fhir_version="3.0.1", source="hospital-a"),
    )
    versions = []
    for line in await lines(database, row.id):
        assert line.upload_id is not None
        versions.append((await rows.row(database, line.upload_id)).fhir_version)
    assert versions == ["STU3", "DSTU2"]


async def test_a_line_of_another_user_is_refused_and_says_no_name(
    acceptor: BatchAcceptor, alice: UserRow, database: Database, key_ring: KeyRing
) -> None:
    await rows.add_user(database, key_ring, "bob")
    row = await take(
        acceptor, envelope(1, user="alice"), envelope(2, user="bob"), envelope(3, user="nobody")
    )
    found = await lines(database, row.id)
    assert [each.upload_id is None for each in found] == [False, True, True]
    for each in found[1:]:
        assert each.problem is not None
        assert "another user" in each.problem
        assert not {"alice", "bob", "nobody"} & set(each.problem.split())


async def test_what_was_accepted_before_is_a_duplicate_that_is_not_dispatched_again(
    acceptor: BatchAcceptor,
    alice: UserRow,
    database: Database,
    dispatcher: Dispatcher,
    client: "redis.asyncio.Redis",
) -> None:
    dispatcher.start()
    first = await take(acceptor, body(1), body(2))
    second = await take(acceptor, body(2), body(3), body(3))
    assert numbers(second) == (1, 2, 0)
    ids = [each.upload_id for each in await lines(database, first.id)]
    found = await lines(database, second.id)
    assert [each.duplicate for each in found] == [True, False, True]
    assert found[0].upload_id == ids[1]
    assert found[1].upload_id == found[2].upload_id
    await dispatcher.close()
    assert len(await all_ids(client, BULK)) == 3


async def test_a_connection_that_breaks_leaves_what_came_before_it(
    acceptor: BatchAcceptor, alice: UserRow, database: Database
) -> None:
    batch_id = uuid4()
    with pytest.raises(ConnectionError):
        await take(
            acceptor,
            *(body(number) for number in range(130)),
            then=ConnectionError("gone"),
            batch_id=batch_id,
        )
    row = await read(database, batch_id)
    assert numbers(row) == (130, 0, 0)
    assert row.broken
    assert row.closed_at is not None
    assert len(await lines(database, batch_id)) == 130


async def test_groups_are_committed_while_more_comes(
    acceptor: BatchAcceptor, alice: UserRow, database: Database
) -> None:
    batch = await acceptor.open("alice", uuid4(), _R4)
    seen = []

    async def watched() -> AsyncIterator[list[Entry]]:
        for number in range(1, 801):
            row = await read(database, batch.id)
            seen.append(row.lines)
            assert row.closed_at is None
            yield [Entry(number, body(number))]

    await acceptor.add_entries(batch, watched())
    # One group is committed while the next is read, so no more than two are held.
    for number, committed in enumerate(seen):
        assert committed in {number // 250 * 250, max(number // 250 - 1, 0) * 250}


async def test_no_more_than_a_group_of_bytes_waits_for_its_commit_and_a_long_line_for_none(
    acceptor: BatchAcceptor, alice: UserRow, database: Database
) -> None:
    batch = await acceptor.open("alice", uuid4(), _R4)
    sizes = [10, GROUP_BYTES // 2, GROUP_BYTES // 2, GROUP_BYTES * 3, 10, GROUP_BYTES * 2]
    committed = []

    async def watched() -> AsyncIterator[list[Entry]]:
        for number, size in enumerate(sizes, start=1):
            committed.append((await read(database, batch.id)).lines)
            yield [Entry(number, body(number, note=[{"text": "x" * size}]))]

    await acceptor.add_entries(batch, watched())
    # Before each entry is read; the long fourth is committed before the fifth is asked for.
    assert committed[3] in {0, 2}
    assert [*committed[:3], *committed[4:]] == [0, 0, 0, 4, 4]
    assert (await read(database, batch.id)).accepted == len(sizes)


async def test_a_batch_of_too_many_lines_is_accepted_up_to_the_limit(
    database: Database,
    key_ring: KeyRing,
    dispatcher: Dispatcher,
    own_settings: Settings,
    alice: UserRow,
) -> None:
    few_lines = own_settings.model_copy(update={"max_batch_lines": 3})
    few = BatchAcceptor(
        database, key_ring, dispatcher, BackPressure(database, few_lines), {}, few_lines
    )
    whole = await take(few, *(body(number) for number in range(3)))
    assert (numbers(whole), whole.broken) == ((3, 0, 0), False)
    row = await take(few, *(body(number) for number in range(10, 20)))
    assert (numbers(row), row.broken) == ((3, 0, 1), True)
    last = (await lines(database, row.id))[-1]
    assert (last.line, last.problem_code) == (4, "batch_too_long")
    assert "another batch" in (last.problem or "")


async def test_an_empty_batch_is_a_batch(
    acceptor: BatchAcceptor, alice: UserRow, database: Database
) -> None:
    row = await take(acceptor)
    assert (row.lines, row.broken) == (0, False)
    assert row.closed_at is not None


async def test_a_user_that_is_not_known_has_no_batch(
    acceptor: BatchAcceptor, database: Database
) -> None:
    batch_id = uuid4()
    with pytest.raises(NotFound, match="POST /v1/users"):
        await acceptor.open("alice", batch_id, _R4)
    async with database.transaction() as connection:
        assert await batches.get_batch(connection, batch_id) is None


async def test_an_id_is_taken_once(acceptor: BatchAcceptor, alice: UserRow) -> None:
    batch_id = uuid4()
    await take(acceptor, body(1), batch_id=batch_id)
    with pytest.raises(Conflict, match="an id of its own"):
        await acceptor.open("alice", batch_id, _R4)
    twins = await asyncio.gather(
        *(acceptor.open("alice", other, _R4) for other in [uuid4()] * 5), return_exceptions=True
    )
    assert sum(isinstance(each, Conflict) for each in twins) == 4


async def test_of_a_batch_that_the_ledger_lost_nobody_knows_what_was_accepted(
    acceptor: BatchAcceptor, alice: UserRow, database: Database
) -> None:
    """A standby without the last commits is promoted meanwhile."""
    batch = await acceptor.open("alice", uuid4(), _R4)
    async with database.transaction() as connection:
        await connection.execute(text("DELETE FROM batches"))

    with pytest.raises(CommitUnknown):
        await acceptor.add_entries(batch, entries([]))


async def test_of_a_batch_whose_first_lines_the_ledger_lost_nobody_knows_either(
    acceptor: BatchAcceptor, alice: UserRow, database: Database
) -> None:
    batch = await acceptor.open("alice", uuid4(), _R4)

    async def parts() -> AsyncIterator[list[Entry]]:
        yield [Entry(line, body(line)) for line in range(1, 252)]
        await _is_committed(database, 250)
        async with database.transaction() as connection:
            for table in ("batch_lines", "uploads", "deliveries", "records"):
                await connection.execute(text(f"DELETE FROM {table}"))  # noqa: S608
            await connection.execute(text("UPDATE batches SET accepted = 0"))
        yield [Entry(252, body(252))]

    with pytest.raises(CommitUnknown):
        await acceptor.add_entries(batch, parts())


async def _is_committed(database: Database, lines: int) -> None:
    async with asyncio.timeout(10):
        while True:
            async with database.transaction() as connection:
                if await connection.scalar(text("SELECT max(accepted) FROM batches")) == lines:
                    return
            await asyncio.sleep(0.01)


async def test_a_user_who_is_erased_meanwhile_gets_nothing_more(
    acceptor: BatchAcceptor, alice: UserRow, database: Database
) -> None:
    batch = await acceptor.open("alice", uuid4(), _R4)

    async def erased_meanwhile() -> AsyncIterator[list[Entry]]:
        for number in range(1, 151):
            yield [Entry(number, body(number))]
            if number == 120:
                await Eraser(database, KEY_RING, Settings()).erase("alice", wait=5)

    with pytest.raises(NotFound):
        await acceptor.add_entries(batch, erased_meanwhile())
    async with database.transaction() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM uploads")) == 0


async def _scalar(database: Database, statement: TextClause) -> object:
    # A transaction of its own: within one, pg_stat_activity stays the same.
    async with database.transaction() as connection:
        return await connection.scalar(statement)


async def test_a_group_whose_connection_to_the_ledger_is_cut_is_put_in_again(
    acceptor: BatchAcceptor, alice: UserRow, database: Database
) -> None:
    batch = await acceptor.open("alice", uuid4(), _R4)
    cut = text(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(20):
        async with database.transaction() as locking:
            await locking.execute(text("SELECT id FROM users FOR UPDATE"))
            bodies = (body(number) for number in range(150))
            taking = asyncio.create_task(acceptor.add_entries(batch, entries(bodies)))
            while not await _scalar(database, cut):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        row = await taking
    assert (numbers(row), row.broken) == ((150, 0, 0), False)


async def test_lines_that_are_noted_twice_count_once(database: Database, alice: UserRow) -> None:
    batch_id, upload_id = uuid4(), await rows.put(database, alice)
    line = batches.NewLine(line=1, upload_id=upload_id)
    again = batches.NewLine(line=1, upload_id=upload_id, duplicate=True)
    async with database.transaction() as connection:
        await batches.add_batch(connection, batch_id, alice.id)
    for lines_ in (
        [line],
        [again, batches.NewLine(line=2, problem_code="not_json", problem="No.")],
    ):
        async with database.transaction() as connection:
            await batches.add_lines(connection, batch_id, lines_)
    assert numbers(await read(database, batch_id)) == (1, 0, 1)
    assert [each.duplicate for each in await lines(database, batch_id)] == [False, False]
