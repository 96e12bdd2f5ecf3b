"""Uploads as workers see them: due, claimed under a lease, and their outcomes recorded."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NotRequired, TypedDict, Unpack
from uuid import UUID

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid4

from uplift import uuid_time
from uplift.ledger.collisions import Claimed, colliding
from uplift.ledger.due import Due, due_among
from uplift.ledger.locks import lock_records
from uplift.ledger.parameters import Rows
from uplift.ledger.put_order import note_in_doubt, supersede_overtaken
from uplift.ledger.set_aside import FhirType
from uplift.ledger.transitions import Change, change_and, changing
from uplift.lifecycle import Reason, State
from uplift.sealing import WrappedKey


class Claim(Struct, frozen=True, kw_only=True):
    """An upload that this process has claimed, until its lease ends.

    `claimed_at` is from before the claim, `deadline` is when its attempt must end, `lease_ends`
    when its lease does, all on `time.monotonic`. `maybe_sent` is whether an earlier attempt may
    have reached 1upHealth: one of this version, or one of an older version with an unknown outcome
    (`older_in_doubt`).
    `empty_searches` is how many searches have found nothing since. `past_deadline` is whether the
    time to give up has passed, `cancel_requested` whether its owner withdrew it, and `collides`
    whether another record is at the destination under its type and id. An upload that is withdrawn
    or collides must not be sent.
    `ledger_at` is the ledger's time at the claim, in seconds since 1970.
    `derived_id` is its record's id wherever Uplift derives ids, and `source_key` its source, as
    `identity.source_key`. `due_seconds` is how long it was due. `newer_since` is when the upload
    was accepted, if the ledger went back in time since: what was written there later may be newer,
    and the ledger does not know of it. `maybe_lost` is whether that is also the only reason for
    `maybe_sent`.
    `waited_seconds` is how long it has waited for a reference; None if it has not. `read_first` is
    whether a restore came since its record was last delivered. `redriven` is whether a person sends
    it again. `bundle_limit` is the largest Bundle that it could join before this claim; 0: any.
    """

    upload_id: UUID
    lease_id: UUID
    claimed_at: float
    deadline: float
    lease_ends: float
    user_id: UUID
    record_id: UUID
    destination: str
    fhir_version: str
    resource_type: str
    sealed_body: bytes
    body_bytes: int
    attempts: int
    maybe_sent: bool
    empty_searches: int
    validated: bool
    past_deadline: bool
    cancel_requested: bool
    collides: bool
    app_user_id: str
    wrapped_key: WrappedKey
    record_receipt: bytes | None
    newer_since: datetime | None = None
    maybe_lost: bool = False
    due_seconds: float = 0.0
    ledger_at: float = 0.0
    older_in_doubt: bool = False
    derived_id: str | None = None
    source_key: bytes | None = None
    waited_seconds: float | None = None
    read_first: bool = False
    redriven: bool = False
    bundle_limit: int = 0
    trace_parent: str | None = None

    @property
    def fhir_type(self) -> FhirType:
        """Its FHIR version and resource type."""
        return FhirType(self.fhir_version, self.resource_type)


class Outcome(Struct, frozen=True, kw_only=True):
    """What an attempt came to: the upload's change, codes for its history, the record's receipt.

    `code` is the attempt's own; `record_receipt` is sealed with `uploads.delivery_context`.
    `may_be_late` is whether a send without a precondition had an unknown outcome: it may be stored
    later, over a newer version. `receipt_key` is `identity.receipt_key` of its id. `if_taken` gives
    the outcome instead, if that id is the receipt of another record: then this one got the response
    of that one.
    """

    claim: Claim
    change: Change
    code: str
    status_code: int | None = None
    duration: float = 0.0  # seconds
    record_receipt: bytes | None = None
    receipt_key: bytes | None = None
    if_taken: "Callable[[], Outcome] | None" = None
    may_be_late: bool = False


# In one statement, since each is a round trip. Bodies are read only now: those of all due uploads
# may be more than the memory takes.
_CLAIM = changing(
    """, opened AS (
        INSERT INTO attempts (lease_id, upload_id) SELECT new_lease_id, id FROM changed
    )
    SELECT id, sealed_body, trace_parent FROM changed
    """,
    *("u.id", "u.sealed_body", "u.trace_parent", "c.new_lease_id"),
)


class LeaseTerms(TypedDict):
    """How long an attempt, a lease and an upload may take, in seconds; whose lease it is; and
    whether two records of one user may have the same id."""

    attempt_seconds: float
    lease_seconds: float
    give_up_seconds: float
    process_id: NotRequired[UUID]
    allow_shared_ids: NotRequired[bool]


async def lease(
    connection: AsyncConnection,
    due: Mapping[UUID, Due],
    *,
    since: float,
    bundle_limits: Mapping[UUID, int] | None = None,
    **terms: Unpack[LeaseTerms],
) -> list[Claim]:
    """Lease these uploads, which `due` found in the same transaction. Opens their attempts.

    `bundle_limits` are of those that will share a Bundle: what they may join after an unknown
    outcome.

    `since` is on `time.monotonic`, from before the transaction began: the times of the claims
    count from then, so they end before the lease in the ledger does. A leased upload counts as
    maybe sent from now on, unless it must not be sent.
    """
    if not due:
        return []
    lease_id = uuid4()
    again = [id_ for id_, each in due.items() if each.maybe_sent]
    overtaken = await supersede_overtaken(connection, again)
    rows = [each for id_, each in due.items() if id_ not in overtaken]
    collisions = (
        set() if terms.get("allow_shared_ids") else await colliding(connection, _claimed(rows))
    )
    claimed = await change_and(
        connection,
        _CLAIM,
        [
            Change(
                upload_id=row.id,
                source=State.QUEUED,
                target=State.SENDING,
                new_lease_id=lease_id,
                lease_seconds=terms["lease_seconds"],
                attempt_seconds=terms["attempt_seconds"],
                process_id=terms.get("process_id"),
                clock=terms["give_up_seconds"],
                maybe_sent=(None if row.cancel_requested or _place(row) in collisions else True),
                maybe_overwritten=row.maybe_overwritten or None,
                bundle_limit=(bundle_limits or {}).get(row.id),
            )
            for row in rows
        ],
    )
    contents = {id_: (body or b"", trace_parent) for id_, body, trace_parent in claimed}
    return [
        Claim(
            upload_id=row.id,
            lease_id=lease_id,
            claimed_at=since,
            deadline=since + terms["attempt_seconds"],
            lease_ends=since + terms["lease_seconds"],
            user_id=row.user_id,
            record_id=row.record_id,
            destination=row.destination,
            fhir_version=row.fhir_version,
            resource_type=row.resource_type,
            sealed_body=contents[row.id][0],
            body_bytes=row.body_bytes,
            attempts=row.attempts + 1,
            maybe_sent=row.maybe_sent or row.older_lost is not None,
            empty_searches=row.empty_searches,
            validated=row.validated,
            past_deadline=row.past_deadline,
            cancel_requested=row.cancel_requested,
            collides=_place(row) in collisions,
            app_user_id=row.app_user_id or "",
            wrapped_key=WrappedKey(row.master_key_id or "", row.wrapped_key or b""),
            record_receipt=row.record_receipt,
            due_seconds=row.due_seconds,
            ledger_at=row.ledger_at,
            newer_since=accepted_at(row.id, row.created_at) if row.restored else None,
            maybe_lost=_is_only_lost(row),
            older_in_doubt=row.older_lost is not None,
            read_first=row.read_first,
            derived_id=row.derived_id,
            source_key=row.source_key,
            waited_seconds=row.waited_seconds,
            redriven=row.reason == Reason.REDRIVEN,
            bundle_limit=row.bundle_limit,
            trace_parent=contents[row.id][1],
        )
        for row in rows
        if row.id in contents
    ]


def accepted_at(upload_id: UUID, created_at: datetime) -> datetime:
    """When an upload was accepted, by the clock that ran less ahead: PostgreSQL's, or that of the
    API's machine, which is in its id."""
    if upload_id.version != uuid_time.VERSION:
        return created_at
    return min(created_at, datetime.fromtimestamp(uuid_time.seconds_of(upload_id), tz=UTC))


def _is_only_lost(row: Due) -> bool:
    own = (row.maybe_lost,) if row.maybe_sent else ()
    older = (row.older_lost,) if row.older_lost is not None else ()
    reasons = own + older
    return bool(reasons) and all(reasons)


def _claimed(rows: Sequence[Due]) -> list[Claimed]:
    return [
        Claimed(*_place(row), upstream_key=bytes(row.upstream_key))
        for row in rows
        if row.upstream_key
    ]


def _place(row: Due) -> tuple[UUID, str]:
    return row.record_id, row.destination


async def claim(
    connection: AsyncConnection,
    ids: Sequence[UUID],
    *,
    since: float,
    stalled_seconds: float = 0.0,
    **terms: Unpack[LeaseTerms],
) -> list[Claim]:
    """Lease those of these uploads that are due and locked by nobody, whatever their size.

    `since` as in `lease`.
    """
    due = await due_among(connection, ids, stalled_seconds=stalled_seconds)
    return await lease(connection, due, since=since, **terms)


_ENDED = Rows(
    "ended",
    lease_id="uuid",
    upload_id="uuid",
    outcome="text",
    status_code="int",
    duration_ms="int",
    receipt="bytea",
    receipt_key="bytea",
)

# In one statement, since each is a round trip. Two outcomes of one upload may be in the group, and
# only one of them had the lease.
_RECORD = changing(
    """, closed AS (
        UPDATE attempts AS a SET closed_at = now(), outcome = e.outcome,
            status_code = e.status_code, duration_ms = e.duration_ms
        FROM {ended} AS e
        WHERE a.lease_id = ANY ({ended.lease_id})
            AND a.lease_id = e.lease_id AND a.upload_id = e.upload_id
    ), delivered AS (
        INSERT INTO deliveries AS d
            (record_id, destination, delivered_at, version, digest, sealed_receipt, receipt_key)
        SELECT DISTINCT ON (u.record_id, u.destination) u.record_id, u.destination, now(),
            u.version, u.digest, e.receipt, e.receipt_key
        FROM changed AS u
        JOIN {ended} AS e ON e.upload_id = u.id AND e.lease_id = u.had_lease_id
        WHERE u.state = 'delivered'
        ORDER BY u.record_id, u.destination, u.version DESC
        ON CONFLICT (record_id, destination) DO UPDATE
        SET delivered_at = excluded.delivered_at, version = excluded.version,
            digest = excluded.digest, sealed_receipt = excluded.sealed_receipt,
            receipt_key = excluded.receipt_key
        WHERE d.version < excluded.version
    )
    SELECT id FROM changed
    """,
    *("u.id", "u.record_id", "u.destination", "u.version", "u.digest", "u.state"),
    "c.lease_id AS had_lease_id",
    more=_ENDED,
)


async def record(
    connection: AsyncConnection, ended: Sequence[Outcome], *, settle_seconds: float = 60.0
) -> set[UUID]:
    """Record outcomes: the states, the history and the deliveries, all or nothing.

    Where ids are derived, a newer version waits `settle_seconds` for one that may be stored late.

    Returns the uploads whose lease was still theirs. Another worker or the sweep changed the
    others, which keep their state.
    """
    delivered = [end for end in ended if end.change.target is State.DELIVERED]
    if delivered:
        await lock_records(connection, [end.claim.record_id for end in delivered])
    attempts = _ENDED.columns(
        len(ended),
        lease_id=[end.claim.lease_id for end in ended],
        upload_id=[end.claim.upload_id for end in ended],
        outcome=[end.code for end in ended],
        status_code=[end.status_code for end in ended],
        duration_ms=[round(end.duration * 1000) for end in ended],
        receipt=[end.record_receipt or None for end in ended],
        receipt_key=[end.receipt_key for end in ended],
    )
    rows = await change_and(connection, _RECORD, [end.change for end in ended], attempts)
    changed = {row.id for row in rows}
    in_doubt = {
        end.claim.upload_id: settle_seconds
        for end in ended
        if end.may_be_late and end.claim.upload_id in changed
    }
    if in_doubt:
        await note_in_doubt(connection, in_doubt)
    await supersede_overtaken(
        connection,
        [
            end.claim.upload_id
            for end in ended
            if end.change.target is State.QUEUED
            and end.change.maybe_sent
            and end.claim.upload_id in changed
        ],
    )
    return changed
