"""Claims, leases, outcomes and versions: what a worker may do, and what it may no longer do."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text
from uuid_utils.compat import uuid4

from tests.uplift.ledger import rows
from uplift.ledger import leases, parking, sweeping
from uplift.ledger.database import Database
from uplift.ledger.due import due_among, is_over
from uplift.ledger.leases import Claim, Outcome
from uplift.ledger.tables import Upload
from uplift.ledger.transitions import Change
from uplift.ledger.users import UserRow
from uplift.lifecycle import Reason, State
from uplift.sealing import KeyRing

_LATER = text("now() + interval '1 hour'")
_BEFORE = text("now() - interval '1 second'")


def ended(claim: Claim, target: State = State.DELIVERED, **more: Any) -> Outcome:
    """An attempt that came to that."""
    details = {name: more.pop(name) for name in ("status_code", "record_receipt") if name in more}
    return Outcome(
        claim=claim,
        change=Change(
            upload_id=claim.upload_id,
            source=State.SENDING,
            target=target,
            lease_id=claim.lease_id,
            **more,
        ),
        code="code",
        duration=0.0421,
        **details,
    )


async def record(database: Database, *attempts: Outcome) -> set[UUID]:
    async with database.transaction() as connection:
        return await leases.record(connection, attempts)


async def sizes(database: Database, *ids: UUID) -> dict[UUID, int]:
    async with database.transaction() as connection:
        due = await due_among(connection, ids)
    return {id_: upload.body_bytes for id_, upload in due.items()}


async def test_a_claim_leases_the_upload_and_opens_an_attempt(
    database: Database, alice: UserRow, key_ring: KeyRing
) -> None:
    upload_id = await rows.put(database, alice, body_bytes=123)
    (claim,) = await rows.claim(database, upload_id, lease_seconds=60)
    row = await rows.row(database, upload_id)
    assert (row.state, row.lease_id, row.attempts) == ("sending", claim.lease_id, 1)
    assert (row.lease_until - row.updated_at).total_seconds() == 60
    assert (row.give_up_at - row.updated_at).total_seconds() == rows.GIVE_UP_SECONDS
    assert row.maybe_sent
    (attempt,) = await rows.attempts_of(database, upload_id)
    assert (attempt.lease_id, attempt.closed_at, attempt.outcome) == (claim.lease_id, None, None)
    assert (claim.upload_id, claim.user_id, claim.app_user_id) == (upload_id, alice.id, "alice")
    assert (claim.sealed_body, claim.body_bytes, claim.attempts) == (b"sealed", 123, 1)
    assert (claim.maybe_sent, claim.validated, claim.past_deadline) == (False, False, False)
    assert claim.record_receipt is None
    assert claim.record_id == row.record_id
    unwrapped = key_ring.unwrap(claim.wrapped_key, b"user key " + alice.id.bytes)
    assert unwrapped.identity_key == alice.key(key_ring).identity_key


async def test_a_claim_says_whether_an_earlier_attempt_may_have_arrived(
    database: Database, alice: UserRow
) -> None:
    upload_id = await rows.put(database, alice)
    (first,) = await rows.claim(database, upload_id)
    await record(database, ended(first, State.QUEUED))
    (second,) = await rows.claim(database, upload_id)
    await record(database, ended(second, State.QUEUED, maybe_sent=False))
    (third,) = await rows.claim(database, upload_id)
    assert [claim.maybe_sent for claim in (first, second, third)] == [False, True, False]
    assert [claim.attempts for claim in (first, second, third)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("older", "maybe_sent", "delivered_version", "looks_first"),
    [
        (State.EXPIRED, True, 0, True),
        (State.CANCELLED, True, 0, True),
        (State.REFUSED, True, 0, True),
        (State.REJECTED, True, 0, True),
        (State.EXPIRED, False, 0, False),
        (State.CANCELLED, False, 0, False),
        # What was delivered since took its place.
        (State.EXPIRED, True, 1, False),
    ],
)
async def test_what_came_while_an_older_version_was_sending_is_looked_up_if_that_may_be_there(
    database: Database,
    alice: UserRow,
    older: State,
    maybe_sent: bool,
    delivered_version: int,
    looks_first: bool,
) -> None:
    first = await rows.put(database, alice, identity=b"record")
    await rows.claim(database, first)
    second = await rows.put(database, alice, identity=b"record")
    other = await rows.put(database, alice, identity=b"other")
    # It ends only after the newer version was put in, which learnt nothing of it then.
    await rows.bring_to(database, first, older, maybe_sent=maybe_sent)
    await rows.set_delivered(database, first, delivered_version)
    assert not (await rows.row(database, second)).maybe_sent
    claims = {claim.upload_id: claim for claim in await rows.claim(database, second, other)}
    assert claims[second].maybe_sent is looks_first
    assert not claims[other].maybe_sent


async def test_a_claim_says_whether_it_is_withdrawn_and_how_often_it_was_searched_for(
    database: Database, alice: UserRow
) -> None:
    upload_id = await rows.put(database, alice)
    await rows.bring_to(database, upload_id, State.QUEUED, cancel_requested=True, empty_searches=1)
    (claim,) = await rows.claim(database, upload_id)
    assert (claim.cancel_requested, claim.empty_searches) == (True, 1)
    # Nothing is sent of it, so a crash leaves nothing to look for.
    assert not (await rows.row(database, upload_id)).maybe_sent


async def test_a_claim_says_whether_the_record_was_found_valid_before(
    database: Database, alice: UserRow
) -> None:
    upload_id = await rows.put(database, alice)
    (first,) = await rows.claim(database, upload_id)
    await record(database, ended(first, State.QUEUED, issues={"total": 0, "issue": []}))
    (second,) = await rows.claim(database, upload_id)
    assert (first.validated, second.validated) == (False, True)


@pytest.mark.parametrize(("give_up_at", "past_deadline"), [(_BEFORE, True), (_LATER, False)])
async def test_a_claim_says_whether_the_time_to_give_up_has_come(
    database: Database, alice: UserRow, give_up_at: Any, past_deadline: bool
) -> None:
    upload_id = await rows.put(database, alice)
    await rows.bring_to(database, upload_id, State.QUEUED, give_up_at=give_up_at)
    (claim,) = await rows.claim(database, upload_id)
    assert claim.past_deadline is past_deadline


@pytest.mark.parametrize(("machine", "over"), [(0.0, True), (-2 * 86_400.0, False)])
async def test_nothing_is_over_while_only_the_clock_of_the_ledger_says_so(
    database: Database, alice: UserRow, machine: float, over: bool
) -> None:
    upload_id = await rows.put(database, alice)
    await rows.bring_to(database, upload_id, State.QUEUED, give_up_at=_BEFORE)
    async with database.reading() as connection:
        found = await connection.scalar(
            select(is_over(0.0, time.time() + machine)).where(Upload.id == upload_id)
        )
    assert found is over


@pytest.mark.parametrize("state", [state for state in State if state is not State.QUEUED])
async def test_only_what_is_queued_can_be_claimed(
    database: Database, alice: UserRow, state: State
) -> None:
    upload_id = await rows.put(database, alice)
    await rows.bring_to(database, upload_id, state)
    assert await sizes(database, upload_id) == {}
    assert await rows.claim(database, upload_id) == []


async def test_what_is_not_due_yet_cannot_be_claimed(database: Database, alice: UserRow) -> None:
    upload_id = await rows.put(database, alice)
    await rows.bring_to(database, upload_id, State.QUEUED, next_attempt_at=_LATER)
    assert await sizes(database, upload_id) == {}
    assert await rows.claim(database, upload_id) == []


async def test_uploads_of_an_erased_user_cannot_be_claimed(
    database: Database, alice: UserRow
) -> None:
    upload_id = await rows.put(database, alice)
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE users SET erased_at = now(), wrapped_key = NULL"))
    assert await rows.claim(database, upload_id) == []


async def test_unknown_ids_and_no_ids_claim_nothing(database: Database, alice: UserRow) -> None:
    assert await sizes(database) == {}
    assert await rows.claim(database) == []
    assert await rows.claim(database, uuid4()) == []


async def test_sizes_are_of_what_is_due_in_the_order_of_acceptance(
    database: Database, alice: UserRow
) -> None:
    ids = [await rows.put(database, alice, body_bytes=size) for size in (10, 20, 30)]
    await rows.bring_to(database, ids[1], State.PARKED)
    assert list((await sizes(database, *reversed(ids))).items()) == [(ids[0], 10), (ids[2], 30)]


async def test_of_two_that_claim_at_once_each_upload_goes_to_one(
    database: Database, alice: UserRow
) -> None:
    ids = [await rows.put(database, alice) for _ in range(20)]
    claims = await asyncio.gather(*(rows.claim(database, *ids) for _ in range(6)))
    claimed = [claim.upload_id for group in claims for claim in group]
    assert sorted(claimed) == ids
    for group in claims:
        for claim in group:
            assert (await rows.row(database, claim.upload_id)).lease_id == claim.lease_id


async def test_a_claim_does_not_wait_for_a_row_that_another_is_claiming(
    database: Database, alice: UserRow
) -> None:
    ids = [await rows.put(database, alice) for _ in range(2)]
    async with database.transaction() as first:
        mine = await leases.claim(first, ids[:1], **rows.terms(lease_seconds=9, give_up_seconds=9))
        async with asyncio.timeout(5):
            theirs = await rows.claim(database, *ids)
    assert [claim.upload_id for claim in mine] == ids[:1]
    assert [claim.upload_id for claim in theirs] == ids[1:]


@pytest.mark.parametrize(
    "older", [State.QUEUED, State.SENDING, State.PARKED], ids=lambda state: state.value
)
async def test_an_unfinished_older_version_blocks_the_newer(
    database: Database, alice: UserRow, older: State
) -> None:
    first = await rows.put(database, alice, identity=b"i")
    await rows.bring_to(database, first, older, maybe_sent=True)
    second = await rows.put(database, alice, identity=b"i")
    other = await rows.put(database, alice)
    assert set(await sizes(database, second, other)) == {other}
    assert [claim.upload_id for claim in await rows.claim(database, second, other)] == [other]


@pytest.mark.parametrize(
    "older",
    [State.DELIVERED, State.REJECTED, State.REFUSED, State.EXPIRED, State.CANCELLED,
     State.SUPERSEDED],
)  # fmt: skip
async def test_an_older_version_that_ended_blocks_nothing(
    database: Database, alice: UserRow, older: State
) -> None:
    first = await rows.put(database, alice, identity=b"i")
    await rows.bring_to(database, first, older)
    second = await rows.put(database, alice, identity=b"i")
    assert len(await rows.claim(database, second)) == 1


async def test_of_two_versions_claimed_together_only_the_older_goes(
    database: Database, alice: UserRow
) -> None:
    first = await rows.put(database, alice, identity=b"i")
    await rows.bring_to(database, first, State.QUEUED, maybe_sent=True)
    second = await rows.put(database, alice, identity=b"i")
    assert [claim.upload_id for claim in await rows.claim(database, second, first)] == [first]


async def test_a_delivery_is_recorded_whole(database: Database, alice: UserRow) -> None:
    upload_id = await rows.put(database, alice, digest=b"digest")
    (claim,) = await rows.claim(database, upload_id)
    assert await record(
        database,
        ended(claim, maybe_sent=False, sealed_receipt=b"u", record_receipt=b"r", status_code=201),
    ) == {upload_id}
    row = await rows.row(database, upload_id)
    assert (row.state, row.sealed_body, row.sealed_receipt) == ("delivered", None, b"u")
    (attempt,) = await rows.attempts_of(database, upload_id)
    assert (attempt.outcome, attempt.status_code, attempt.duration_ms) == ("code", 201, 42)
    assert attempt.closed_at is not None
    of = await rows.delivery_of(database, upload_id)
    assert of is not None
    assert (of.destination, of.version, of.digest, of.sealed_receipt) == (
        "oneup",
        1,
        b"digest",
        b"r",
    )


async def test_the_next_version_is_claimed_with_the_receipt_of_what_was_delivered(
    database: Database, alice: UserRow
) -> None:
    first = await rows.put(database, alice, identity=b"i")
    (claim,) = await rows.claim(database, first)
    second = await rows.put(database, alice, identity=b"i")
    await record(database, ended(claim, record_receipt=b"receipt"))
    (newer,) = await rows.claim(database, second)
    assert newer.record_receipt == b"receipt"


@pytest.mark.parametrize(
    "target",
    [State.REJECTED, State.REFUSED, State.QUEUED, State.PARKED, State.EXPIRED],
)
async def test_an_attempt_that_did_not_deliver_notes_no_delivery(
    database: Database, alice: UserRow, target: State
) -> None:
    upload_id = await rows.put(database, alice)
    (claim,) = await rows.claim(database, upload_id)
    await record(database, ended(claim, target, clock=9.0))
    assert (await rows.row(database, upload_id)).state == target
    assert await rows.delivery_of(database, upload_id) is None


async def refused_and_newer(database: Database, user: UserRow) -> tuple[Claim, Claim]:
    """A version that was claimed and is refused by now, and the claim of a newer one."""
    first = await rows.put(database, user, identity=b"i")
    (old,) = await rows.claim(database, first)
    await rows.bring_to(database, first, State.REFUSED)
    (new,) = await rows.claim(database, await rows.put(database, user, identity=b"i"))
    return old, new


async def taken_over(database: Database, user: UserRow) -> tuple[Claim, Claim]:
    """The claim of a worker that lost its lease, and that of the next one."""
    upload_id = await rows.put(database, user)
    (late,) = await rows.claim(database, upload_id, lease_seconds=0.0)
    async with database.transaction() as connection:
        assert await rows.take_abandoned(connection) == {upload_id}
    (next_,) = await rows.claim(database, upload_id)
    return late, next_


async def test_an_older_version_that_is_delivered_late_does_not_overwrite_a_newer_receipt(
    database: Database, alice: UserRow
) -> None:
    old, new = await refused_and_newer(database, alice)
    first = old.upload_id
    await record(database, ended(new, record_receipt=b"new"))
    await rows.bring_to(database, first, State.SENDING, lease_id=old.lease_id, lease_until=_LATER)
    await record(database, ended(old, record_receipt=b"old"))
    of = await rows.delivery_of(database, first)
    assert of is not None
    assert (of.version, of.sealed_receipt) == (2, b"new")


async def test_a_worker_whose_lease_was_taken_over_cannot_record(
    database: Database, alice: UserRow
) -> None:
    slow, next_ = await taken_over(database, alice)
    upload_id = slow.upload_id
    assert await record(database, ended(slow, record_receipt=b"slow")) == set()
    row = await rows.row(database, upload_id)
    assert (row.state, row.lease_id) == ("sending", next_.lease_id)
    assert await rows.delivery_of(database, upload_id) is None
    assert await record(database, ended(next_, record_receipt=b"next")) == {upload_id}
    of = await rows.delivery_of(database, upload_id)
    assert of is not None
    assert of.sealed_receipt == b"next"


async def test_what_a_late_worker_delivered_is_not_noted_beside_the_end_that_counts(
    database: Database, alice: UserRow
) -> None:
    late, next_ = await taken_over(database, alice)
    upload_id = late.upload_id
    group = [ended(late, record_receipt=b"late"), ended(next_, State.REFUSED)]
    assert await record(database, *group) == {upload_id}
    assert (await rows.row(database, upload_id)).state == "refused"
    assert await rows.delivery_of(database, upload_id) is None


async def test_of_two_versions_delivered_in_one_group_the_newer_receipt_is_kept(
    database: Database, alice: UserRow
) -> None:
    old, new = await refused_and_newer(database, alice)
    first, second = old.upload_id, new.upload_id
    await rows.bring_to(database, first, State.SENDING, lease_id=old.lease_id, lease_until=_LATER)
    group = [ended(new, record_receipt=b"new"), ended(old, record_receipt=b"old")]
    assert await record(database, *group) == {first, second}
    of = await rows.delivery_of(database, first)
    assert of is not None
    assert (of.version, of.sealed_receipt) == (2, b"new")


async def test_of_two_deliveries_of_one_upload_in_one_group_the_receipt_of_its_lease_is_kept(
    database: Database, alice: UserRow
) -> None:
    for late_first in (True, False):
        late, next_ = await taken_over(database, alice)
        upload_id = late.upload_id
        group = [ended(late, record_receipt=b"late"), ended(next_, record_receipt=b"next")]
        await record(database, *(group if late_first else group[::-1]))
        of = await rows.delivery_of(database, upload_id)
        assert of is not None
        assert of.sealed_receipt == b"next"
        assert all(each.closed_at for each in await rows.attempts_of(database, upload_id))


async def test_a_worker_whose_lease_ran_out_may_still_record_if_nobody_took_it(
    database: Database, alice: UserRow
) -> None:
    upload_id = await rows.put(database, alice)
    (claim,) = await rows.claim(database, upload_id, lease_seconds=0.0)
    assert await record(database, ended(claim)) == {upload_id}
    async with database.transaction() as connection:
        assert await rows.take_abandoned(connection) == set()


async def test_an_outcome_recorded_twice_counts_once(database: Database, alice: UserRow) -> None:
    upload_id = await rows.put(database, alice)
    (claim,) = await rows.claim(database, upload_id)
    assert await record(database, ended(claim)) == {upload_id}
    row = await rows.row(database, upload_id)
    assert await record(database, ended(claim)) == set()
    assert await rows.row(database, upload_id) == row


async def test_a_group_records_outcomes_whose_lease_is_theirs_and_skips_the_others(
    database: Database, alice: UserRow
) -> None:
    ids = [await rows.put(database, alice) for _ in range(3)]
    claims = await rows.claim(database, *ids)
    await rows.bring_to(database, ids[1], State.SENDING)  # another's lease now
    recorded = await record(
        database, *(ended(claim, record_receipt=b"receipt") for claim in claims)
    )
    assert recorded == {ids[0], ids[2]}
    delivered = [await rows.delivered_version(database, id_) for id_ in ids]
    assert delivered == [1, 0, 1]


async def test_a_group_with_one_impossible_outcome_records_nothing(
    database: Database, alice: UserRow
) -> None:
    ids = [await rows.put(database, alice) for _ in range(2)]
    good, bad = await rows.claim(database, *ids)
    with pytest.raises(Exception, match="out of range"):
        await record(database, ended(good), ended(bad, State.QUEUED, delay=1e300))
    assert [(await rows.row(database, id_)).state for id_ in ids] == ["sending", "sending"]
    assert (await rows.attempts_of(database, ids[0]))[0].closed_at is None


async def test_an_abandoned_upload_is_queued_to_be_asked_about(
    database: Database, alice: UserRow
) -> None:
    abandoned = await rows.put(database, alice)
    held = await rows.put(database, alice)
    await rows.claim(database, abandoned, lease_seconds=0.0)
    await rows.claim(database, held)
    async with database.transaction() as connection:
        assert await rows.take_abandoned(connection, settle_seconds=30) == {abandoned}
    row = await rows.row(database, abandoned)
    assert (row.state, row.reason, row.crashes, row.maybe_sent) == (
        "queued",
        "lease_expired",
        1,
        True,
    )
    assert (row.next_attempt_at - row.updated_at).total_seconds() == pytest.approx(30, abs=3)
    assert (await rows.row(database, held)).state == "sending"


async def test_an_abandoned_second_attempt_may_have_sent_it_twice(
    database: Database, alice: UserRow
) -> None:
    upload_id = await rows.put(database, alice)
    for possible_duplicate in (False, True):
        await rows.claim(database, upload_id, lease_seconds=0.0)
        async with database.transaction() as connection:
            await rows.take_abandoned(connection)
        assert (await rows.row(database, upload_id)).possible_duplicate is possible_duplicate


async def test_an_abandoned_attempt_after_a_redrive_may_have_sent_it_twice(
    database: Database, alice: UserRow
) -> None:
    upload_id = await rows.put(database, alice)
    await rows.claim(database, upload_id)
    # As a redrive leaves it: what was attempted before counts no more.
    await rows.bring_to(database, upload_id, State.QUEUED, attempts=0)
    await rows.claim(database, upload_id, lease_seconds=0.0)
    async with database.transaction() as connection:
        await rows.take_abandoned(connection)
    assert (await rows.row(database, upload_id)).possible_duplicate


async def test_an_abandoned_attempt_stays_open_in_the_history(
    database: Database, alice: UserRow
) -> None:
    upload_id = await rows.put(database, alice)
    await rows.claim(database, upload_id, lease_seconds=0.0)
    async with database.transaction() as connection:
        await rows.take_abandoned(connection)
    (claim,) = await rows.claim(database, upload_id)
    await record(database, ended(claim))
    outcomes = [attempt.outcome for attempt in await rows.attempts_of(database, upload_id)]
    assert outcomes == [None, "code"]


async def test_what_sweeps_move_at_once_has_a_limit(database: Database, alice: UserRow) -> None:
    ids = [await rows.put(database, alice) for _ in range(3)]
    await rows.claim(database, *ids, lease_seconds=0.0)
    async with database.transaction() as connection:
        assert len(await rows.take_abandoned(connection, limit=2)) == 2
        assert len(await rows.take_abandoned(connection, limit=2)) == 1
        for id_ in ids:
            await connection.execute(
                text("UPDATE uploads SET give_up_at = now(), maybe_sent = false WHERE id = :id"),
                {"id": id_},
            )
        assert len(await sweeping.expire_past_deadline(connection, "oneup", limit=2)) == 2
        assert len(await sweeping.expire_past_deadline(connection, "oneup", limit=2)) == 1


@pytest.mark.parametrize(
    ("state", "maybe_sent", "give_up_at", "expires"),
    [
        (State.QUEUED, False, _BEFORE, True),
        (State.QUEUED, True, _BEFORE, False),  # a worker looks first
        (State.PARKED, False, _BEFORE, True),
        (State.PARKED, True, _BEFORE, True),  # nobody can look without a grant
        (State.SENDING, False, _BEFORE, False),
        (State.REFUSED, False, _BEFORE, False),
        (State.DELIVERED, False, _BEFORE, False),
        (State.QUEUED, False, _LATER, False),
        (State.PARKED, False, _LATER, False),
        (State.QUEUED, False, None, False),
    ],
)
async def test_only_what_waits_and_is_past_its_deadline_expires(
    database: Database,
    alice: UserRow,
    state: State,
    maybe_sent: bool,
    give_up_at: Any,
    expires: bool,
) -> None:
    upload_id = await rows.put(database, alice)
    await rows.bring_to(database, upload_id, state, maybe_sent=maybe_sent, give_up_at=give_up_at)
    async with database.transaction() as connection:
        assert (
            upload_id in await sweeping.expire_past_deadline(connection, "oneup", limit=9)
        ) is expires
    row = await rows.row(database, upload_id)
    assert row.state == (State.EXPIRED if expires else state)
    if expires:
        assert (row.reason, row.sealed_body) == (Reason.GAVE_UP, b"sealed")


async def test_parking_and_releasing_move_what_the_user_has_waiting_and_nobody_elses(
    database: Database, alice: UserRow, key_ring: KeyRing
) -> None:
    bob = await rows.add_user(database, key_ring, "bob")
    mine = [await rows.put(database, alice) for _ in range(2)]
    sending = await rows.put(database, alice)
    await rows.claim(database, sending)
    theirs = await rows.put(database, bob)
    async with database.transaction() as connection:
        assert await parking.park_waiting(
            connection, alice.id, destinations=["oneup"], clock=100
        ) == set(mine)
    row = await rows.row(database, mine[0])
    assert (row.state, row.reason) == ("parked", "needs_authorization")
    assert (row.give_up_at - row.updated_at).total_seconds() == 100
    assert (await rows.row(database, sending)).state == "sending"
    assert (await rows.row(database, theirs)).state == "queued"
    async with database.transaction() as connection:
        assert await parking.release_parked(connection, bob.id) == set()
        assert await parking.release_parked(connection, alice.id) == set(mine)
    row = await rows.row(database, mine[0])
    assert (row.state, row.reason, row.give_up_at) == ("queued", "released", None)


async def test_what_is_settling_is_not_parked_before_it_may_be_looked_for(
    database: Database, alice: UserRow
) -> None:
    settling = await rows.put(database, alice)
    due = await rows.put(database, alice)
    await rows.bring_to(database, settling, State.QUEUED, maybe_sent=True, next_attempt_at=_LATER)
    await rows.bring_to(database, due, State.QUEUED, maybe_sent=True)
    async with database.transaction() as connection:
        assert await parking.park_waiting(
            connection, alice.id, destinations=["oneup"], clock=60
        ) == {due}


@pytest.mark.parametrize(
    ("grant", "released"), [("active", True), ("needs_authorization", False), (None, False)]
)
async def test_what_was_parked_too_late_is_released_only_if_the_grant_works(
    database: Database, alice: UserRow, grant: str | None, released: bool
) -> None:
    upload_id = await rows.put(database, alice)
    await rows.bring_to(database, upload_id, State.PARKED)
    async with database.transaction() as connection:
        if grant is not None:
            await connection.execute(
                text(
                    "INSERT INTO grants (user_id, state, origin, sealed_tokens, expires_at)"
                    " VALUES (:user, :state, 'backend', '', now())"
                ),
                {"user": alice.id, "state": grant},
            )
        found = await parking.release_authorized(connection, limit=9)
    assert (upload_id in found) is released


async def test_records_are_locked_in_the_order_in_which_uploads_are_put_in(
    database: Database, alice: UserRow
) -> None:
    # Their ids have the opposite order: the one that is locked last was made first.
    last = await rows.put(database, alice, identity=b"\2")
    first = await rows.put(database, alice, identity=b"\1")
    claims = await rows.claim(database, last, first)
    lock = text("SELECT id FROM records WHERE id = :id FOR UPDATE SKIP LOCKED")
    records = {claim.upload_id: claim.record_id for claim in claims}
    assert records[last] < records[first]
    async with database.transaction() as connection:
        assert await connection.scalar(lock, {"id": records[first]})
        recording = asyncio.create_task(record(database, *(ended(claim) for claim in claims)))
        await rows.until_locked_out(database)
        assert await connection.scalar(lock, {"id": records[last]})
    assert await recording == {last, first}


_ACCEPTED = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
_ID = UUID(int=(int(_ACCEPTED.timestamp() * 1000) << 80) | (7 << 76) | (2 << 62) | 1)


@pytest.mark.parametrize(
    ("upload_id", "ahead", "expected"),
    [
        (_ID, timedelta(days=1), _ACCEPTED),  # PostgreSQL's clock ran ahead
        (_ID, -timedelta(days=1), _ACCEPTED - timedelta(days=1)),  # that of the API did
        (UUID(int=(4 << 76) | (2 << 62) | 1), timedelta(days=1), _ACCEPTED + timedelta(days=1)),
    ],
)
def test_an_upload_was_accepted_by_the_clock_that_ran_less_ahead(
    upload_id: UUID, ahead: timedelta, expected: datetime
) -> None:
    assert leases.accepted_at(upload_id, _ACCEPTED + ahead) == expected
