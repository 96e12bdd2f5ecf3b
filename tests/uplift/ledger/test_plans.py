"""PostgreSQL's plans: statements read what is unfinished, never all history.

The tests ask for generic plans. A prepared statement of a process that has run for long may have
one, and it knows no parameter's value.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bench.sent_statements import sent_by
from tests.uplift.ledger import rows
from uplift.ledger import (
    accepting,
    backlog,
    cancelling,
    collisions,
    dead_letters,
    fair_queue,
    leases,
    parking,
    pauses,
    receipts,
    reference_targets,
    set_aside,
    sweeping,
    uploads,
)
from uplift.ledger.audit import SYSTEM
from uplift.ledger.database import Database, driver_of
from uplift.ledger.due import due_among, front
from uplift.ledger.transitions import Change
from uplift.ledger.users import UserRow
from uplift.lifecycle import State

_HISTORY = 3000
_PARAMETER = re.compile(r"%\((\w+)\)s")


@pytest.fixture
async def unfinished(database: Database, alice: UserRow) -> list[UUID]:
    """A few unfinished uploads in front of much history, as the planner's statistics know."""
    await rows.add_history(database, alice, _HISTORY)
    ids = [await rows.put(database, alice) for _ in range(6)]
    await rows.bring_to(database, ids[0], State.SENDING)
    await rows.bring_to(database, ids[1], State.PARKED)
    async with database.transaction() as connection:
        await connection.execute(text("ANALYZE uploads"))
    return ids


async def plans(
    database: Database,
    use: Callable[[AsyncConnection, UserRow], Awaitable[Any]],
    user: UserRow,
    *,
    may_read_whole: bool = False,
) -> str:
    """The generic plans of the statements that `use` sends."""
    async with database.transaction() as connection:
        with sent_by(connection) as sent:
            await use(connection, user)
        raw: Any = driver_of(connection)
        if not may_read_whole:
            # The history is short enough for a few plans to read all of it; none may have to.
            await raw.execute("SET LOCAL enable_seqscan = off")
        lines: list[str] = []
        for statement, _ in sent:
            if not statement.startswith(("INSERT", "SET")):
                response = await raw.execute(f"EXPLAIN (GENERIC_PLAN) {_numbered(statement)}")
                lines += [line for (line,) in await response.fetchall()]
        return "\n".join(lines)


def _numbered(statement: str) -> str:
    names: list[str] = list(dict.fromkeys(_PARAMETER.findall(statement)))
    return _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", statement)


async def _resume(connection: AsyncConnection, _: UserRow) -> None:
    await pauses.pause(connection, None, by=SYSTEM)
    await pauses.resume(connection, None, by=SYSTEM)


async def _resume_user(connection: AsyncConnection, user: UserRow) -> None:
    await pauses.pause(connection, user.id, by=SYSTEM)
    await pauses.resume(connection, user.id, by=SYSTEM)


async def _put_in(connection: AsyncConnection, user: UserRow) -> None:
    # Only a record that is there needs questions.
    for _ in range(2):
        new = rows.new_upload(user, identity=b"record")
        await rows.put_in_unread(connection, [new])


# Either leads by the ids: PostgreSQL 18 may skip through the second.
_BY_ID = "(pk_uploads|ix_uploads_user_id_id)"

_LACKING = set_aside.FhirType("DSTU2", "Observation")

_WAYS: dict[str, tuple[Callable[[AsyncConnection, UserRow], Awaitable[Any]], str]] = {
    "tag": (
        lambda c, _: fair_queue.tag_due(c, "uploads", "oneup", each=9, limit=100),
        "ix_uploads_due",
    ),
    "dispatch": (
        lambda c, _: fair_queue.first_ready(c, "uploads", "oneup", limit=100),
        "ix_uploads_ready",
    ),
    "count": (
        lambda c, _: fair_queue.count_ready(c, "uploads", "oneup", limit=100),
        "ix_uploads_ready",
    ),
    "take": (lambda c, _: front(c, "uploads", "oneup", limit=100), "ix_uploads_ready"),
    "set aside": (
        lambda c, _: set_aside.set_aside(c, "uploads", "oneup", [], [_LACKING]),
        "ix_uploads_ready",
    ),
    "probe": (
        lambda c, _: set_aside.first_set_aside(c, "uploads", "oneup", _LACKING),
        "ix_uploads_held",
    ),
    "release type": (
        lambda c, _: set_aside.release(c, "oneup", _LACKING, since=1, settle_seconds=1, limit=9),
        "ix_uploads_(held|waiting)",
    ),
    "requeue": (
        lambda c, _: rows.take_abandoned(c),
        "ix_uploads_leased",
    ),
    "credit": (
        lambda c, _: sweeping.credit_stalled_time(c, "oneup", seconds=1, limit=9),
        "ix_uploads_giving_up",
    ),
    "expire": (
        lambda c, _: sweeping.expire_past_deadline(c, "oneup", limit=9),
        "ix_uploads_giving_up",
    ),
    "release late": (lambda c, _: parking.release_authorized(c, limit=9), "ix_uploads_parked"),
    "release": (lambda c, user: parking.release_parked(c, user.id), "ix_uploads_parked"),
    "park": (
        lambda c, user: parking.park_waiting(c, user.id, destinations=["oneup"], clock=1),
        "ix_uploads_(queued|unfinished|giving_up|due|ready)",
    ),
    "put in": (
        _put_in,
        "(ix_uploads_unfinished|uq_uploads_record_id_version)",
    ),
    "measure": (lambda c, _: backlog.backlog(c), "ix_uploads_(unfinished|due|giving_up|parked)"),
    "redrive": (
        lambda c, user: dead_letters.redrive(c, [user.id], settle_seconds=1, by=SYSTEM),
        _BY_ID,
    ),
    "cancel": (lambda c, user: cancelling.cancel(c, [user.id], by=SYSTEM), _BY_ID),
    "cancel late": (lambda c, _: cancelling.cancel_parked(c, limit=9), "ix_uploads_parked"),
    "resume": (_resume, "ix_uploads_(giving_up|queued)"),
    "resume a user": (_resume_user, "ix_uploads_(giving_up|queued|user_id_id)"),
    "collide": (
        lambda c, user: collisions.colliding(c, [collisions.Claimed(user.id, "oneup", b"key" * 9)]),
        "uq_records_upstream_key",
    ),
    "claim": (
        lambda c, user: leases.claim(
            c, [user.id], **rows.terms(lease_seconds=1, give_up_seconds=1)
        ),
        "uq_uploads_record_id_version",
    ),
    "refer": (
        lambda c, user: reference_targets.find_targets(
            c, [reference_targets.Wanted(user.id, "oneup", (b"key" * 9,))]
        ),
        "uq_records_upstream_key",
    ),
    "long poll": (lambda c, user: uploads.get_revisions(c, [user.id]), _BY_ID),
    "status": (lambda c, user: uploads.get_uploads(c, [user.id]), _BY_ID),
}


async def test_no_work_reads_through_history(
    database: Database, alice: UserRow, unfinished: list[UUID]
) -> None:
    for name, (use, index) in _WAYS.items():
        plan = await plans(database, use, alice)
        assert re.search(rf"(using|on) {index}\b", plan), name
        assert "Seq Scan on uploads" not in plan, name


async def test_uploads_that_are_named_are_found_by_their_ids_however_many_wait(
    database: Database, alice: UserRow, unfinished: list[UUID]
) -> None:
    for use in (
        lambda c, _: due_among(c, unfinished),
        lambda c, _: leases.claim(c, unfinished, **rows.terms(lease_seconds=9, give_up_seconds=9)),
    ):
        plan = await plans(database, use, alice)
        assert re.search(rf"(using|on) {_BY_ID}\b", plan)
        # The statistics know of few uploads that wait; each claim would read those that came since.
        assert not re.search("ix_uploads_(due|ready|queued)", plan)
        assert "Seq Scan on uploads" not in plan


_MORE_HISTORY = (
    "INSERT INTO attempts (lease_id, upload_id) SELECT gen_random_uuid(), id FROM uploads",
    """
    INSERT INTO deliveries (record_id, destination, version, receipt_key)
    SELECT id, 'oneup', 1, uuid_send(id) FROM records
    """,
    """
    INSERT INTO users (id, app_user_id, wrapped_key, master_key_id, pseudonym)
    SELECT gen_random_uuid(), 'other-' || n, wrapped_key, master_key_id, gen_random_uuid()
    FROM users, generate_series(1, 3000) AS n
    """,
    "ANALYZE attempts, deliveries, users",
)


async def _deliver(connection: AsyncConnection, ids: list[UUID]) -> None:
    claims = await leases.claim(connection, ids, **rows.terms())
    assert claims
    outcomes = [
        leases.Outcome(
            claim=claim,
            change=Change(
                upload_id=claim.upload_id,
                source=State.SENDING,
                target=State.DELIVERED,
                lease_id=claim.lease_id,
            ),
            code="created",
            record_receipt=b"sealed",
            receipt_key=claim.upload_id.bytes,
            if_taken=lambda: pytest.fail("Nobody has this receipt."),
        )
        for claim in claims
    ]
    true = await receipts.without_taken(connection, outcomes)
    assert await leases.record(connection, true) == {claim.upload_id for claim in claims}


async def _put_in_thrice(connection: AsyncConnection, user: UserRow) -> None:
    for digest in (b"first", b"second", b"second"):
        new = rows.new_upload(user, identity=b"record", digest=digest)
        await accepting.put_in(connection, [new], {user.id: user})


async def test_what_a_group_is_joined_to_is_looked_up_by_index_even_while_it_is_small(
    database: Database, alice: UserRow, unfinished: list[UUID]
) -> None:
    async with database.transaction() as connection:
        for statement in _MORE_HISTORY:
            await connection.execute(text(statement))
    ways: tuple[Callable[[AsyncConnection, UserRow], Awaitable[Any]], ...] = (
        lambda c, _: _deliver(c, unfinished),
        lambda c, _: front(c, "uploads", "oneup", limit=100),
        _put_in_thrice,
    )
    for use in ways:
        plan = await plans(database, use, alice, may_read_whole=True)
        assert "Index Scan" in plan
        assert not re.search(r"Seq Scan on (uploads|records|attempts|deliveries|users)\b", plan)
