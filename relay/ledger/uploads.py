"""Uploads as their owners see them: put in, read back, listed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Row, Select, Uuid, any_, bindparam, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from relay.ledger import receipts
from relay.ledger.changes import Change, change_state
from relay.ledger.filters import Filter
from relay.ledger.tables import Record, Upload, User, state_is
from relay.lifecycle import ENDED_OTHERWISE, UNFINISHED, Reason, State

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
    upstream_key: bytes | None = None  # `relay.identity.upstream_key`; None if it has no id
    batch_id: UUID | None = None


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
    cancel_requested: bool = False


async def put_in(
    connection: AsyncConnection, group: Sequence[NewUpload], *, ring_seconds: float
) -> list[tuple[UUID, bool]]:
    """Keep new uploads, but for those whose record has their content already.

    The locks on the records' rows make twins that arrive at once take turns, within the group as
    between groups. Older versions that nobody has tried to send are superseded; one that may be
    upstream is left to end first. Content that went back to what was delivered needs no upload,
    unless another version may have reached 1upHealth since. What comes after a version that ended
    while it may be upstream may be sent already too, so a worker looks first.

    Ended uploads may be thinned out: `records` knows what was delivered without them. The content
    that came last and was delivered last stays a duplicate, under the id of its upload, for which
    there may be no row any more; what ended otherwise and is gone is a new upload when it comes
    again. So is what was delivered last, is gone, and comes back after other content; a worker
    looks for it first, so that it is not sent twice.

    Returns for each, in the order of the group, the upload's id and whether it was there before.
    """
    kept: dict[UUID, tuple[UUID, bool]] = {}
    rounds, twins = _rounds(group)
    for once_each in rounds:
        kept |= await _put_in_once_each(connection, once_each, ring_seconds)
    kept |= {twin.id: (kept[first.id][0], True) for twin, first in twins}
    return [kept[new.id] for new in group]


def _rounds(
    group: Sequence[NewUpload],
) -> tuple[list[list[NewUpload]], list[tuple[NewUpload, NewUpload]]]:
    """The group in rounds that hold each record once, in its order; and twins with their first.

    A twin has the content of the one before it of the same record, so nothing is to be done for it.
    """
    rounds: list[list[NewUpload]] = []
    twins: list[tuple[NewUpload, NewUpload]] = []
    seen: dict[tuple[UUID, bytes], tuple[NewUpload, int]] = {}
    for new in group:
        record = (new.user_id, new.identity)
        before, round_ = seen.get(record, (None, -1))
        if before is not None and before.digest == new.digest:
            twins.append((new, before))
            continue
        if round_ + 1 == len(rounds):
            rounds.append([])
        rounds[round_ + 1].append(new)
        seen[record] = (new, round_ + 1)
    return rounds, twins


# Arrays as parameters: the text stays the same for any number of uploads, so Postgres plans it
# once. Sorted, so that groups with records in common lock them in one order and none waits for
# another that waits for it. The update takes the row's lock and returns it; it changes the key of a
# record whose id in the resource is another now, or that had none.
_LOCK_RECORDS = text("""
    INSERT INTO records AS r (id, user_id, identity, upstream_key)
    SELECT n.id, n.user_id, n.identity, n.upstream_key
    FROM unnest(CAST(:ids AS uuid[]), CAST(:user_ids AS uuid[]), CAST(:identities AS bytea[]),
                CAST(:upstream_keys AS bytea[]))
        AS n(id, user_id, identity, upstream_key)
    ORDER BY n.user_id, n.identity
    ON CONFLICT (user_id, identity) DO UPDATE SET upstream_key = excluded.upstream_key
    RETURNING r.id, r.user_id, r.identity, r.versions, r.latest_upload_id, r.latest_digest,
        r.delivered_digest,
        EXISTS (SELECT 1 FROM recoveries WHERE look_until > now()) AS recovering
""")

_STATES = text("SELECT id, state FROM uploads WHERE id = ANY(CAST(:ids AS uuid[]))")

# The states stand in the text for the partial index, as `tables.state_is` explains.
_UNSENT = text("""
    SELECT id, state FROM uploads
    WHERE record_id = ANY(CAST(:record_ids AS uuid[])) AND state IN ('queued', 'parked')
        AND NOT maybe_sent
    ORDER BY id FOR UPDATE
""")

# One statement, so that a version that ends meanwhile is seen either before or after it did.
_STANDINGS = select(
    Record.id,
    select(1)
    .where(Upload.record_id == Record.id, state_is(Upload.state, *sorted(UNFINISHED)))
    .exists()
    .label("unfinished"),
    select(1)
    .where(
        Upload.record_id == Record.id,
        Upload.version > Record.delivered_version,
        Upload.maybe_sent,
        state_is(Upload.state, *sorted(ENDED_OTHERWISE)),
    )
    .exists()
    .label("maybe_sent"),
    select(Upload.id)
    .where(
        Upload.record_id == Record.id,
        Upload.version == Record.delivered_version,
        Upload.digest == Record.delivered_digest,
        state_is(Upload.state, State.DELIVERED),
    )
    .scalar_subquery()
    .label("delivered_upload_id"),
).where(Record.id == any_(bindparam("record_ids", type_=ARRAY(Uuid))))

_NEW = insert(Upload).values(
    state=State.QUEUED,
    reason=Reason.NEW,
    next_attempt_at=func.now(),
    rung_until=func.now() + func.make_interval(0, 0, 0, 0, 0, 0, bindparam("ring_seconds")),
)

_NOTE_LATEST = text("""
    UPDATE records AS r
    SET versions = r.versions + n.added, latest_upload_id = n.upload_id, latest_digest = n.digest
    FROM unnest(CAST(:record_ids AS uuid[]), CAST(:upload_ids AS uuid[]),
                CAST(:digests AS bytea[]), CAST(:added AS int[]))
        AS n(record_id, upload_id, digest, added)
    WHERE r.id = n.record_id
""")


async def _put_in_once_each(
    connection: AsyncConnection, group: list[NewUpload], ring_seconds: float
) -> dict[UUID, tuple[UUID, bool]]:
    """`put_in` for uploads of as many different records."""
    locked = await connection.execute(
        _LOCK_RECORDS,
        {
            "ids": [uuid7() for _ in group],
            "user_ids": [new.user_id for new in group],
            "identities": [new.identity for new in group],
            "upstream_keys": [new.upstream_key for new in group],
        },
    )
    records = {(row.user_id, bytes(row.identity)): row for row in locked}
    pairs = [(new, records[new.user_id, new.identity]) for new in group]
    known = [row.latest_upload_id for new, row in pairs if row.latest_digest == new.digest]
    states: dict[UUID, str] = {}
    if known:
        states = {row.id: row.state for row in await connection.execute(_STATES, {"ids": known})}
    kept: dict[UUID, tuple[UUID, bool]] = {}
    changed: list[tuple[NewUpload, Row[Any]]] = []
    for new, row in pairs:
        same = row.latest_upload_id is not None and row.latest_digest == new.digest
        if same and _is_kept(states.get(row.latest_upload_id), row):
            kept[new.id] = (row.latest_upload_id, True)
        else:
            changed.append((new, row))
    if changed:
        record_ids = [row.id for _, row in changed]
        # Of a record that never had an upload there is nothing to ask.
        standings: dict[UUID, Row[Any]] = {}
        if before := [row.id for _, row in changed if row.versions]:
            await _supersede_unsent(connection, before)
            standings = await _standings(connection, before)
        fresh: list[dict[str, Any]] = []
        for new, row in changed:
            standing = standings.get(row.id)
            if standing and row.delivered_digest == new.digest and _is_as_delivered(standing):
                kept[new.id] = (standing.delivered_upload_id, True)
            else:
                kept[new.id] = (new.id, False)
                # What was delivered last may be there still, after a version that never arrived.
                # So may what a ledger that went back in time has forgotten.
                maybe_sent = row.recovering or (
                    standing is not None
                    and (standing.maybe_sent or row.delivered_digest == new.digest)
                )
                fresh.append(_values(new, row, ring_seconds, maybe_sent=maybe_sent))
        if fresh:
            await connection.execute(_NEW, fresh)
        await connection.execute(
            _NOTE_LATEST,
            {
                "record_ids": record_ids,
                "upload_ids": [kept[new.id][0] for new, _ in changed],
                "digests": [new.digest for new, _ in changed],
                "added": [0 if kept[new.id][1] else 1 for new, _ in changed],
            },
        )
    return kept


def _is_kept(state: str | None, record: Row[Any]) -> bool:
    """Whether the content that came last needs no upload, given its upload's state.

    None: that was thinned out. It still counts if it is what was delivered last.
    """
    if state is None:
        return bool(record.delivered_digest == record.latest_digest)
    return state not in _GIVEN_UP


async def _standings(connection: AsyncConnection, record_ids: list[UUID]) -> dict[UUID, Row[Any]]:
    """Of each record: what is under way, what may be upstream unnoticed, what was delivered."""
    rows = await connection.execute(_STANDINGS, {"record_ids": record_ids})
    return {row.id: row for row in rows}


def _is_as_delivered(standing: Row[Any]) -> bool:
    """Whether 1upHealth has what was delivered last, nothing else, and its upload is still here."""
    return (
        standing.delivered_upload_id is not None
        and not standing.unfinished
        and not standing.maybe_sent
    )


def _values(
    new: NewUpload, record: Row[Any], ring_seconds: float, *, maybe_sent: bool
) -> dict[str, Any]:
    return {
        "id": new.id,
        "user_id": new.user_id,
        "record_id": record.id,
        "version": record.versions + 1,
        "batch_id": new.batch_id,
        "queue": new.queue,
        "fhir_version": new.fhir_version,
        "resource_type": new.resource_type,
        "digest": new.digest,
        "body_bytes": new.body_bytes,
        "sealed_body": new.sealed_body,
        "maybe_sent": maybe_sent,
        "ring_seconds": ring_seconds,
    }


async def _supersede_unsent(connection: AsyncConnection, record_ids: list[UUID]) -> None:
    older = await connection.execute(_UNSENT, {"record_ids": record_ids})
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
        Upload.cancel_requested,
    ).join(User, (User.id == Upload.user_id) & User.erased_at.is_(None))


def _status(row: Row[Any]) -> UploadRow:
    values = dict(row._mapping)  # noqa: SLF001  SQLAlchemy's public name for it
    values["state"] = State(values["state"])
    if values["due_in"] is not None:
        values["due_in"] = float(values["due_in"])
    return UploadRow(**values)


# One text for any number of them, which Postgres plans once.
_STATUSES_OF = _statuses().where(Upload.id == any_(bindparam("ids", type_=ARRAY(Uuid))))


async def get_uploads(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, UploadRow]:
    """The status of each of these uploads, thinned ones by their receipts; the unknown are
    missing.
    """
    rows = await connection.execute(_STATUSES_OF, {"ids": list(ids)})
    found = {row.id: _status(row) for row in rows}
    if missing := [id_ for id_ in ids if id_ not in found]:
        rows = await connection.execute(receipts.STATUSES_OF, {"ids": missing})
        found |= {row.id: _status(row) for row in rows}
    return found


async def get_dropped(
    connection: AsyncConnection,
    upload_id: UUID,
    *,
    user_id: UUID,
    fhir_version: str,
    resource_type: str,
) -> UploadRow | None:
    """What is known of a delivered upload that was thinned out and left no receipt.

    None if its user is being erased.
    """
    values = await receipts.without_receipt(
        connection,
        upload_id,
        user_id=user_id,
        fhir_version=fhir_version,
        resource_type=resource_type,
    )
    return UploadRow(**values) if values is not None else None


async def get_revisions(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, int]:
    """The revision of each of these uploads: it rises with every change of state."""
    rows = await connection.execute(select(Upload.id, Upload.revision).where(Upload.id.in_(ids)))
    return {row.id: row.revision for row in rows}


async def list_uploads(
    connection: AsyncConnection, matching: Filter, *, after: UUID | None, limit: int
) -> list[UploadRow]:
    """Uploads that match, in the order of acceptance, from the one after `after`."""
    statement = _statuses().where(*matching.conditions()).order_by(Upload.id).limit(limit)
    if after is not None:
        statement = statement.where(Upload.id > after)
    return [_status(row) for row in await connection.execute(statement)]


async def count_by_state(connection: AsyncConnection) -> dict[State, int]:
    """How many uploads are in each state."""
    rows = await connection.execute(select(Upload.state, func.count()).group_by(Upload.state))
    return {State(state): count for state, count in rows}
