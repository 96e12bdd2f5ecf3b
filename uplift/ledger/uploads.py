"""Uploads as their owners see them: their statuses, one by one and listed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger import tombstones
from uplift.ledger.filters import Filter
from uplift.ledger.pages import Order
from uplift.ledger.parameters import is_among
from uplift.ledger.tables import Upload, User
from uplift.lifecycle import State


def body_context(upload_id: UUID) -> bytes:
    """What a sealed body is bound to."""
    return b"upload body " + upload_id.bytes


def receipt_context(upload_id: UUID) -> bytes:
    """What the sealed receipt of an upload is bound to."""
    return b"receipt " + upload_id.bytes


def delivery_context(record_id: UUID, destination: str) -> bytes:
    """What the sealed receipt of a record at a destination is bound to."""
    return b"delivery " + record_id.bytes + destination.encode()


@dataclass(frozen=True, slots=True)
class UploadRow:
    """An upload's status as the ledger has it: sealed, and without its body.

    `uplift.reading.status` opens it.
    """

    id: UUID
    user_id: UUID
    app_user_id: str
    batch_id: UUID | None
    destination: str
    fhir_version: str
    resource_type: str
    state: State
    reason: str | None
    revision: int
    attempts: int
    maybe_sent: bool
    possible_duplicate: bool
    maybe_overwritten: bool
    last_response: str | None
    issues: dict[str, Any] | None
    sealed_receipt: bytes | None
    master_key_id: str
    wrapped_key: bytes
    next_attempt_at: datetime | None
    due_in: float | None  # seconds until next_attempt_at
    created_at: datetime
    updated_at: datetime
    delivered_at: datetime | None
    cancel_requested: bool = False


def _statuses() -> Select[Any]:
    return select(
        Upload.id,
        Upload.user_id,
        User.app_user_id,
        Upload.batch_id,
        Upload.destination,
        Upload.fhir_version,
        Upload.resource_type,
        Upload.state,
        Upload.reason,
        Upload.revision,
        Upload.attempts,
        Upload.maybe_sent,
        Upload.possible_duplicate,
        Upload.maybe_overwritten,
        Upload.last_response,
        Upload.issues,
        Upload.sealed_receipt,
        User.master_key_id,
        User.wrapped_key,
        Upload.next_attempt_at,
        func.extract("epoch", Upload.next_attempt_at - func.now()).label("due_in"),
        Upload.created_at,
        Upload.updated_at,
        Upload.delivered_at,
        Upload.cancel_requested,
    ).join(User, (User.id == Upload.user_id) & User.erased_at.is_(None))


def _status(row: Row[Any]) -> UploadRow:
    values = dict(row._mapping)  # noqa: SLF001  SQLAlchemy's public name for it
    values["state"] = State(values["state"])
    if values["due_in"] is not None:
        values["due_in"] = float(values["due_in"])
    return UploadRow(**values)


_STATUSES_OF = _statuses().where(is_among(Upload.id))
_REVISIONS_OF = select(Upload.id, Upload.revision).where(is_among(Upload.id))


async def get_uploads(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, UploadRow]:
    """The status of each of these uploads, or of its tombstone; unknown ones are missing."""
    rows = await connection.execute(_STATUSES_OF, {"ids": list(ids)})
    found = {row.id: _status(row) for row in rows}
    if missing := [id_ for id_ in ids if id_ not in found]:
        rows = await connection.execute(tombstones.STATUSES_OF, {"ids": missing})
        found |= {row.id: _status(row) for row in rows}
    return found


async def get_thinned(
    connection: AsyncConnection,
    upload_id: UUID,
    *,
    user_id: UUID,
    destination: str,
    fhir_version: str,
    resource_type: str,
) -> UploadRow | None:
    """The status of a delivered upload that was thinned out and left no tombstone.

    None if its user is being erased.
    """
    values = await tombstones.without_tombstone(
        connection,
        upload_id,
        user_id=user_id,
        destination=destination,
        fhir_version=fhir_version,
        resource_type=resource_type,
    )
    return UploadRow(**values) if values is not None else None


async def get_revisions(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, int]:
    """The revision of each of these uploads: it rises with every change of state."""
    rows = await connection.execute(_REVISIONS_OF, {"ids": list(ids)})
    return {row.id: row.revision for row in rows}


async def list_uploads(
    connection: AsyncConnection,
    matching: Filter,
    *,
    order: Order = Order.NEWEST_FIRST,
    after: UUID | None,
    limit: int,
) -> list[UploadRow]:
    """Uploads that match, in the order of acceptance or against it, from the one after `after`."""
    statement = _statuses().where(*matching.conditions()).order_by(order.of(Upload.id)).limit(limit)
    if after is not None:
        statement = statement.where(order.is_after(Upload.id, after))
    return [_status(row) for row in await connection.execute(statement)]


async def count_by_state(connection: AsyncConnection) -> dict[State, int]:
    """How many uploads are in each state."""
    rows = await connection.execute(select(Upload.state, func.count()).group_by(Upload.state))
    return {State(state): count for state, count in rows}
