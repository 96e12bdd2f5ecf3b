"""Uploads as their owners see them: put in, read back, listed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from relay.ledger.changes import Change, change_state
from relay.ledger.tables import Record, Upload, User
from relay.lifecycle import Reason, State

# What ended without reaching 1upHealth because somebody stopped it, or time did: the same content
# coming again is a new wish to send it, not a duplicate.
_GIVEN_UP = frozenset({State.CANCELLED, State.EXPIRED, State.SUPERSEDED})


def body_context(upload_id: UUID) -> bytes:
    """What a sealed body is bound to."""
    return b"upload body " + upload_id.bytes


def receipt_context(row_id: UUID) -> bytes:
    """What a sealed receipt is bound to: the upload's row, or the record's."""
    return b"receipt " + row_id.bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUpload:
    """An upload that is ready to be put in."""

    id: UUID
    user_id: UUID
    identity: bytes
    digest: bytes
    fhir_version: str
    resource_type: str
    body_bytes: int
    sealed_body: bytes
    queue: str


@dataclass(frozen=True, slots=True)
class UploadRow:
    """An upload's status as the ledger has it. No body, no secrets but the sealed receipt."""

    id: UUID
    user_id: UUID
    app_user_id: str
    batch_id: UUID | None
    fhir_version: str
    resource_type: str
    state: State
    reason: str | None
    revision: int
    attempts: int
    maybe_sent: bool
    possible_duplicate: bool
    last_answer: str | None
    issues: dict[str, Any] | None
    sealed_receipt: bytes | None
    master_key_id: str
    wrapped_key: bytes
    next_attempt_at: datetime | None
    due_in: float | None  # seconds until next_attempt_at
    created_at: datetime
    updated_at: datetime
    delivered_at: datetime | None


async def put_in(
    connection: AsyncConnection, new: NewUpload, *, ring_seconds: float
) -> tuple[UUID, bool]:
    """Keep a new upload, unless its record has this content already.

    The record's row lock makes twins that arrive at once take turns. Older versions that nobody
    has tried to send are superseded; one that may be upstream is left to end first.

    Returns the upload's id, and whether it was there before.
    """
    record = (
        await connection.execute(
            upsert(Record)
            .values(id=uuid7(), user_id=new.user_id, identity=new.identity)
            .on_conflict_do_update(
                # Changes nothing, but takes the row's lock and returns it.
                index_elements=[Record.user_id, Record.identity],
                set_={"versions": Record.versions},
            )
            .returning(Record.id, Record.versions, Record.latest_upload_id, Record.latest_digest)
        )
    ).one()
    if record.latest_digest == new.digest and record.latest_upload_id is not None:
        state = await connection.scalar(
            select(Upload.state).where(Upload.id == record.latest_upload_id)
        )
        if state not in _GIVEN_UP:
            return record.latest_upload_id, True
    await _supersede_unsent(connection, record.id)
    version = record.versions + 1
    await connection.execute(
        insert(Upload).values(
            id=new.id,
            user_id=new.user_id,
            record_id=record.id,
            version=version,
            queue=new.queue,
            fhir_version=new.fhir_version,
            resource_type=new.resource_type,
            digest=new.digest,
            body_bytes=new.body_bytes,
            sealed_body=new.sealed_body,
            state=State.QUEUED,
            reason=Reason.NEW,
            next_attempt_at=func.now(),
            rung_until=func.now() + func.make_interval(0, 0, 0, 0, 0, 0, ring_seconds),
        )
    )
    await connection.execute(
        update(Record)
        .where(Record.id == record.id)
        .values(versions=version, latest_upload_id=new.id, latest_digest=new.digest)
    )
    return new.id, False


async def _supersede_unsent(connection: AsyncConnection, record_id: UUID) -> None:
    older = await connection.execute(
        select(Upload.id, Upload.state)
        .where(
            Upload.record_id == record_id,
            Upload.state.in_([State.QUEUED, State.PARKED]),
            Upload.maybe_sent.is_(False),
        )
        .with_for_update()
    )
    await change_state(
        connection,
        [
            Change(
                upload_id=row.id,
                source=State(row.state),
                target=State.SUPERSEDED,
                reason=Reason.NEWER_VERSION,
            )
            for row in older
        ],
    )


def _statuses() -> Select[Any]:
    return select(
        Upload.id,
        Upload.user_id,
        User.app_user_id,
        Upload.batch_id,
        Upload.fhir_version,
        Upload.resource_type,
        Upload.state,
        Upload.reason,
        Upload.revision,
        Upload.attempts,
        Upload.maybe_sent,
        Upload.possible_duplicate,
        Upload.last_answer,
        Upload.issues,
        Upload.sealed_receipt,
        User.master_key_id,
        User.wrapped_key,
        Upload.next_attempt_at,
        func.extract("epoch", Upload.next_attempt_at - func.now()).label("due_in"),
        Upload.created_at,
        Upload.updated_at,
        Upload.delivered_at,
    ).join(User, (User.id == Upload.user_id) & User.erased_at.is_(None))


def _status(row: Row[Any]) -> UploadRow:
    values = dict(row._mapping)  # noqa: SLF001  SQLAlchemy's public name for it
    values["state"] = State(values["state"])
    if values["due_in"] is not None:
        values["due_in"] = float(values["due_in"])
    return UploadRow(**values)


async def get_uploads(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, UploadRow]:
    """The status of each of these uploads; the unknown are missing."""
    rows = await connection.execute(_statuses().where(Upload.id.in_(ids)))
    return {row.id: _status(row) for row in rows}


async def get_revisions(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, int]:
    """The revision of each of these uploads: it rises with every change of state."""
    rows = await connection.execute(select(Upload.id, Upload.revision).where(Upload.id.in_(ids)))
    return {row.id: row.revision for row in rows}


async def list_uploads(
    connection: AsyncConnection,
    *,
    user_id: UUID | None,
    states: Sequence[State],
    after: UUID | None,
    limit: int,
) -> list[UploadRow]:
    """Uploads in the order of acceptance, from the one after `after`."""
    statement = _statuses().order_by(Upload.id).limit(limit)
    if user_id is not None:
        statement = statement.where(Upload.user_id == user_id)
    if states:
        statement = statement.where(Upload.state.in_(states))
    if after is not None:
        statement = statement.where(Upload.id > after)
    return [_status(row) for row in await connection.execute(statement)]


async def count_by_state(connection: AsyncConnection) -> dict[State, int]:
    """How many uploads are in each state."""
    rows = await connection.execute(select(Upload.state, func.count()).group_by(Upload.state))
    return {State(state): count for state, count in rows}
