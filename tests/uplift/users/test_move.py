"""A user moves to another destination: what was never sent moves, what may be there ends there."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Row, select, text

from tests.uplift.ledger import rows
from tests.uplift.ledger.test_leases import ended
from uplift.destinations.destination import (
    Destination,
    Mode,
    NoLogin,
    OneUpLogin,
    Subject,
)
from uplift.errors import NotFound
from uplift.fhir.versions import FhirVersion
from uplift.ledger import dead_letters, leases
from uplift.ledger.audit import SYSTEM
from uplift.ledger.database import Database
from uplift.ledger.tables import User
from uplift.ledger.users import UserRow
from uplift.lifecycle import Reason, State
from uplift.sealing import KeyRing
from uplift.users.move import Mover


def destination(name: str, versions: Sequence[FhirVersion], *, login: Any) -> Destination:
    return Destination(
        name=name,
        bases={version: f"https://{name}.test/{version.path}" for version in versions},
        mode=Mode.PUT,
        subject=Subject.AS_IS,
        login=login,
        media_type="application/fhir+json",
        max_attempts_per_second=10.0,
    )


_LATER = text("now() + interval '1 day'")

ONEUP = destination("oneup", list(FhirVersion), login=OneUpLogin())
HAPI = destination("hapi", [FhirVersion.R4], login=NoLogin())
OLD = destination("old", [FhirVersion.DSTU2], login=NoLogin())


@pytest.fixture
def mover(database: Database) -> Mover:
    return Mover(database, {each.name: each for each in (ONEUP, HAPI, OLD)})


@pytest.fixture
async def alice(database: Database, key_ring: KeyRing) -> UserRow:
    return await rows.add_user(database, key_ring)


async def is_moving(database: Database) -> bool:
    async with database.transaction() as connection:
        return bool(await connection.scalar(select(User.moving)))


async def now(database: Database, *ids: UUID) -> list[tuple[str, str, str | None]]:
    """Where these uploads go, and their states and reasons."""
    found: list[Row[Any]] = [await rows.row(database, id_) for id_ in ids]
    return [(row.destination, row.state, row.reason) for row in found]


async def test_what_was_never_sent_goes_to_the_new_destination_and_is_due(
    database: Database, mover: Mover, alice: UserRow
) -> None:
    waits = await rows.put(database, alice)
    await rows.bring_to(database, waits, State.QUEUED, next_attempt_at=_LATER, attempts=3)
    moved = await mover.move("alice", "hapi")
    assert moved.destination == "hapi"
    assert moved.sync_token != alice.sync_token
    assert await now(database, waits) == [("hapi", "queued", "new")]
    assert [claim.destination for claim in await rows.claim(database, waits)] == ["hapi"]
    assert not await is_moving(database)


async def test_what_is_parked_for_a_grant_is_released_where_none_is_needed(
    database: Database, mover: Mover, alice: UserRow
) -> None:
    parked = await rows.put(database, alice)
    await rows.bring_to(database, parked, State.PARKED)
    await mover.move("alice", "hapi")
    assert await now(database, parked) == [("hapi", "queued", Reason.RELEASED)]


async def test_what_the_new_destination_has_no_base_for_is_refused_and_can_be_redriven(
    database: Database, mover: Mover, alice: UserRow
) -> None:
    ids = [await rows.put(database, alice) for _ in range(2)]
    await rows.bring_to(database, ids[1], State.PARKED)
    await mover.move("alice", "old")
    assert await now(database, *ids) == [("old", "refused", "version_not_taken")] * 2
    await mover.move("alice", "hapi")
    async with database.transaction() as connection:
        redriven = await dead_letters.redrive(connection, ids, settle_seconds=60, by=SYSTEM)
    assert set(redriven.queued) == set(ids)
    assert await now(database, *ids) == [("hapi", "queued", "redriven")] * 2


async def test_what_may_be_at_the_old_destination_ends_there(
    database: Database, mover: Mover, alice: UserRow
) -> None:
    doubtful, sending = [await rows.put(database, alice) for _ in range(2)]
    await rows.bring_to(database, doubtful, State.QUEUED, maybe_sent=True)
    (claim,) = await rows.claim(database, sending)
    await mover.move("alice", "hapi")
    assert await now(database, doubtful, sending) == [
        ("oneup", "queued", "new"),
        ("oneup", "sending", None),
    ]
    assert await is_moving(database)
    assert [each.destination for each in await rows.claim(database, doubtful)] == ["oneup"]
    # The one that was being sent met a limit: it is not there, so it moves too.
    async with database.transaction() as connection:
        await leases.record(
            connection,
            [ended(claim, State.QUEUED, reason=Reason.RETRY, maybe_sent=False)],
        )
    assert await rows.claim(database, sending) == []
    assert await mover.finish() == 1
    assert await now(database, sending) == [("hapi", "queued", "retry")]


async def test_the_same_content_is_new_for_another_destination_and_a_duplicate_after_moving_back(
    database: Database, mover: Mover, alice: UserRow
) -> None:
    first = await rows.put(database, alice, identity=b"i", digest=b"content")
    await rows.bring_to(database, first, State.DELIVERED)
    await rows.set_delivered(database, first, 1, b"content")
    moved = await mover.move("alice", "hapi")
    second = await rows.put(database, moved, identity=b"i", digest=b"content")
    assert second != first
    (claim,) = await rows.claim(database, second)
    assert (claim.destination, claim.maybe_sent, claim.record_receipt) == ("hapi", False, None)
    await rows.bring_to(database, second, State.DELIVERED)
    await rows.set_delivered(database, second, 2, b"content")
    back = await mover.move("alice", "oneup")
    assert await rows.put(database, back, identity=b"i", digest=b"content") == first


async def test_a_version_at_the_old_destination_blocks_none_for_the_new_one(
    database: Database, mover: Mover, alice: UserRow
) -> None:
    first = await rows.put(database, alice, identity=b"i")
    await rows.bring_to(database, first, State.QUEUED, maybe_sent=True)
    moved = await mover.move("alice", "hapi")
    second = await rows.put(database, moved, identity=b"i")
    assert {claim.upload_id for claim in await rows.claim(database, second)} == {second}


async def test_a_move_is_repeated_without_harm_and_ends_when_nothing_is_left(
    database: Database, mover: Mover, alice: UserRow
) -> None:
    upload_id = await rows.put(database, alice)
    await rows.claim(database, upload_id, lease_seconds=0.0)
    first = await mover.move("alice", "hapi")
    again = await mover.move("alice", "hapi")
    assert again.sync_token == first.sync_token
    async with database.transaction() as connection:
        assert await rows.take_abandoned(connection) == {upload_id}
    assert await mover.finish() == 0  # it may be there
    assert await is_moving(database)
    await rows.bring_to(database, upload_id, State.EXPIRED)
    await mover.finish()
    assert not await is_moving(database)


async def test_a_destination_that_is_not_there_is_refused_by_name(
    mover: Mover, alice: UserRow
) -> None:
    with pytest.raises(NotFound, match="hapi, old, oneup"):
        await mover.move("alice", "hapy")


async def test_after_a_resend_the_same_content_goes_out_once_more_as_an_update(
    database: Database, mover: Mover, alice: UserRow
) -> None:
    first = await rows.put(database, alice, identity=b"i", digest=b"content")
    (claim,) = await rows.claim(database, first)
    async with database.transaction() as connection:
        await leases.record(connection, [ended(claim, State.DELIVERED, record_receipt=b"receipt")])
    assert await rows.put(database, alice, identity=b"i", digest=b"content") == first
    asked = await mover.resend("alice")
    assert asked.sync_token != alice.sync_token
    second = await rows.put(database, alice, identity=b"i", digest=b"content")
    assert second != first
    (claim,) = await rows.claim(database, second)
    assert claim.record_receipt == b"receipt"
    # Only once.
    assert await rows.put(database, alice, identity=b"i", digest=b"content") == second


async def test_a_resend_forgets_nothing_of_what_waits_or_was_refused(
    database: Database, mover: Mover, alice: UserRow
) -> None:
    waits = await rows.put(database, alice, identity=b"waits", digest=b"1")
    refused = await rows.put(database, alice, identity=b"refused", digest=b"2")
    await rows.bring_to(database, refused, State.REFUSED)
    await mover.resend("alice")
    assert await rows.put(database, alice, identity=b"waits", digest=b"1") == waits
    assert await rows.put(database, alice, identity=b"refused", digest=b"2") == refused
