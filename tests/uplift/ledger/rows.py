"""Rows of the ledger to test with: users, and uploads in any state."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid4, uuid7

from uplift.ledger import abandoned, accepting, leases, processes, users
from uplift.ledger.abandoned import Signs
from uplift.ledger.database import Database
from uplift.ledger.leases import Claim
from uplift.ledger.new_uploads import NewUpload
from uplift.ledger.tables import Attempt, Delivery, Process, Record, Upload
from uplift.ledger.users import UserRow
from uplift.ledger.watermarks import first_watermark
from uplift.lifecycle import State
from uplift.queues import UPLOADS
from uplift.sealing import KeyRing, UserKey
from uplift.watermark import NO_TIMES, Times

LEASE_SECONDS = 120.0
GIVE_UP_SECONDS = 3600.0


async def add_user(database: Database, key_ring: KeyRing, name: str = "alice") -> UserRow:
    """A user without a grant."""
    async with database.transaction() as connection:
        return await users.add_user(connection, name, key_ring)


async def put(
    database: Database,
    user: UserRow,
    *,
    identity: bytes | None = None,
    digest: bytes | None = None,
    queue: str = UPLOADS,
    body_bytes: int = 6,
    upstream_key: bytes | None = None,
) -> UUID:
    """An upload that was just accepted: of a record of its own, unless `identity` says which."""
    async with database.transaction() as connection:
        new = new_upload(
            user,
            identity=identity,
            digest=digest,
            queue=queue,
            body_bytes=body_bytes,
            upstream_key=upstream_key,
        )
        return (await put_in_unread(connection, [new]))[0][0]


async def put_in_unread(
    connection: AsyncConnection, group: Sequence[NewUpload]
) -> list[tuple[UUID, bool]]:
    """Put uploads in as batches do: each upload's id, and whether it was there before."""
    return [(each.id, each.duplicate) for each in await accepting.keep(connection, group)]


def new_upload(
    user: UserRow,
    *,
    identity: bytes | None = None,
    digest: bytes | None = None,
    queue: str = UPLOADS,
    body_bytes: int = 6,
    upstream_key: bytes | None = None,
    source_key: bytes | None = None,
    server_key: bytes | None = None,
    key: UserKey | None = None,
    times: Times = NO_TIMES,
    force: bool = False,
) -> NewUpload:
    """What `accepting.put_in` takes: a new record with new content, unless told otherwise."""
    record_id = uuid7()
    return NewUpload(
        id=uuid7(),
        record_id=record_id,
        key=key,
        times=times,
        sealed_watermark=first_watermark(record_id, key, times) if key else None,
        force=force,
        source_key=source_key,
        server_key=server_key,
        user_id=user.id,
        destination=user.destination,
        identity=identity or uuid4().bytes,
        digest=digest or uuid4().bytes,
        fhir_version="R4",
        resource_type="Observation",
        body_bytes=body_bytes,
        sealed_body=b"sealed",
        queue=queue,
        upstream_key=upstream_key,
    )


async def add_process(database: Database, *, silent_seconds: float = 0.0) -> UUID:
    """A process that claims, and was last heard of so long ago."""
    process_id = uuid4()
    async with database.transaction() as connection:
        await processes.register(connection, process_id)
        await connection.execute(
            update(Process)
            .where(Process.id == process_id)
            .values(heartbeat_at=text(f"now() - interval '{silent_seconds} s'"))
        )
    return process_id


async def end_process(database: Database, process_id: UUID, *, crashed: bool = True) -> None:
    """Its end is noted."""
    async with database.transaction() as connection:
        assert await processes.note_end(connection, process_id, crashed=crashed)


async def claim(
    database: Database,
    *ids: UUID,
    lease_seconds: float = LEASE_SECONDS,
    process_id: UUID | None = None,
) -> list[Claim]:
    """Lease these uploads in a transaction of its own, for that process if it is given."""
    named = {} if process_id is None else {"process_id": process_id}
    async with database.transaction() as connection:
        return await leases.claim(
            connection,
            ids,
            **terms(lease_seconds=lease_seconds, attempt_seconds=lease_seconds / 2, **named),
        )


async def take_abandoned(
    connection: AsyncConnection, *, settle_seconds: float = 0.0, limit: int = 9
) -> set[UUID]:
    """Queue what has a lease that ran out."""
    signs = Signs(leases_count=True, silence_seconds=15.0)
    taken = await abandoned.take_abandoned(
        connection, signs, limit=limit, settle_seconds=settle_seconds
    )
    return taken.queued


def terms(**more: Any) -> dict[str, Any]:
    """The terms of a claim that is made now."""
    return {
        "since": time.monotonic(),
        "attempt_seconds": 60.0,
        "lease_seconds": LEASE_SECONDS,
        "give_up_seconds": GIVE_UP_SECONDS,
        **more,
    }


_WAITING = text("SELECT count(*) FROM pg_locks WHERE NOT granted")


async def until_locked_out(database: Database) -> None:
    """Return when a transaction waits for a lock."""
    async with asyncio.timeout(20):
        while True:
            async with database.reading() as connection:
                if await connection.scalar(_WAITING):
                    return
            await asyncio.sleep(0.01)  # PostgreSQL tells nobody


async def row(database: Database, upload_id: UUID) -> Row[Any]:
    """Every column of the upload."""
    async with database.transaction() as connection:
        return (
            await connection.execute(select(*Upload.__table__.c).where(Upload.id == upload_id))
        ).one()


async def record_of(database: Database, upload_id: UUID) -> Row[Any]:
    """Every column of the upload's record."""
    async with database.transaction() as connection:
        return (
            await connection.execute(
                select(*Record.__table__.c)
                .join(Upload, Upload.record_id == Record.id)
                .where(Upload.id == upload_id)
            )
        ).one()


async def delivery_of(database: Database, upload_id: UUID) -> Row[Any] | None:
    """Every column of what the upload's destination has of its record."""
    async with database.transaction() as connection:
        return (
            await connection.execute(
                select(*Delivery.__table__.c)
                .join(
                    Upload,
                    (Upload.record_id == Delivery.record_id)
                    & (Upload.destination == Delivery.destination),
                )
                .where(Upload.id == upload_id)
            )
        ).one_or_none()


async def delivered_version(database: Database, upload_id: UUID) -> int:
    """Which version of the upload's record its destination had last; 0 if none."""
    delivery = await delivery_of(database, upload_id)
    return delivery.version if delivery is not None else 0


_SET_DELIVERED = text("""
    INSERT INTO deliveries (record_id, destination, version, digest)
    SELECT record_id, destination, :version, :digest FROM uploads WHERE id = :id
    ON CONFLICT (record_id, destination) DO UPDATE
    SET version = excluded.version, digest = excluded.digest
""")


async def set_delivered(
    database: Database, upload_id: UUID, version: int, digest: bytes | None = None
) -> None:
    """Note by hand that the upload's destination has this version of its record."""
    async with database.transaction() as connection:
        await connection.execute(
            _SET_DELIVERED, {"id": upload_id, "version": version, "digest": digest}
        )


async def attempts_of(database: Database, upload_id: UUID) -> list[Row[Any]]:
    """The upload's attempts, in their order."""
    async with database.transaction() as connection:
        return list(
            await connection.execute(
                select(*Attempt.__table__.c)
                .where(Attempt.upload_id == upload_id)
                .order_by(Attempt.opened_at)
            )
        )


async def bring_to(database: Database, upload_id: UUID, state: State, **columns: Any) -> None:
    """Put the upload into a state by hand, with what the constraints want of a row in it."""
    wanted: dict[str, Any] = {
        "state": state,
        "next_attempt_at": None,
        "finish_tag": None,
        "lease_id": None,
        "lease_until": None,
        "attempt_until": None,
        "process_id": None,
    }
    match state:
        case State.QUEUED:
            wanted["next_attempt_at"] = text("now()")
        case State.SENDING:
            soon = text("now() + interval '1 minute'")
            wanted |= {"lease_id": uuid4(), "lease_until": soon, "attempt_until": soon}
        case State.DELIVERED:
            wanted |= {"sealed_body": None, "delivered_at": text("now()")}
        case State.CANCELLED | State.SUPERSEDED:
            wanted["sealed_body"] = None
    async with database.transaction() as connection:
        await connection.execute(
            update(Upload).where(Upload.id == upload_id).values({**wanted, **columns})
        )


_HISTORY = (
    """
    INSERT INTO records (id, user_id, identity, versions)
    SELECT gen_random_uuid(), :user, uuid_send(gen_random_uuid()), 1
    FROM generate_series(1, :count)
    """,
    """
    INSERT INTO uploads (id, user_id, record_id, version, queue, fhir_version, resource_type,
        digest, body_bytes, state, delivered_at)
    SELECT gen_random_uuid(), user_id, id, 1, 'uploads', 'R4', 'Observation', '', 6,
        'delivered', now()
    FROM records
    """,
    "ANALYZE records",
    "ANALYZE uploads",
)


async def add_history(database: Database, user: UserRow, count: int) -> None:
    """So many delivered uploads of as many records, and fresh statistics."""
    async with database.transaction() as connection:
        for statement in _HISTORY:
            await connection.execute(text(statement), {"user": user.id, "count": count})
