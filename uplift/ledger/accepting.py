"""Takes uploads in, with their records and the audit trail: once each, and in order."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import ARRAY, Row, Uuid, any_, bindparam, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from uplift.ledger import audit
from uplift.ledger.audit import SYSTEM, Action, Actor
from uplift.ledger.tables import Record, Upload, state_is
from uplift.ledger.transitions import Change, change_state
from uplift.ledger.uploads import UploadRow
from uplift.ledger.users import LockedUser
from uplift.lifecycle import ENDED_OTHERWISE, UNFINISHED, Reason, State

# What ended without reaching 1upHealth because somebody stopped it, or time did: the same content
# coming again is a new wish to send it, not a duplicate.
_GIVEN_UP = frozenset({State.CANCELLED, State.EXPIRED, State.SUPERSEDED})


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
    upstream_key: bytes | None = None  # `uplift.identity.upstream_key`; None if it has no id
    batch_id: UUID | None = None
    by: Actor = SYSTEM


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of an upload that was put in: the id it has, and whether that was there before.

    Of one that is new, `at` is when it was accepted; None if that has to be looked up.
    """

    id: UUID
    duplicate: bool
    maybe_sent: bool = False
    at: datetime | None = None


async def put_in(
    connection: AsyncConnection, group: Sequence[NewUpload], *, redispatch_seconds: float
) -> list[tuple[UUID, bool]]:
    """Keep new uploads, but for those whose record has their content already.

    What is kept is noted in the audit trail.

    The locks on the records' rows make twins that arrive at once take turns, within the group as
    between groups. Older versions that nobody has tried to send are superseded; one that may be
    upstream is left to end first. Content that went back to what was delivered needs no upload,
    unless another version may have reached 1upHealth since. What comes after a version that ended
    while it may be upstream may be sent already too, so a worker looks first.

    Outcome uploads may be thinned out: `records` knows what was delivered without them. The content
    that came last and was delivered last stays a duplicate, under the id of its upload, for which
    there may be no row any more; what ended otherwise and is gone is a new upload when it comes
    again. So is what was delivered last, is gone, and comes back after other content; a worker
    looks for it first, so that it is not sent twice.

    Returns for each, in the order of the group, the upload's id and whether it was there before.
    """
    kept = await put_in_timed(connection, group, redispatch_seconds=redispatch_seconds)
    return [(each.id, each.duplicate) for each in kept]


async def put_in_timed(
    connection: AsyncConnection, group: Sequence[NewUpload], *, redispatch_seconds: float
) -> list[Kept]:
    """`put_in`, with what there is to say of those that are the first of their record."""
    kept: dict[UUID, Kept] = {}
    rounds, twins = _rounds(group)
    for round_, once_each in enumerate(rounds):
        # Only in the first round can there be a record that is not there yet.
        first = {} if round_ else await _put_in_first(connection, once_each, redispatch_seconds)
        if rest := [new for new in once_each if new.id not in first]:
            first |= await _put_in_once_each(connection, rest, redispatch_seconds)
            added = {new.id: new.by for new in rest if not first[new.id].duplicate}
            await audit.note_uploads_by(connection, Action.UPLOAD_ACCEPTED, added)
        kept |= first
    kept |= {twin.id: Kept(kept[first.id].id, duplicate=True) for twin, first in twins}
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


# The first version of a record is by far the most frequent case: one statement for all of it. Of a
# record that is there, or that another transaction adds meanwhile, nothing is done. Sorted as in
# `_LOCK_RECORDS`, and only here a transaction holds records that others cannot see: who waits for
# one of those has locked none that is there, so no two wait for each other.
# JSON for what is short, and all bodies as one value: the text stays the same for any number of
# uploads, and psycopg writes arrays as text, which takes both sides a multiple of the time.
_PUT_IN_FIRST = text("""
    WITH new AS MATERIALIZED (
        SELECT n.id, n.record_id, n.user_id, decode(n.identity, 'hex') AS identity,
            decode(n.upstream_key, 'hex') AS upstream_key, n.batch_id, n.queue, n.fhir_version,
            n.resource_type, decode(n.digest, 'hex') AS digest, n.body_bytes,
            substring(CAST(:bodies AS bytea) FROM n.begins FOR n.takes) AS sealed_body, n.actor
        FROM json_to_recordset(CAST(:uploads AS json)) AS n(
            begins int, takes int, id uuid, record_id uuid, user_id uuid, identity text,
            upstream_key text, batch_id uuid, queue text, fhir_version text, resource_type text,
            digest text, body_bytes int, actor text)
    ), first AS (
        INSERT INTO records
            (id, user_id, identity, upstream_key, versions, latest_upload_id, latest_digest)
        SELECT record_id, user_id, identity, upstream_key, 1, id, digest
        FROM new ORDER BY user_id, identity
        ON CONFLICT (user_id, identity) DO NOTHING
        RETURNING id
    ), added AS (
        INSERT INTO uploads (id, user_id, record_id, version, batch_id, queue, fhir_version,
            resource_type, digest, body_bytes, sealed_body, maybe_sent, state, reason,
            next_attempt_at, dispatched_until)
        SELECT new.id, new.user_id, new.record_id, 1, new.batch_id, new.queue, new.fhir_version,
            new.resource_type, new.digest, new.body_bytes, new.sealed_body,
            EXISTS (SELECT 1 FROM restores WHERE look_until > now()), :state, :reason,
            now(), now() + make_interval(secs => :redispatch_seconds)
        FROM new JOIN first ON first.id = new.record_id
        RETURNING id, maybe_sent, created_at
    ), noted AS (
        INSERT INTO audit_events (actor, action, pseudonym, upload_id)
        SELECT new.actor, :action, users.pseudonym, new.id
        FROM new JOIN added ON added.id = new.id JOIN users ON users.id = new.user_id
        ORDER BY new.id
    )
    SELECT id, maybe_sent, created_at FROM added
""")

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
        EXISTS (SELECT 1 FROM restores WHERE look_until > now()) AS recovering
""")

# What its owner withdrew ends as cancelled, unless it turns out to be delivered.
_STATES = text("""
    SELECT id, CASE WHEN cancel_requested AND state IN ('parked', 'queued', 'sending')
        THEN 'cancelled' ELSE state END AS state
    FROM uploads WHERE id = ANY(CAST(:ids AS uuid[]))
""")

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
    select(func.array_agg(Upload.digest))
    .where(Upload.record_id == Record.id, state_is(Upload.state, *sorted(UNFINISHED)))
    .scalar_subquery()
    .label("under_way"),
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
    dispatched_until=func.now()
    + func.make_interval(0, 0, 0, 0, 0, 0, bindparam("redispatch_seconds")),
)

_NOTE_LATEST = text("""
    UPDATE records AS r
    SET versions = r.versions + n.added, latest_upload_id = n.upload_id, latest_digest = n.digest
    FROM unnest(CAST(:record_ids AS uuid[]), CAST(:upload_ids AS uuid[]),
                CAST(:digests AS bytea[]), CAST(:added AS int[]))
        AS n(record_id, upload_id, digest, added)
    WHERE r.id = n.record_id
""")


async def _put_in_first(
    connection: AsyncConnection, group: list[NewUpload], redispatch_seconds: float
) -> dict[UUID, Kept]:
    """`put_in` for those of the group whose record is not there yet; each record comes once."""
    begins = accumulate((len(new.sealed_body) for new in group), initial=1)
    short = [_short(new, begin) for new, begin in zip(group, begins, strict=False)]
    added = await connection.execute(
        _PUT_IN_FIRST,
        {
            "uploads": orjson.dumps(short).decode(),
            "bodies": b"".join(new.sealed_body for new in group),
            "state": State.QUEUED,
            "reason": Reason.NEW,
            "action": Action.UPLOAD_ACCEPTED,
            "redispatch_seconds": redispatch_seconds,
        },
    )
    return {
        row.id: Kept(row.id, duplicate=False, maybe_sent=row.maybe_sent, at=row.created_at)
        for row in added
    }


def _short(new: NewUpload, begins: int) -> dict[str, Any]:
    """A new upload for JSON, with where its body begins among all of them, from 1."""
    return {
        "begins": begins,
        "takes": len(new.sealed_body),
        "id": new.id,
        "record_id": uuid7(),
        "user_id": new.user_id,
        "identity": new.identity.hex(),
        "upstream_key": new.upstream_key.hex() if new.upstream_key is not None else None,
        "batch_id": new.batch_id,
        "queue": new.queue,
        "fhir_version": new.fhir_version,
        "resource_type": new.resource_type,
        "digest": new.digest.hex(),
        "body_bytes": new.body_bytes,
        "actor": new.by,
    }


async def _put_in_once_each(
    connection: AsyncConnection, group: list[NewUpload], redispatch_seconds: float
) -> dict[UUID, Kept]:
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
    kept: dict[UUID, Kept] = {}
    changed: list[tuple[NewUpload, Row[Any]]] = []
    for new, row in pairs:
        same = row.latest_upload_id is not None and row.latest_digest == new.digest
        if same and _is_kept(states.get(row.latest_upload_id), row):
            kept[new.id] = Kept(row.latest_upload_id, duplicate=True)
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
                kept[new.id] = Kept(standing.delivered_upload_id, duplicate=True)
            else:
                kept[new.id] = Kept(new.id, duplicate=False)
                # What was delivered last may be there still, after a version that never arrived.
                # So may soon be what is under way with the same content, and what a ledger that
                # went back in time has forgotten.
                maybe_sent = row.recovering or (
                    standing is not None
                    and (
                        standing.maybe_sent
                        or row.delivered_digest == new.digest
                        or new.digest in (standing.under_way or ())
                    )
                )
                fresh.append(_values(new, row, redispatch_seconds, maybe_sent=maybe_sent))
        if fresh:
            await connection.execute(_NEW, fresh)
        await connection.execute(
            _NOTE_LATEST,
            {
                "record_ids": record_ids,
                "upload_ids": [kept[new.id].id for new, _ in changed],
                "digests": [new.digest for new, _ in changed],
                "added": [0 if kept[new.id].duplicate else 1 for new, _ in changed],
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
        and not standing.under_way
        and not standing.maybe_sent
    )


def _values(
    new: NewUpload, record: Row[Any], redispatch_seconds: float, *, maybe_sent: bool
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
        "redispatch_seconds": redispatch_seconds,
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


def new_status(new: NewUpload, kept: Kept, user: LockedUser) -> UploadRow | None:
    """The status of an upload that is new in this transaction; None if it has to be looked up."""
    if kept.at is None:
        return None
    return UploadRow(
        id=new.id,
        user_id=new.user_id,
        app_user_id=user.app_user_id,
        batch_id=new.batch_id,
        fhir_version=new.fhir_version,
        resource_type=new.resource_type,
        state=State.QUEUED,
        reason=Reason.NEW,
        revision=1,
        attempts=0,
        maybe_sent=kept.maybe_sent,
        possible_duplicate=False,
        last_response=None,
        issues=None,
        sealed_receipt=None,
        master_key_id=user.wrapped_key.master_id,
        wrapped_key=user.wrapped_key.sealed,
        next_attempt_at=kept.at,
        due_in=0.0,
        created_at=kept.at,
        updated_at=kept.at,
        delivered_at=None,
    )
