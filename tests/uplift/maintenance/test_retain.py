"""What retention removes, what stays, and that nobody waits for it."""

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, insert, select, text, update
from uuid_utils.compat import uuid7

from tests import factories
from tests.keys import KEY_RING
from tests.uplift.ledger import rows
from uplift.ledger import batches, credentials, retention, tombstones, uploads
from uplift.ledger.batches import NewLine
from uplift.ledger.database import Database
from uplift.ledger.summary import summarize
from uplift.ledger.tables import Attempt, Batch, BatchLine, Credential, Table, Tombstone, Upload
from uplift.ledger.uploads import UploadRow
from uplift.ledger.users import UserRow
from uplift.lifecycle import Reason, State
from uplift.maintenance.retain import Retained, Retainer
from uplift.queues import UPLOADS
from uplift.sealing import KeyRing
from uplift.settings import Settings
from uplift.wiring import Relay

_DAYS = {
    "retain_delivered_days": 30,
    "retain_withdrawn_days": 20,
    "retain_bodies_days": 10,
    "retain_failed_days": 60,
    "retain_batches_days": 40,
}


@pytest.fixture
async def alice(database: Database, key_ring: KeyRing) -> UserRow:
    return await rows.add_user(database, key_ring)


async def retain(database: Database, **settings: Any) -> Retained:
    """One whole pass."""
    given = Settings.model_validate({**_DAYS, **settings})
    return await Retainer(database, given, rows=3, rest_factor=0.0).retain(seconds=60)


async def old(
    database: Database,
    user: UserRow,
    state: State,
    days: float,
    *,
    came: float = 100,
    **columns: Any,
) -> UUID:
    """An upload that came `came` days ago, and has its state for `days` days."""
    upload_id = uuid7(nanoseconds=int((datetime.now(UTC) - timedelta(days=came)).timestamp() * 1e9))
    new = rows.new_upload(user)
    async with database.transaction() as connection:
        await rows.put_in_unread(
            connection,
            [replace(new, id=upload_id, digest=upload_id.bytes, identity=upload_id.bytes)],
        )
    since = text(f"now() - interval '{days} days'")
    if state is State.DELIVERED:
        columns = {
            "delivered_at": since,
            "sealed_receipt": b"sealed",
            "attempts": 2,
            "reason": None,
            **columns,
        }
    await rows.bring_to(database, upload_id, state, updated_at=since, **columns)
    return upload_id


async def ids(database: Database, table: type[Table], column: Any) -> set[UUID]:
    async with database.transaction() as connection:
        return set(await connection.scalars(select(column)))


async def left(database: Database) -> set[UUID]:
    return await ids(database, Upload, Upload.id)


@pytest.mark.parametrize(
    ("state", "young", "aged"),
    [
        (State.DELIVERED, 29, 31),
        (State.CANCELLED, 19, 21),
        (State.SUPERSEDED, 19, 21),
        (State.REJECTED, 59, 61),
        (State.REFUSED, 59, 61),
        (State.EXPIRED, 59, 61),
    ],
)
async def test_an_upload_that_ended_goes_after_its_days_and_not_before(
    database: Database, alice: UserRow, state: State, young: int, aged: int
) -> None:
    stays = [await old(database, alice, state, young) for _ in range(2)]
    for _ in range(5):
        await old(database, alice, state, aged)

    done = await retain(database)

    assert done.thinned + done.removed == 5
    assert await left(database) == set(stays)
    assert (await retain(database)) == Retained()


async def test_an_unfinished_upload_stays_at_any_age(database: Database, alice: UserRow) -> None:
    there = {
        await old(database, alice, state, 1000, came=1000)
        for state in (State.QUEUED, State.SENDING, State.PARKED)
    }
    await retain(database)
    assert await left(database) == there


async def test_0_days_keep_for_ever(database: Database, alice: UserRow) -> None:
    there = {await old(database, alice, state, 900, came=1000) for state in State if state.final}
    assert await retain(database, **dict.fromkeys(_DAYS, 0)) == Retained()
    assert await left(database) == there


async def test_a_body_goes_before_its_upload_does(database: Database, alice: UserRow) -> None:
    young = await old(database, alice, State.REFUSED, 9)
    aged = [await old(database, alice, s, 11) for s in (State.REFUSED, State.EXPIRED)]

    assert await retain(database) == Retained(shredded=2)

    assert (await rows.row(database, young)).sealed_body is not None
    for upload_id in aged:
        row = await rows.row(database, upload_id)
        assert row.sealed_body is None
        assert row.state != State.DELIVERED


async def test_a_thinned_upload_leaves_a_tombstone_and_loses_its_attempts(
    database: Database, alice: UserRow
) -> None:
    upload_id = await old(
        database,
        alice,
        State.DELIVERED,
        31,
        possible_duplicate=True,
        reason=Reason.STORED_DIFFERENTLY,
    )
    async with database.transaction() as connection:
        await connection.execute(insert(Attempt).values(lease_id=uuid7(), upload_id=upload_id))
        before = (await uploads.get_uploads(connection, [upload_id]))[upload_id]

    assert await retain(database) == Retained(thinned=1)

    async with database.transaction() as connection:
        after = (await uploads.get_uploads(connection, [upload_id]))[upload_id]
        assert await connection.scalar(select(func.count()).select_from(Attempt)) == 0
        assert (await summarize(connection, alice.id)).by_type == {
            "Observation": {State.DELIVERED: 1}
        }
    assert {name: getattr(after, name) for name in _TOLD} == {
        name: getattr(before, name) for name in _TOLD
    }
    # Its status says less than before, so a client with the old ETag must read it again.
    assert after.revision > before.revision
    assert (after.issues, after.last_response) == (None, None)


_TOLD = (
    "id", "user_id", "app_user_id", "batch_id", "fhir_version", "resource_type", "state", "reason",
    "attempts", "maybe_sent", "possible_duplicate", "sealed_receipt", "next_attempt_at",
    "created_at", "delivered_at",
)  # fmt: skip


async def test_without_tombstones_only_the_record_is_left(
    database: Database, alice: UserRow
) -> None:
    upload_id = await old(database, alice, State.DELIVERED, 31)
    await retain(database, retain_tombstones=False)
    async with database.transaction() as connection:
        assert await uploads.get_uploads(connection, [upload_id]) == {}
    assert await ids(database, Tombstone, Tombstone.upload_id) == set()


async def test_an_upload_that_may_have_been_sent_is_not_removed(
    database: Database, alice: UserRow
) -> None:
    there = await old(database, alice, State.EXPIRED, 400, came=500, maybe_sent=True)

    assert await retain(database) == Retained(shredded=1)

    assert (await rows.row(database, there)).maybe_sent
    # Once a later version is delivered, the doubt is gone.
    await rows.set_delivered(database, there, 2)
    assert await retain(database) == Retained(removed=1)


@pytest.mark.parametrize("with_tombstone", [True, False])
async def test_the_same_content_is_a_duplicate_for_good(
    relay: Relay, database: Database, with_tombstone: bool
) -> None:
    await factories.user(relay)
    first = await factories.accepted(relay)
    await relay.deliverer.deliver(UPLOADS)
    told = await factories.status(relay, first)
    older = await age(database, first.upload.id)
    assert await retain(database, retain_tombstones=with_tombstone) == Retained(thinned=1)

    again = await factories.accepted(relay)

    assert again.duplicate
    assert again.upload.id == older
    assert (again.upload.state, again.upload.resource_type) == (State.DELIVERED, "Observation")
    assert (again.upload.sealed_receipt == told.sealed_receipt) is with_tombstone
    assert (again.upload.delivered_at is not None) is with_tombstone
    assert await left(database) == set()


async def age(database: Database, upload_id: UUID) -> UUID:
    """Change an upload and its id, as if it had come 100 days ago. Returns the new id."""
    older = uuid7(nanoseconds=int((datetime.now(UTC) - timedelta(days=100)).timestamp() * 1e9))
    async with database.transaction() as connection:
        await connection.execute(text("DELETE FROM attempts"))
        await connection.execute(
            update(Upload)
            .where(Upload.id == upload_id)
            .values(id=older, delivered_at=text("now() - interval '99 days'"))
        )
        await connection.execute(text("UPDATE records SET latest_upload_id = :id"), {"id": older})
    return older


async def test_the_content_of_a_removed_upload_is_accepted_as_new(
    relay: Relay, database: Database
) -> None:
    user = await factories.user(relay)
    first = await factories.accepted(relay)
    older = await age(database, first.upload.id)
    await rows.bring_to(
        database, older, State.REJECTED, updated_at=text("now() - interval '99 days'")
    )
    assert await retain(database) == Retained(removed=1)
    again = await factories.accepted(relay)
    assert not again.duplicate
    assert again.upload.user_id == user.id


async def test_a_locked_row_is_skipped(database: Database, alice: UserRow) -> None:
    locked = await old(database, alice, State.SUPERSEDED, 31)
    free = await old(database, alice, State.SUPERSEDED, 31)
    async with database.transaction() as other:
        await other.execute(select(Upload.id).where(Upload.id == locked).with_for_update())
        assert await retain(database) == Retained(removed=1)
        assert await left(database) == {locked}
    assert await retain(database) == Retained(removed=1)
    assert free != locked


async def test_a_user_who_is_being_erased_is_skipped(database: Database, alice: UserRow) -> None:
    await old(database, alice, State.DELIVERED, 31)
    async with database.transaction() as connection:
        await connection.execute(
            text("UPDATE users SET erased_at = now(), master_key_id = NULL, wrapped_key = NULL")
        )
    assert await retain(database) == Retained()


async def test_a_step_has_a_limit_and_the_next_goes_on_where_it_ended(
    database: Database, alice: UserRow
) -> None:
    for _ in range(3):
        await old(database, alice, State.PARKED, 100)
    gone = [await old(database, alice, State.DELIVERED, 31) for _ in range(4)]
    given = Settings.model_validate(_DAYS)
    windows = retention.Windows(
        delivered=30, tombstones=True, withdrawn=None, bodies=None, failed=None, batches=None
    )
    async with database.transaction() as connection:
        walked = await retention.walk_uploads(
            connection, windows, after=retention.FIRST_UPLOAD, limit=5
        )
        assert (walked.looked_at, walked.thinned, walked.last) == (5, 2, gone[1])
        walked = await retention.walk_uploads(connection, windows, after=gone[1], limit=5)
        assert (walked.looked_at, walked.thinned, walked.last) == (2, 2, None)
    # A new process starts at the oldest, and pauses when it has seen all.
    retainer = Retainer(database, given, rows=2, rest_factor=0.0)
    await old(database, alice, State.DELIVERED, 31)
    assert await retainer.retain(seconds=60) == Retained(thinned=1)
    await old(database, alice, State.DELIVERED, 31)
    assert await retainer.retain(seconds=60) == Retained()


async def add_batch(database: Database, user: UserRow, days: int, lines: list[NewLine]) -> UUID:
    batch_id = uuid7()
    async with database.transaction() as connection:
        await batches.add_batch(connection, batch_id, user.id)
        await batches.add_lines(connection, batch_id, lines)
        then = text(f"now() - interval '{days} days'")
        await connection.execute(
            update(Batch).where(Batch.id == batch_id).values(created_at=then, updated_at=then)
        )
    return batch_id


async def test_a_batch_goes_after_the_last_of_its_uploads(
    database: Database, alice: UserRow
) -> None:
    thinned = await old(database, alice, State.DELIVERED, 31)
    lines = [
        NewLine(line=1, upload_id=thinned),
        NewLine(line=2, upload_id=uuid7()),
        *(NewLine(line=line, problem_code="not_json", problem="No.") for line in range(3, 12)),
    ]
    young = await add_batch(database, alice, 39, lines)
    with_uploads = await add_batch(database, alice, 90, lines)
    over = await add_batch(database, alice, 90, lines)
    still = await old(database, alice, State.REFUSED, 1)
    async with database.transaction() as connection:
        await connection.execute(
            update(Upload).where(Upload.id == still).values(batch_id=with_uploads)
        )

    assert (await retain(database)).batches == 1

    assert await ids(database, Batch, Batch.id) == {young, with_uploads}
    assert over not in await ids(database, BatchLine, BatchLine.batch_id)
    async with database.transaction() as connection:
        counted = await batches.count_by_state(connection, young)
        shown = await batches.list_lines(connection, young, after=0, limit=3)
    assert counted == {State.DELIVERED: 1}
    assert [line.state for line in shown] == [State.DELIVERED, None, None]


async def test_device_tokens_go_a_day_after_they_expire_and_api_keys_stay(
    database: Database, alice: UserRow
) -> None:
    async with database.transaction() as connection:
        key, _ = await credentials.add_api_key(connection, KEY_RING, "backend", frozenset())
        tokens = [
            (await credentials.add_device_token(connection, KEY_RING, alice.id, seconds)).id
            for seconds in (600, -600, -90_000, -99_000)
        ]
    assert (await retain(database)).tokens == 2
    assert await ids(database, Credential, Credential.id) == {key, *tokens[:2]}


async def test_idempotency_keys_go_when_they_expire_and_their_tokens_after_them(
    database: Database, alice: UserRow
) -> None:
    async with database.transaction() as connection:
        tokens = [
            (await credentials.add_device_token(connection, KEY_RING, alice.id, -90_000)).id
            for _ in range(2)
        ]
        for token, ends in zip(tokens, (timedelta(hours=-1), timedelta(hours=1)), strict=True):
            await connection.execute(
                text(
                    "INSERT INTO idempotency_keys (credential_id, key_hash, request_digest,"
                    " upload_id, expires_at)"
                    " VALUES (:token, '', '', :token, now() + CAST(:ends AS interval))"
                ),
                {"token": token, "ends": ends},
            )
    done = await retain(database)
    assert (done.keys, done.tokens) == (1, 1)
    assert await ids(database, Credential, Credential.id) == {tokens[1]}


async def test_the_lag_is_for_how_long_the_oldest_is_overdue(
    database: Database, alice: UserRow
) -> None:
    windows = retention.Windows(
        delivered=30, tombstones=True, withdrawn=20, bodies=None, failed=None, batches=None
    )

    async def lag() -> float:
        async with database.transaction() as connection:
            return await retention.lag(connection, windows) / 86_400

    assert await lag() == 0
    await old(database, alice, State.DELIVERED, 29)
    assert await lag() == 0
    await old(database, alice, State.CANCELLED, 23)
    assert await lag() == pytest.approx(3, abs=0.1)


def test_the_status_of_a_tombstone_has_every_column_of_a_status() -> None:
    columns = {column.name for column in tombstones.status_columns().selected_columns}
    assert columns == {each.name for each in fields(UploadRow)}
