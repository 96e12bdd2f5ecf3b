"""New uploads, and the row that each begins with."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from uplift.ledger import fair_queue
from uplift.ledger.audit import SYSTEM, Action, Actor
from uplift.ledger.direct_statements import DirectStatement
from uplift.ledger.parameters import Rows
from uplift.ledger.uploads import UploadRow
from uplift.ledger.users import LockedUser
from uplift.lifecycle import Reason, State
from uplift.sealing import UserKey
from uplift.watermark import NO_TIMES, Times


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUpload:
    """An upload that is ready to be put in.

    `destination` is where it goes, its user's. `record_id` is the id of its record, if it is the
    first. `force`: it counts as newer than what
    is there, whatever its `times` say. Without its user's `key`, times are neither kept nor
    compared.
    """

    id: UUID
    user_id: UUID
    identity: bytes
    digest: bytes
    destination: str
    fhir_version: str
    resource_type: str
    body_bytes: int
    sealed_body: bytes
    queue: str
    derived_id: str | None = None  # `derived_ids.derived_id`; None without an id key
    upstream_key: bytes | None = None  # `uplift.identity.upstream_key`; None if it has no id
    source_key: bytes | None = None  # `uplift.identity.source_key`; None if it has no label
    server_key: bytes | None = None  # `uplift.identity.server_key`; None if it names no server
    batch_id: UUID | None = None
    by: Actor = SYSTEM
    record_id: UUID = field(default_factory=uuid7)
    key: UserKey | None = None
    times: Times = NO_TIMES
    sealed_watermark: bytes | None = None  # if it is the first of its record
    force: bool = False
    trace_parent: str | None = None  # `uplift.traces.current` of its request


@dataclass(frozen=True, slots=True)
class Version:
    """A new upload as the next version of its record.

    `maybe_sent` is whether 1upHealth may have its content already, and `maybe_lost` whether that
    is only because the ledger lost commits.
    """

    new: NewUpload
    record_id: UUID
    number: int
    maybe_sent: bool
    maybe_lost: bool = False


@dataclass(frozen=True, slots=True)
class Added:
    """What the ledger decided about an upload that was added: its `maybe_sent`, and its time."""

    maybe_sent: bool
    at: datetime


_NEW = Rows(
    "new",
    body_begins="int",
    body_length="int",
    id="uuid",
    record_id="uuid",
    version="int",
    maybe_sent="bool",
    maybe_lost="bool",
    user_id="uuid",
    identity="bytea",
    upstream_key="bytea",
    derived_id="text",
    watermark="bytea",
    source_key="bytea",
    server_key="bytea",
    batch_id="uuid",
    queue="text",
    destination="text",
    fhir_version="text",
    resource_type="text",
    digest="bytea",
    body_bytes="int",
    trace_parent="text",
    actor="text",
)

# All bodies are one value, of which each upload takes its part. A ledger that was restored has
# forgotten what was sent meanwhile, so for a time everything may have been sent. At first some of
# it may still be under way.
_ADD = """
    WITH new AS MATERIALIZED {new}, lost AS MATERIALIZED (
        SELECT count(*) > 0 AS maybe, greatest(max(settled_at), now()) AS settled_at
        FROM restores WHERE look_until > now()
    ), {first}last AS MATERIALIZED {last}, added AS (
        INSERT INTO uploads (id, user_id, record_id, version, batch_id, queue, destination,
            fhir_version, resource_type, digest, body_bytes, sealed_body, trace_parent, maybe_sent,
            maybe_lost, state, reason,
            next_attempt_at, finish_tag)
        SELECT new.id, new.user_id, new.record_id, new.version, new.batch_id, new.queue,
            new.destination, new.fhir_version, new.resource_type, new.digest, new.body_bytes,
            substring(CAST(:bodies AS bytea) FROM new.body_begins FOR new.body_length),
            new.trace_parent,
            new.maybe_sent OR lost.maybe,
            CASE WHEN new.maybe_sent THEN new.maybe_lost ELSE lost.maybe END,
            :state, :reason, lost.settled_at,
            last.finish_tag + sum({cost}) OVER (
                PARTITION BY new.user_id, new.queue ORDER BY new.body_begins)
        FROM {source} CROSS JOIN lost
            JOIN last ON last.user_id = new.user_id AND last.queue = new.queue
        RETURNING id, maybe_sent, created_at
    ), noted AS (
        INSERT INTO audit_events (actor, action, pseudonym, upload_id)
        SELECT new.actor, :action, owner.pseudonym, new.id
        FROM new JOIN added ON added.id = new.id CROSS JOIN LATERAL (
            SELECT pseudonym FROM users WHERE id = new.user_id OFFSET 0
        ) AS owner
        ORDER BY new.id
    )
    {result}
"""

_READ = "SELECT id, maybe_sent, created_at FROM added"
# Nearly always all of them are added: then there is nothing to send and to read.
_UNREAD = """
    SELECT CASE WHEN count(*) < CAST(:new AS int) THEN coalesce(array_agg(id), '{}') END AS ids
    FROM added
"""


def adding(source: str = "new", *, first: str = "", read: bool = True) -> DirectStatement:
    """The statement for `add`, which adds the uploads of `source`: of `new`, or a join with it.

    `first` is a common table expression that runs before, with its name and its comma. Without
    `read`, it is for `add_unread`.
    """
    return _NEW.direct(
        _ADD.replace("{source}", source)
        .replace("{first}", first)
        .replace("{result}", _READ if read else _UNREAD)
        .replace("{last}", fair_queue.behind("new"))
        .replace("{cost}", fair_queue.COST)
    )


async def add(
    connection: AsyncConnection,
    statement: DirectStatement,
    versions: Sequence[Version],
) -> dict[UUID, Added]:
    """Add these uploads, and note them in the audit trail: one statement, made by `adding`.

    Returns what was added, by the uploads' ids.
    """
    added = await statement.rows(connection, _values(versions))
    return {row.id: Added(row.maybe_sent, row.created_at) for row in added}


async def add_unread(
    connection: AsyncConnection,
    statement: DirectStatement,
    versions: Sequence[Version],
) -> set[UUID]:
    """`add`, but only which were added."""
    (ids,) = await statement.column(connection, _values(versions))
    return {version.new.id for version in versions} if ids is None else set(ids)


def _values(versions: Sequence[Version]) -> dict[str, object]:
    bodies = [version.new.sealed_body for version in versions]
    return {
        **_NEW.columns(len(versions), **_columns(versions, bodies)),
        "bodies": b"".join(bodies),
        "state": State.QUEUED,
        "reason": Reason.NEW,
        "action": Action.UPLOAD_ACCEPTED,
    }


def _columns(versions: Sequence[Version], bodies: Sequence[bytes]) -> dict[str, Sequence[Any]]:
    new = [version.new for version in versions]
    return {
        "body_begins": list(accumulate(map(len, bodies), initial=1))[:-1],
        "body_length": list(map(len, bodies)),
        "id": [each.id for each in new],
        "record_id": [version.record_id for version in versions],
        "version": [version.number for version in versions],
        "maybe_sent": [version.maybe_sent for version in versions],
        "maybe_lost": [version.maybe_lost for version in versions],
        "user_id": [each.user_id for each in new],
        "identity": [each.identity for each in new],
        "upstream_key": [each.upstream_key for each in new],
        "derived_id": [each.derived_id for each in new],
        "watermark": [each.sealed_watermark for each in new],
        "source_key": [each.source_key for each in new],
        "server_key": [each.server_key for each in new],
        "batch_id": [each.batch_id for each in new],
        "queue": [each.queue for each in new],
        "destination": [each.destination for each in new],
        "fhir_version": [each.fhir_version for each in new],
        "resource_type": [each.resource_type for each in new],
        "digest": [each.digest for each in new],
        "body_bytes": [each.body_bytes for each in new],
        "trace_parent": [each.trace_parent for each in new],
        "actor": [each.by for each in new],
    }


def first_status(new: NewUpload, added: Added, owner: LockedUser) -> UploadRow:
    """The status of an upload that this transaction added: what reading it back would give."""
    return UploadRow(
        id=new.id,
        user_id=new.user_id,
        app_user_id=owner.app_user_id,
        batch_id=new.batch_id,
        destination=new.destination,
        fhir_version=new.fhir_version,
        resource_type=new.resource_type,
        state=State.QUEUED,
        reason=Reason.NEW,
        revision=1,
        attempts=0,
        maybe_sent=added.maybe_sent,
        possible_duplicate=False,
        maybe_overwritten=False,
        last_response=None,
        issues=None,
        sealed_receipt=None,
        master_key_id=owner.wrapped_key.master_id,
        wrapped_key=owner.wrapped_key.sealed,
        next_attempt_at=added.at,
        due_in=0.0,
        created_at=added.at,
        updated_at=added.at,
        delivered_at=None,
    )
