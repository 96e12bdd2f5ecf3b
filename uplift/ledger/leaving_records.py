"""Takes the records of a user who is erased upstream out of the ledger, with what is known of them.

Each becomes rows of `upstream_deletions`; until then it says where it may be.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.parameters import is_among
from uplift.ledger.tables import Delivery, IdempotencyKey, Record, Tombstone, Upload, User
from uplift.lifecycle import State


@dataclass(frozen=True, slots=True)
class RecordRows:
    """A record, and what the ledger knows of where it is."""

    derived_id: str | None
    record_id: UUID
    uploads: Sequence[Row[Any]]
    deliveries: Sequence[Row[Any]]


async def some_records(
    connection: AsyncConnection, user_id: UUID, *, limit: int
) -> list[RecordRows]:
    """Up to `limit` records of the user, locked, with what there is of them.

    None of them if a worker has just claimed an upload of theirs: it is sent yet.
    """
    records = (
        await connection.execute(
            select(Record.id, Record.derived_id)
            .where(Record.user_id == user_id)
            .order_by(Record.identity)
            .limit(limit)
            .with_for_update()
        )
    ).all()
    ids = {"ids": [record.id for record in records]}
    # A claim that is not committed yet is waited for here: it began before the user's erasing.
    found = await connection.execute(
        select(
            Upload.id,
            Upload.record_id,
            Upload.state,
            Upload.destination,
            Upload.fhir_version,
            Upload.resource_type,
            Upload.sealed_receipt,
            Upload.maybe_sent,
            Upload.attempts,
            Upload.possible_duplicate,
            Upload.last_response,
        )
        .where(is_among(Upload.record_id))
        .order_by(Upload.id)
        .with_for_update(),
        ids,
    )
    uploads = found.all()
    if any(upload.state == State.SENDING for upload in uploads):
        return []
    deliveries = await connection.execute(
        select(Delivery.record_id, Delivery.destination, Delivery.sealed_receipt).where(
            is_among(Delivery.record_id), Delivery.sealed_receipt.is_not(None)
        ),
        ids,
    )
    uploads_of, deliveries_of = _by_record(uploads), _by_record(deliveries.all())
    return [
        RecordRows(
            record.derived_id,
            record.id,
            uploads_of.get(record.id, ()),
            deliveries_of.get(record.id, ()),
        )
        for record in records
    ]


def _by_record(rows: Sequence[Row[Any]]) -> dict[UUID, list[Row[Any]]]:
    found: dict[UUID, list[Row[Any]]] = {}
    for row in rows:
        found.setdefault(row.record_id, []).append(row)
    return found


async def remove_records(connection: AsyncConnection, records: Sequence[RecordRows]) -> None:
    """Remove these records, which `some_records` locked, and all that there is of them."""
    uploads = {"ids": [upload.id for record in records for upload in record.uploads]}
    ids = {"ids": [record.record_id for record in records]}
    await connection.execute(
        delete(IdempotencyKey).where(is_among(IdempotencyKey.upload_id)), uploads
    )
    await connection.execute(delete(Upload).where(is_among(Upload.record_id)), ids)
    await connection.execute(delete(Delivery).where(is_among(Delivery.record_id)), ids)
    await connection.execute(delete(Record).where(is_among(Record.id)), ids)


async def take_tombstones(
    connection: AsyncConnection, user_id: UUID, *, limit: int
) -> Sequence[Row[Any]]:
    """Up to `limit` tombstones of the user, which are removed by that."""
    found = select(Tombstone.upload_id).where(Tombstone.user_id == user_id).limit(limit)
    return (
        await connection.execute(
            delete(Tombstone)
            .where(Tombstone.upload_id.in_(found.scalar_subquery()))
            .returning(
                Tombstone.upload_id,
                Tombstone.destination,
                Tombstone.fhir_version,
                Tombstone.resource_type,
                Tombstone.sealed_receipt,
                Tombstone.possible_duplicate,
            )
        )
    ).all()


async def add_lost(connection: AsyncConnection, user_id: UUID, number: int) -> None:
    """Note that so many resources may be at a destination, and nobody knows where."""
    if number:
        await connection.execute(
            update(User).where(User.id == user_id).values(lost_upstream=User.lost_upstream + number)
        )
