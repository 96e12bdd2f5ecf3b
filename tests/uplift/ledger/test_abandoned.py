"""What is taken from workers that vanished, when it is due again, and what is charged for it."""

import time
from uuid import UUID

import pytest

from tests.uplift.ledger import rows
from uplift.ledger.abandoned import Signs, Taken, take_abandoned
from uplift.ledger.database import Database
from uplift.ledger.users import UserRow
from uplift.lifecycle import REFUSED_AFTER_CRASHES_ALONE, State

_SETTLE = 60.0
_ATTEMPT = 60.0  # of `rows.claim`


async def _take(
    database: Database, *, leases_count: bool = True, counts_for: float | None = 5.0
) -> Taken:
    signs = Signs(
        leases_count=leases_count,
        silence_seconds=15.0,
        silence_counts_until=None if counts_for is None else time.time() + counts_for,
    )
    async with database.transaction() as connection:
        return await take_abandoned(connection, signs, limit=9, settle_seconds=_SETTLE)


async def _due_in(database: Database, upload_id: UUID) -> float:
    row = await rows.row(database, upload_id)
    return float((row.next_attempt_at - row.updated_at).total_seconds())


async def test_what_a_silent_process_had_is_taken_and_settles_from_its_deadline(
    database: Database, alice: UserRow
) -> None:
    silent = await rows.add_process(database, silent_seconds=16)
    heard = await rows.add_process(database, silent_seconds=14)
    theirs = await rows.put(database, alice)
    others = await rows.put(database, alice)
    await rows.claim(database, theirs, process_id=silent)
    await rows.claim(database, others, process_id=heard)
    assert await _take(database) == Taken({theirs}, set())
    # It may only stand still, and what it sent may arrive until then.
    assert await _due_in(database, theirs) == pytest.approx(_ATTEMPT + _SETTLE, abs=3)


@pytest.mark.parametrize("crashed", [True, False])
async def test_what_an_ended_process_had_settles_from_now(
    database: Database, alice: UserRow, crashed: bool
) -> None:
    process_id = await rows.add_process(database)
    upload_id = await rows.put(database, alice)
    await rows.claim(database, upload_id, process_id=process_id)
    await rows.end_process(database, process_id, crashed=crashed)
    # Whatever the clocks and the silence of others say.
    taken = await _take(database, leases_count=False, counts_for=None)
    assert taken == Taken({upload_id}, set())
    assert await _due_in(database, upload_id) == _SETTLE
    # A process that ended by itself was not crashed by anything.
    row = await rows.row(database, upload_id)
    assert (row.crashes, row.crashes_alone) == (crashed, crashed)


@pytest.mark.parametrize("counts_for", [None, -0.1])
async def test_silence_takes_nothing_while_it_does_not_count(
    database: Database, alice: UserRow, counts_for: float | None
) -> None:
    process_id = await rows.add_process(database, silent_seconds=40)
    upload_id = await rows.put(database, alice)
    await rows.claim(database, upload_id, process_id=process_id)
    assert await _take(database, counts_for=counts_for) == Taken(set(), set())
    assert (await rows.row(database, upload_id)).state == State.SENDING


@pytest.mark.parametrize("silent_seconds", [0, 20])
async def test_a_lease_that_runs_out_is_a_crash_only_of_a_process_that_is_silent(
    database: Database, alice: UserRow, silent_seconds: float
) -> None:
    process_id = await rows.add_process(database, silent_seconds=silent_seconds)
    upload_id = await rows.put(database, alice)
    await rows.claim(database, upload_id, lease_seconds=0.0, process_id=process_id)
    assert await _take(database, counts_for=None) == Taken({upload_id}, set())
    row = await rows.row(database, upload_id)
    assert (row.crashes, row.crashes_alone) == ((1, 1) if silent_seconds else (0, 0))


async def test_just_after_a_jump_of_a_clock_no_lease_has_run_out(
    database: Database, alice: UserRow
) -> None:
    upload_id = await rows.put(database, alice)
    await rows.claim(database, upload_id, lease_seconds=0.0)
    assert await _take(database, leases_count=False, counts_for=None) == Taken(set(), set())


async def test_a_crash_is_charged_only_to_an_upload_that_was_alone(
    database: Database, alice: UserRow
) -> None:
    ids = [await rows.put(database, alice) for _ in range(2)]
    for _ in range(REFUSED_AFTER_CRASHES_ALONE + 2):
        process_id = await rows.add_process(database)
        await rows.claim(database, *ids, process_id=process_id)
        await rows.end_process(database, process_id)
        assert await _take(database) == Taken(set(ids), set())
        for upload_id in ids:
            await rows.bring_to(database, upload_id, State.QUEUED)
    for upload_id in ids:
        row = await rows.row(database, upload_id)
        assert (row.crashes, row.crashes_alone) == (REFUSED_AFTER_CRASHES_ALONE + 2, 0)


async def test_an_upload_is_refused_after_five_crashes_alone(
    database: Database, alice: UserRow
) -> None:
    upload_id = await rows.put(database, alice)
    refused = []
    for _ in range(REFUSED_AFTER_CRASHES_ALONE):
        await rows.bring_to(database, upload_id, State.QUEUED)
        process_id = await rows.add_process(database)
        await rows.claim(database, upload_id, process_id=process_id)
        await rows.end_process(database, process_id)
        refused.append((await _take(database)).refused)
    assert refused == [*[set()] * (REFUSED_AFTER_CRASHES_ALONE - 1), {upload_id}]
