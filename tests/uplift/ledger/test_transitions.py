"""Every pair of states, on real rows: what changes, what stays, and who may not."""

from datetime import timedelta
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select
from uuid_utils.compat import uuid4

from tests.uplift.ledger import rows
from uplift.ledger.database import Database
from uplift.ledger.transitions import Change, change_state
from uplift.ledger.users import UserRow
from uplift.lifecycle import DEAD_LETTERS, TRANSITIONS, Reason, State, allowed

_PAIRS = list(product(State, State))


def change(upload_id: UUID, source: State, target: State, **more: Any) -> Change:
    """A change with what its target needs."""
    if target is State.SENDING:
        more = {
            "new_lease_id": uuid4(),
            "lease_seconds": 60.0,
            "attempt_seconds": 30.0,
            "clock": 100.0,
            **more,
        }
    if source is State.SENDING:
        more = {"lease_id": uuid4(), **more}
    return Change(upload_id=upload_id, source=source, target=target, **more)


async def make(database: Database, *changes: Change) -> set[UUID]:
    async with database.transaction() as connection:
        return await change_state(connection, changes)


@pytest.mark.parametrize(("source", "target"), [pair for pair in _PAIRS if not allowed(*pair)])
def test_a_change_that_the_table_does_not_know_cannot_even_be_made(
    source: State, target: State
) -> None:
    with pytest.raises(ValueError, match=f"No upload goes from {source} to {target}"):
        change(uuid4(), source, target)


@pytest.mark.parametrize("target", sorted(TRANSITIONS[State.SENDING]))
def test_a_change_from_sending_needs_the_lease(target: State) -> None:
    with pytest.raises(ValueError, match="Only the lease's owner"):
        Change(upload_id=uuid4(), source=State.SENDING, target=target)


@pytest.mark.parametrize(("source", "target"), [pair for pair in _PAIRS if allowed(*pair)])
async def test_an_allowed_change_takes_place_and_leaves_a_row_that_the_constraints_accept(
    database: Database, alice: UserRow, source: State, target: State
) -> None:
    upload_id = await rows.put(database, alice)
    await rows.bring_to(database, upload_id, source)
    before = await rows.row(database, upload_id)
    made = await make(
        database,
        change(upload_id, source, target, lease_id=before.lease_id, reason=Reason.RETRY),
    )
    after = await rows.row(database, upload_id)
    assert made == {upload_id}
    assert (after.state, after.reason) == (target, Reason.RETRY)
    assert after.revision == before.revision + 1
    assert after.updated_at > before.updated_at
    assert after.attempts == before.attempts + (target is State.SENDING)
    assert (after.next_attempt_at is not None) == (target is State.QUEUED)
    assert (after.lease_id is not None) == (target is State.SENDING)
    assert (after.delivered_at is not None) == (target is State.DELIVERED)
    shredded = target in {State.DELIVERED, State.CANCELLED, State.SUPERSEDED}
    assert (after.sealed_body is None) == shredded


@pytest.mark.parametrize("actual", State)
async def test_a_change_from_a_state_that_the_upload_has_left_does_nothing(
    database: Database, alice: UserRow, actual: State
) -> None:
    upload_id = await rows.put(database, alice)
    await rows.bring_to(database, upload_id, actual)
    before = await rows.row(database, upload_id)
    for source, target in _PAIRS:
        if allowed(source, target) and source is not actual:
            made = await make(
                database, change(upload_id, source, target, lease_id=before.lease_id or uuid4())
            )
            assert made == set()
    assert await rows.row(database, upload_id) == before


@pytest.mark.parametrize("target", sorted(TRANSITIONS[State.SENDING]))
async def test_a_change_under_another_lease_does_nothing(
    database: Database, alice: UserRow, target: State
) -> None:
    upload_id = await rows.put(database, alice)
    await rows.bring_to(database, upload_id, State.SENDING)
    before = await rows.row(database, upload_id)
    assert await make(database, change(upload_id, State.SENDING, target)) == set()
    assert await rows.row(database, upload_id) == before


@pytest.mark.parametrize(("source", "target"), [pair for pair in _PAIRS if allowed(*pair)])
def test_only_a_dead_letter_that_is_queued_is_reset(source: State, target: State) -> None:
    if source in DEAD_LETTERS and target is State.QUEUED:
        assert change(uuid4(), source, target, reset=True).reset
    else:
        with pytest.raises(ValueError, match="be reset"):
            change(uuid4(), source, target, reset=True)


async def test_no_changes_need_no_statement(database: Database) -> None:
    assert await make(database) == set()


async def test_a_change_of_an_upload_that_is_not_there_does_nothing(database: Database) -> None:
    assert await make(database, change(uuid4(), State.QUEUED, State.CANCELLED)) == set()


async def test_of_many_changes_each_takes_place_or_not_by_itself(
    database: Database, alice: UserRow
) -> None:
    ids = [await rows.put(database, alice) for _ in range(4)]
    await rows.bring_to(database, ids[1], State.PARKED)
    made = await make(
        database, *(change(upload_id, State.QUEUED, State.EXPIRED) for upload_id in ids)
    )
    assert made == {ids[0], ids[2], ids[3]}


async def test_what_a_change_leaves_out_stays_as_it_is(database: Database, alice: UserRow) -> None:
    upload_id = await rows.put(database, alice)
    await rows.bring_to(
        database,
        upload_id,
        State.SENDING,
        maybe_sent=True,
        possible_duplicate=True,
        last_response="http_500",
        issues={"total": 1, "issue": []},
        sealed_receipt=b"sealed",
    )
    before = await rows.row(database, upload_id)
    await make(database, change(upload_id, State.SENDING, State.QUEUED, lease_id=before.lease_id))
    after = await rows.row(database, upload_id)
    for name in ("maybe_sent", "possible_duplicate", "last_response", "issues", "sealed_receipt",
                 "crashes", "give_up_at", "digest", "sealed_body"):  # fmt: skip
        assert getattr(after, name) == getattr(before, name), name


async def test_what_a_change_says_is_written(database: Database, alice: UserRow) -> None:
    upload_id = await rows.put(database, alice)
    await rows.bring_to(database, upload_id, State.SENDING, maybe_sent=True)
    before = await rows.row(database, upload_id)
    await make(
        database,
        change(
            upload_id,
            State.SENDING,
            State.DELIVERED,
            lease_id=before.lease_id,
            maybe_sent=False,
            possible_duplicate=True,
            last_response="http_201",
            issues={"total": 1, "issue": [{"diagnostics": "ä ☃ ' \\ %s :x"}]},
            sealed_receipt=b"\x00\xff",
        ),
    )
    after = await rows.row(database, upload_id)
    assert after.maybe_sent is False
    assert after.possible_duplicate is True
    assert after.last_response == "http_201"
    assert after.issues == {"total": 1, "issue": [{"diagnostics": "ä ☃ ' \\ %s :x"}]}
    assert after.sealed_receipt == b"\x00\xff"
    assert after.reason is None


async def test_a_queued_upload_is_due_after_its_delay_on_the_databases_clock(
    database: Database, alice: UserRow
) -> None:
    upload_id = await rows.put(database, alice)
    await rows.bring_to(database, upload_id, State.SENDING)
    lease_id = (await rows.row(database, upload_id)).lease_id
    await make(
        database, change(upload_id, State.SENDING, State.QUEUED, lease_id=lease_id, delay=90.5)
    )
    row = await rows.row(database, upload_id)
    assert row.next_attempt_at - row.updated_at == timedelta(seconds=90.5)


async def test_the_clock_to_give_up_starts_with_the_first_claim_and_runs_on_through_retries(
    database: Database, alice: UserRow
) -> None:
    upload_id = await rows.put(database, alice)
    assert (await rows.row(database, upload_id)).give_up_at is None
    ends = set()
    for _ in range(2):
        lease_id = uuid4()
        await make(database, change(upload_id, State.QUEUED, State.SENDING, new_lease_id=lease_id))
        ends.add((await rows.row(database, upload_id)).give_up_at)
        await make(database, change(upload_id, State.SENDING, State.QUEUED, lease_id=lease_id))
        ends.add((await rows.row(database, upload_id)).give_up_at)
    assert len(ends) == 1
    assert None not in ends


async def test_parking_starts_a_clock_of_its_own_and_release_stops_it(
    database: Database, alice: UserRow
) -> None:
    upload_id = await rows.put(database, alice)
    await make(database, change(upload_id, State.QUEUED, State.PARKED, clock=1000.0))
    row = await rows.row(database, upload_id)
    assert row.give_up_at - row.updated_at == timedelta(seconds=1000)
    await make(database, change(upload_id, State.PARKED, State.QUEUED))
    assert (await rows.row(database, upload_id)).give_up_at is None


@pytest.mark.parametrize("dead", [State.EXPIRED, State.REFUSED, State.REJECTED])
async def test_a_redriven_upload_has_a_fresh_clock(
    database: Database, alice: UserRow, dead: State
) -> None:
    upload_id = await rows.put(database, alice)
    async with database.transaction() as connection:
        long_ago = await connection.scalar(select(func.now() - timedelta(days=9)))
    await rows.bring_to(database, upload_id, dead, give_up_at=long_ago)
    await make(database, change(upload_id, dead, State.QUEUED))
    assert (await rows.row(database, upload_id)).give_up_at is None


async def test_crashes_in_a_row_are_counted_and_an_attempt_that_ends_clears_them(
    database: Database, alice: UserRow
) -> None:
    upload_id = await rows.put(database, alice)
    counts = []
    for crashed in (True, True, False, True, None):
        lease_id = uuid4()
        await make(database, change(upload_id, State.QUEUED, State.SENDING, new_lease_id=lease_id))
        await make(
            database,
            change(
                upload_id,
                State.SENDING,
                State.QUEUED,
                lease_id=lease_id,
                **{"keeps_crashes": True} if crashed is None else {"crashed": crashed},
            ),
        )
        counts.append((await rows.row(database, upload_id)).crashes)
    assert counts == [1, 2, 0, 1, 1]


async def test_empty_searches_are_counted_until_it_may_have_been_sent_again(
    database: Database, alice: UserRow
) -> None:
    upload_id = await rows.put(database, alice)

    async def empty_searches(**change_: Any) -> int:
        (claim,) = await rows.claim(database, upload_id)
        await make(
            database,
            change(upload_id, State.SENDING, State.QUEUED, lease_id=claim.lease_id, **change_),
        )
        return int((await rows.row(database, upload_id)).empty_searches)

    assert await empty_searches(empty_searches=1) == 1
    assert await empty_searches() == 1
    assert await empty_searches(empty_searches=0) == 0
    assert await empty_searches(empty_searches=2) == 2
    assert await empty_searches(reason=Reason.LEASE_EXPIRED) == 0
    await empty_searches(empty_searches=1)
    await make(database, change(upload_id, State.QUEUED, State.PARKED, clock=60.0))
    assert (await rows.row(database, upload_id)).empty_searches == 1
    # Who knows how long ago it was searched for.
    await make(database, change(upload_id, State.PARKED, State.QUEUED))
    assert (await rows.row(database, upload_id)).empty_searches == 0


async def test_a_free_attempt_costs_neither_an_attempt_nor_time(
    database: Database, alice: UserRow
) -> None:
    upload_id = await rows.put(database, alice)
    for free in (False, True, True):
        lease_id = uuid4()
        await make(database, change(upload_id, State.QUEUED, State.SENDING, new_lease_id=lease_id))
        before = await rows.row(database, upload_id)
        ended = change(
            upload_id,
            State.SENDING,
            State.QUEUED,
            lease_id=lease_id,
            delay=900.0,
            free=free,
        )
        await make(database, ended)
        after = await rows.row(database, upload_id)
        assert before.attempts == 2 - (not free)
        assert after.attempts == 1
        stopped = timedelta(seconds=900.0 if free else 0.0)
        assert after.give_up_at == before.give_up_at + stopped


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (State.SENDING, State.DELIVERED),
        (State.SENDING, State.EXPIRED),
        (State.PARKED, State.QUEUED),
        (State.QUEUED, State.SENDING),
    ],
)
def test_only_an_attempt_that_ends_in_the_queue_is_free(source: State, target: State) -> None:
    with pytest.raises(ValueError, match="free"):
        change(uuid4(), source, target, free=True)


async def test_an_unfinished_upload_without_a_body_is_never_queued_again(
    database: Database, alice: UserRow
) -> None:
    upload_id = await rows.put(database, alice)
    await rows.bring_to(database, upload_id, State.REJECTED, sealed_body=None)
    with pytest.raises(Exception, match="ck_uploads_unfinished_has_body"):
        await make(database, change(upload_id, State.REJECTED, State.QUEUED))


_STEPS = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=12)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=_STEPS)
async def test_any_walk_through_the_states_ends_where_the_table_says(
    database: Database, alice: UserRow, steps: list[tuple[int, bool]]
) -> None:
    upload_id = await rows.put(database, alice)
    state, attempts, revision, lease_id = State.QUEUED, 0, 1, None
    for choice, holds_lease in steps:
        ways = sorted(TRANSITIONS[state])
        if not ways:
            break
        target = ways[choice % len(ways)]
        new_lease = uuid4()
        held = lease_id if holds_lease else uuid4()
        made = await make(
            database, change(upload_id, state, target, lease_id=held, new_lease_id=new_lease)
        )
        if state is State.SENDING and not holds_lease:
            assert made == set()
            continue
        assert made == {upload_id}
        attempts += target is State.SENDING
        lease_id = new_lease if target is State.SENDING else None
        state, revision = target, revision + 1
    row = await rows.row(database, upload_id)
    assert (row.state, row.attempts, row.revision, row.lease_id) == (
        state,
        attempts,
        revision,
        lease_id,
    )
