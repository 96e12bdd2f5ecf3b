"""Which uploads may be claimed now: some that are named, or those at the front of a queue."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CTE,
    ColumnElement,
    Float,
    FromClause,
    Row,
    Select,
    SQLColumnExpression,
    and_,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    text,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import aliased

from uplift.ledger import fair_queue
from uplift.ledger.parameters import Built, is_among
from uplift.ledger.pauses import nobody_paused_all, not_paused
from uplift.ledger.set_aside import FhirType, set_aside, waits
from uplift.ledger.tables import Delivery, Record, Restore, Upload, User, state_is
from uplift.lifecycle import ENDED_UNDELIVERED, UNFINISHED, State


def _blocked(upload: Any) -> ColumnElement[bool]:
    """Whether an older version of the same record has not ended: versions are sent in order.

    What ends at another destination is in nobody's way.
    """
    older = aliased(Upload)
    return (
        select(1)
        .where(
            older.record_id == upload.record_id,
            older.version < upload.version,
            older.destination == upload.destination,
            state_is(older.state, *sorted(UNFINISHED)),
        )
        .exists()
    )


def is_due(state: SQLColumnExpression[str]) -> tuple[Any, ...]:
    """The conditions under which an upload may be claimed now."""
    return (state_is(state, State.QUEUED), *_may_be_sent(Upload))


def _may_be_sent(upload: Any) -> tuple[ColumnElement[bool], ...]:
    return (
        upload.next_attempt_at <= func.now(),
        ~_blocked(upload),
        not_paused(upload),
    )


def _may_go_there(upload: Any, person: Any) -> ColumnElement[bool]:
    """Whether its user has its destination still, or it may be there: nothing else goes there once
    a user has moved."""
    still: ColumnElement[bool] = upload.destination == person.destination
    return or_(still, upload.maybe_sent)


# No gateway keeps a request for longer.
_LINGERS = text("interval '1 day'")


def _is_newer_than_doubt(upload: Any) -> ColumnElement[bool]:
    """Whether an older version may be stored late: it was sent there without a precondition."""
    lately = Delivery.in_doubt_until > func.now() - _LINGERS
    newer: ColumnElement[bool] = Delivery.in_doubt_version < upload.version
    return newer & lately


def _older_had_time(upload: Any) -> ColumnElement[bool]:
    """Whether an older version that may be stored late had time to arrive."""
    waits = _is_newer_than_doubt(upload) & (Delivery.in_doubt_until > func.now())
    return func.coalesce(~waits, text("true"))


def _restored_since(upload: Any) -> ColumnElement[bool]:
    """Whether the ledger went back in time since its record was last delivered there: it may not
    know what is there."""
    since_delivered = Restore.at > Delivery.delivered_at
    never_delivered = Delivery.delivered_at.is_(None) & (
        (Restore.at > upload.created_at) | (Restore.look_until > upload.created_at)
    )
    return select(1).select_from(Restore).where(since_delivered | never_delivered).exists()


def _older_lost(upload: Any) -> Any:
    """Whether older versions may be at the destination only because the ledger lost commits; NULL
    if none may be, or something was delivered there since."""
    older = aliased(Upload)
    return (
        select(func.bool_and(older.maybe_lost))
        .where(
            older.record_id == upload.record_id,
            older.version < upload.version,
            older.version > func.coalesce(Delivery.version, 0),
            older.destination == upload.destination,
            older.maybe_sent,
            state_is(older.state, *sorted(ENDED_UNDELIVERED)),
        )
        .scalar_subquery()
    )


def is_over(
    stalled_seconds: float | ColumnElement[float],
    machine: float | ColumnElement[float],
    upload: Any = Upload,
) -> ColumnElement[bool]:
    """Whether the time to give up has come, without counting so many seconds.

    It has come only by both clocks, the ledger's and this `machine`'s: either may run ahead.
    """
    now = func.least(func.now(), func.to_timestamp(machine))
    over: ColumnElement[bool] = upload.give_up_at <= now - func.make_interval(
        0, 0, 0, 0, 0, 0, stalled_seconds
    )
    return over


_COLUMNS = (
    Upload.id,
    Upload.user_id,
    Upload.record_id,
    Upload.version,
    Upload.destination,
    Upload.fhir_version,
    Upload.resource_type,
    Upload.body_bytes,
    Upload.crashes,
    Upload.attempts,
    Upload.maybe_sent,
    Upload.maybe_lost,
    Upload.restored,
    Upload.empty_searches,
    Upload.cancel_requested,
    Upload.bundle_limit,
    Upload.issues.is_not(None).label("validated"),
    Upload.next_attempt_at,
    Upload.give_up_at,
    Upload.created_at,
    Upload.reason,
    Upload.finish_tag,
    Upload.waiting_since,
)
# What of these a claim reads; the others are for the conditions.
_READ = (
    "id",
    "user_id",
    "record_id",
    "destination",
    "fhir_version",
    "resource_type",
    "body_bytes",
    "crashes",
    "attempts",
    "maybe_sent",
    "maybe_lost",
    "restored",
    "empty_searches",
    "cancel_requested",
    "bundle_limit",
    "validated",
    "created_at",
    "reason",
)


def _locked(*conditions: ColumnElement[bool]) -> Select[Any]:
    return select(*_COLUMNS).where(*conditions).with_for_update(skip_locked=True)


def _person_of(upload: Any) -> FromClause:
    """Its user. They are looked up by their ids, one by one: PostgreSQL would rather read ten
    thousand users than look up a hundred. An offset keeps it from that."""
    columns = (
        User.app_user_id,
        User.master_key_id,
        User.wrapped_key,
        User.destination,
        User.erased_at,
        User.erasing_upstream_since,
    )
    found = select(*columns).where(User.id == upload.user_id).offset(literal_column("0"))
    return found.lateral("person")


def _details(locked: CTE, *more: ColumnElement[Any]) -> Select[Any]:
    """What a claim needs to know of locked uploads, and whether it `may` have them."""
    upload = locked.c
    person_of = _person_of(upload)
    person = person_of.c
    return (
        select(
            *(upload[name] for name in _READ),
            _older_lost(upload).label("older_lost"),
            _is_newer_than_doubt(upload).label("maybe_overwritten"),
            _restored_since(upload).label("read_first"),
            func.coalesce(
                is_over(
                    bindparam("stalled_seconds", type_=Float),
                    bindparam("machine", type_=Float),
                    upload,
                ),
                text("false"),
            ).label("past_deadline"),
            person.app_user_id,
            person.master_key_id,
            person.wrapped_key,
            Delivery.sealed_receipt.label("record_receipt"),
            Record.upstream_key,
            Record.derived_id,
            Record.source_key,
            func.extract("epoch", func.now() - upload.waiting_since).label("waited_seconds"),
            func.extract("epoch", func.now() - upload.next_attempt_at).label("due_seconds"),
            func.extract("epoch", func.now()).label("ledger_at"),
            and_(
                person.erased_at.is_(None),
                # Of who is erased upstream nothing is sent, but what may be there is looked up.
                or_(person.erasing_upstream_since.is_(None), upload.cancel_requested),
                _may_go_there(upload, person),
                _older_had_time(upload),
                *_may_be_sent(upload),
            ).label("may"),
            *more,
        )
        .select_from(locked)
        .join(person_of, text("true"))
        .join(Record, Record.id == upload.record_id)
        .outerjoin(
            Delivery,
            and_(
                Delivery.record_id == upload.record_id, Delivery.destination == upload.destination
            ),
        )
    )


# Where ids are given, PostgreSQL must find the rows by them. An expression hides the state from
# its planner: by an index of what is queued, each claim would read everything that waits.
_STATE_OF_THESE = Upload.state.concat("")

_NAMED = _locked(is_among(Upload.id), state_is(_STATE_OF_THESE, State.QUEUED)).cte("named")
_DUE = Built(_details(_NAMED).order_by(_NAMED.c.id), "ids", "stalled_seconds", "machine")

# Locked in the same select that finds them: the row that is read is the one that is locked.
_AT_FRONT = (
    _locked(
        Upload.queue == bindparam("queue"),
        Upload.destination == bindparam("destination"),
        state_is(Upload.state, State.QUEUED),
        Upload.finish_tag.is_not(None),
        nobody_paused_all(),
    )
    .order_by(Upload.finish_tag)
    .limit(bindparam("limit", literal_execute=False))
    .cte("front")
)
_FRONT = Built(
    _details(_AT_FRONT, fair_queue.advanced(_AT_FRONT)).order_by(
        _AT_FRONT.c.finish_tag, _AT_FRONT.c.id
    ),
    *("queue", "destination", "limit", "stalled_seconds", "machine"),
)


def _clock(stalled_seconds: float) -> dict[str, float]:
    return {"stalled_seconds": stalled_seconds, "machine": time.time()}


@dataclass(frozen=True, slots=True)
class Due:
    """A due upload that nobody else can claim until the transaction ends. `crashes` is how many of
    its leases ran out, one after the other."""

    body_bytes: int
    crashes: int
    row: Row[Any] = field(repr=False)


async def due_among(
    connection: AsyncConnection, ids: Sequence[UUID], *, stalled_seconds: float = 0.0
) -> dict[UUID, Due]:
    """Those of the uploads that are due now and locked by nobody, in the order of their ids.

    For `stalled_seconds` nothing could be sent: their time to give up is later by as much.
    """
    rows = await _DUE.execute(connection, {"ids": list(ids), **_clock(stalled_seconds)})
    return {row.id: Due(row.body_bytes, row.crashes, row) for row in rows if row.may}


@dataclass(frozen=True, slots=True)
class Front:
    """What was found at the front of a queue: so many uploads, of which some are due."""

    found: int
    due: dict[UUID, Due]


async def front(
    connection: AsyncConnection,
    queue: str,
    destination: str,
    *,
    limit: int,
    probing: Collection[FhirType] = (),
    stalled_seconds: float = 0.0,
    longest_wait: float = 3600.0,
) -> Front:
    """Up to `limit` uploads for a destination at the front of a queue, locked, in the order of
    their finish tags.

    What may not be claimed now loses its tag: so it is in nobody's way again before the sweep
    finds that it may. What is of a type of which only probes are sent is set aside.
    `stalled_seconds` as in `due_among`, `longest_wait` as in `fair_queue.untag`.
    """
    rows = (
        await _FRONT.execute(
            connection,
            {
                "queue": queue,
                "destination": destination,
                "limit": limit,
                **_clock(stalled_seconds),
            },
        )
    ).all()
    due = {row.id: Due(row.body_bytes, row.crashes, row) for row in rows if row.may}
    if len(due) < len(rows):
        passed = [row.id for row in rows if not row.may]
        await fair_queue.untag(connection, passed, longest_wait=longest_wait)
    waiting = [id_ for id_, each in due.items() if _waits_for_type(each.row, probing)]
    if waiting:
        await set_aside(connection, queue, destination, waiting, probing)
        due = {id_: each for id_, each in due.items() if id_ not in waiting}
    return Front(len(rows), due)


def _waits_for_type(row: Row[Any], probing: Collection[FhirType]) -> bool:
    return waits(
        FhirType(row.fhir_version, row.resource_type),
        probing,
        last_attempt=row.past_deadline or row.cancel_requested,
        crashes=row.crashes,
    )
