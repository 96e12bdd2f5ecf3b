"""Cancelling in the ledger: at once, on request, or too late."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from uuid_utils.compat import uuid4

from tests.uplift.ledger import rows
from uplift.ledger import audit, cancelling
from uplift.ledger.audit import SYSTEM
from uplift.ledger.cancelling import Cancelled
from uplift.ledger.database import Database
from uplift.ledger.filters import Filter
from uplift.ledger.users import UserRow
from uplift.lifecycle import Reason, State

_LATER = text("timestamptz '2999-01-01 00:00Z'")


async def cancel(database: Database, *ids: UUID) -> dict[UUID, Cancelled]:
    async with database.transaction() as connection:
        return await cancelling.cancel(connection, ids, by=SYSTEM)


async def noted(database: Database) -> list[UUID | None]:
    async with database.transaction() as connection:
        events = await audit.list_events(connection)
    return [event.upload_id for event in events if event.action == "upload_cancelled"]


@pytest.mark.parametrize(
    ("state", "maybe_sent", "response", "becomes"),
    [
        (State.QUEUED, False, Cancelled.DONE, State.CANCELLED),
        (State.QUEUED, True, Cancelled.REQUESTED, State.QUEUED),
        (State.SENDING, True, Cancelled.REQUESTED, State.SENDING),
        (State.PARKED, False, Cancelled.DONE, State.CANCELLED),
        (State.PARKED, True, Cancelled.DONE, State.CANCELLED),
        (State.CANCELLED, False, Cancelled.DONE, State.CANCELLED),
        (State.DELIVERED, False, Cancelled.TOO_LATE, State.DELIVERED),
        (State.REJECTED, False, Cancelled.TOO_LATE, State.REJECTED),
        (State.REFUSED, False, Cancelled.TOO_LATE, State.REFUSED),
        (State.EXPIRED, True, Cancelled.TOO_LATE, State.EXPIRED),
        (State.SUPERSEDED, False, Cancelled.TOO_LATE, State.SUPERSEDED),
    ],
)
async def test_what_cancelling_comes_to_and_that_repeating_it_adds_nothing(
    database: Database,
    alice: UserRow,
    state: State,
    maybe_sent: bool,
    response: Cancelled,
    becomes: State,
) -> None:
    upload_id = await rows.put(database, alice)
    await rows.bring_to(database, upload_id, state, maybe_sent=maybe_sent)
    before = await rows.row(database, upload_id)
    assert await cancel(database, upload_id, uuid4()) == {upload_id: response}
    after = await rows.row(database, upload_id)
    assert (after.state, after.maybe_sent) == (becomes, maybe_sent)
    assert after.cancel_requested is (response is Cancelled.REQUESTED)
    if becomes is State.CANCELLED and state is not becomes:
        assert (after.reason, after.sealed_body) == (Reason.CANCELLED_BY_OWNER, None)
    acted = (after.state, after.cancel_requested) != (before.state, False)
    assert after.revision == before.revision + acted
    assert await cancel(database, upload_id) == {upload_id: response}
    assert await rows.row(database, upload_id) == after
    assert await noted(database) == [upload_id] * acted


@pytest.mark.parametrize(
    ("reason", "sooner"),
    [
        (Reason.RETRY, True),
        (Reason.HELD, True),
        (Reason.SETTLING, False),
        (Reason.LEASE_EXPIRED, False),
        (Reason.REDRIVEN, False),
        (Reason.AWAITING_TOKEN, False),
        (Reason.NO_TOKEN, False),
    ],
)
async def test_a_request_shortens_a_wait_only_where_nothing_has_to_settle(
    database: Database, alice: UserRow, reason: Reason, sooner: bool
) -> None:
    upload_id = await rows.put(database, alice)
    await rows.bring_to(
        database,
        upload_id,
        State.QUEUED,
        maybe_sent=True,
        reason=reason,
        next_attempt_at=_LATER,
    )
    await cancel(database, upload_id)
    row = await rows.row(database, upload_id)
    assert (row.next_attempt_at == row.updated_at) is sooner
    assert row.reason == reason


async def test_a_request_stays_with_an_upload_until_a_worker_sees_it(
    database: Database, alice: UserRow
) -> None:
    upload_id = await rows.put(database, alice)
    await rows.bring_to(database, upload_id, State.QUEUED, maybe_sent=True)
    await cancel(database, upload_id)
    (claim,) = await rows.claim(database, upload_id)
    assert claim.cancel_requested


async def test_what_was_sent_for_certain_not_after_all_ends_when_it_is_asked_for_again(
    database: Database, alice: UserRow
) -> None:
    upload_id = await rows.put(database, alice)
    await rows.bring_to(database, upload_id, State.QUEUED, cancel_requested=True)
    assert await cancel(database, upload_id) == {upload_id: Cancelled.DONE}
    assert await noted(database) == []  # it was when it was asked for first


async def test_what_is_parked_after_the_request_is_ended_by_the_sweep(
    database: Database, alice: UserRow
) -> None:
    asked, other = [await rows.put(database, alice) for _ in range(2)]
    await rows.bring_to(database, asked, State.PARKED, cancel_requested=True, maybe_sent=True)
    await rows.bring_to(database, other, State.PARKED)
    async with database.transaction() as connection:
        assert await cancelling.cancel_parked(connection, limit=9) == {asked}
        assert await cancelling.cancel_parked(connection, limit=9) == set()
    row = await rows.row(database, asked)
    assert (row.state, row.reason) == (State.CANCELLED, Reason.CANCELLED_BY_OWNER)
    assert row.maybe_sent


async def test_many_are_cancelled_each_as_it_stands(database: Database, alice: UserRow) -> None:
    ids = [await rows.put(database, alice) for _ in range(4)]
    await rows.bring_to(database, ids[1], State.SENDING)
    await rows.bring_to(database, ids[2], State.DELIVERED)
    responses = await cancel(database, *ids[::-1])
    assert [responses[id_].value for id_ in ids] == ["done", "requested", "too_late", "done"]
    assert sorted(await noted(database), key=str) == [ids[0], ids[1], ids[3]]


async def test_a_filter_finds_what_has_not_ended(database: Database, alice: UserRow) -> None:
    ids = [await rows.put(database, alice) for _ in range(3)]
    await rows.bring_to(database, ids[1], State.EXPIRED)

    async def found(**named: Any) -> list[UUID]:
        async with database.transaction() as connection:
            matching = Filter(**named)
            listed = await cancelling.find(connection, matching, after=None, limit=9)
            assert await cancelling.count(connection, matching) == len(listed)
            return listed

    assert await found() == [ids[0], ids[2]]
    assert await found(user_id=uuid4()) == []
    assert await found(states=[State.EXPIRED]) == []
    async with database.transaction() as connection:
        assert await cancelling.find(connection, Filter(), after=ids[0], limit=1) == [ids[2]]
