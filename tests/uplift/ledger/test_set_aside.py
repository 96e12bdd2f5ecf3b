"""Uploads of a FHIR type that the destination lacks: set aside, probed with, and released."""

from uuid import UUID

import pytest
from sqlalchemy import text

from tests.uplift.ledger import rows
from uplift.ledger import fair_queue, pauses, set_aside
from uplift.ledger.audit import SYSTEM
from uplift.ledger.database import Database
from uplift.ledger.due import Front, front
from uplift.ledger.set_aside import FhirType, waits
from uplift.ledger.users import UserRow
from uplift.lifecycle import ALONE_AFTER_CRASHES
from uplift.queues import UPLOADS
from uplift.sealing import KeyRing

OLD = FhirType("DSTU2", "Observation")
NEW = FhirType("R4", "Observation")


@pytest.fixture
async def bob(database: Database, key_ring: KeyRing) -> UserRow:
    return await rows.add_user(database, key_ring, "bob")


async def old(database: Database, user: UserRow, count: int) -> list[UUID]:
    """Ready uploads of that type which the destination lacks."""
    ids = [await rows.put(database, user) for _ in range(count)]
    await _set(database, ids, "fhir_version = 'DSTU2'")
    return ids


async def _set(database: Database, ids: list[UUID], values: str) -> None:
    async with database.transaction() as connection:
        await connection.execute(
            text(f"UPDATE uploads SET {values} WHERE id = ANY(:ids)"),  # noqa: S608
            {"ids": ids},
        )


async def at_front(
    database: Database, limit: int = 100, probing: tuple[FhirType, ...] = (OLD,)
) -> Front:
    async with database.transaction() as connection:
        return await front(connection, UPLOADS, "oneup", limit=limit, probing=probing)


async def first(database: Database, fhir_type: FhirType = OLD) -> UUID | None:
    async with database.reading() as connection:
        return await set_aside.first_set_aside(connection, UPLOADS, "oneup", fhir_type)


async def release(database: Database, fhir_type: FhirType = OLD, since: float = 0.0) -> int:
    async with database.transaction() as connection:
        return await set_aside.release(
            connection, "oneup", fhir_type, since=since, settle_seconds=60, limit=1000
        )


async def due(database: Database) -> list[UUID]:
    """What the sweep finds due, now with a tag."""
    async with database.transaction() as connection:
        return await fair_queue.tag_due(connection, UPLOADS, "oneup", each=999, limit=999)


@pytest.mark.parametrize(
    ("types", "last_attempt", "crashes", "expected"),
    [
        ({OLD}, False, 0, True),
        ({NEW}, False, 0, False),
        ({FhirType("DSTU2", "Condition")}, False, 0, False),
        (set(), False, 0, False),
        ({OLD}, True, 0, False),
        ({OLD}, False, ALONE_AFTER_CRASHES - 1, True),
        ({OLD}, False, ALONE_AFTER_CRASHES, False),
    ],
)
def test_an_upload_waits_for_its_own_type_unless_it_is_its_last_attempt_or_a_suspect(
    types: set[FhirType], last_attempt: bool, crashes: int, expected: bool
) -> None:
    assert waits(OLD, types, last_attempt=last_attempt, crashes=crashes) is expected


async def test_one_claim_sets_aside_all_of_a_type_at_the_front_and_nothing_else(
    database: Database, alice: UserRow, bob: UserRow
) -> None:
    lacking = await old(database, alice, 12)
    behind = await rows.put(database, alice)
    other = await rows.put(database, bob)
    found = await at_front(database, limit=2)
    assert (found.found, [*found.due]) == (2, [other])  # one of hers, and his
    found = await at_front(database)
    assert [*found.due] == [other, behind]
    held = [await rows.row(database, id_) for id_ in lacking]
    assert {(each.finish_tag, each.reason) for each in held} == {(None, "held")}
    assert await due(database) == []  # they wait for an hour, or until it answers
    assert await release(database, NEW) == 0
    assert await release(database) == 12
    assert await release(database) == 0
    assert set(await due(database)) == set(lacking)
    assert {*(await at_front(database, probing=())).due} == {*lacking, behind, other}


async def test_what_has_its_last_attempt_is_not_set_aside(
    database: Database, alice: UserRow
) -> None:
    over, cancelled, suspect, plain = ids = await old(database, alice, 4)
    await _set(database, [over], "give_up_at = now() - interval '1 s', maybe_sent = true")
    await _set(database, [cancelled], "cancel_requested = true, maybe_sent = true")
    await _set(database, [suspect], f"crashes = {ALONE_AFTER_CRASHES}")
    assert {*(await at_front(database)).due} == {over, cancelled, suspect}
    left = [id_ for id_ in ids if (await rows.row(database, id_)).finish_tag is None]
    assert left == [plain]


async def test_the_probe_is_what_was_tried_least_and_may_be_sent(
    database: Database, alice: UserRow, bob: UserRow
) -> None:
    tried, untried, blocked, unknown = await old(database, alice, 4)
    (paused,) = await old(database, bob, 1)
    assert await first(database) is None  # they are not set aside yet
    await at_front(database)
    await _set(database, [tried], "attempts = 3")
    await _set(database, [unknown], "maybe_sent = true")
    older = await rows.row(database, tried)
    await _set(database, [blocked], f"record_id = '{older.record_id}', version = 2")
    async with database.transaction() as connection:
        await pauses.pause(connection, bob.id, by=SYSTEM)
    assert await first(database) == untried
    assert await first(database, NEW) is None
    await _set(database, [untried], "attempts = 4")
    assert await first(database) == tried
    async with database.transaction() as connection:
        await pauses.resume(connection, bob.id, by=SYSTEM)
    assert await first(database) == paused


async def test_what_was_held_after_the_type_answered_waits_on_and_what_may_be_there_settles(
    database: Database, alice: UserRow
) -> None:
    before, after, unknown, ahead = await old(database, alice, 4)
    await at_front(database)
    await _set(database, [before, unknown], "updated_at = now() - interval '30 s'")
    await _set(database, [ahead], "updated_at = now() + interval '1 day'")
    await _set(database, [unknown, ahead], "maybe_sent = true")
    assert await release(database, since=10.0) == 3
    assert await due(database) == [before]
    written = await rows.row(database, ahead)
    assert written.next_attempt_at < written.updated_at
    row = await rows.row(database, unknown)
    assert row.next_attempt_at is not None
    assert 59 < (row.next_attempt_at - row.updated_at).total_seconds() < 61
    assert (await rows.row(database, after)).finish_tag is None
