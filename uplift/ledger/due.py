"""Which uploads may be claimed now: some that are named, or those at the front of a queue."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    CTE,
    ColumnElement,
    Float,
    FromClause,
    Integer,
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
from uplift.ledger.direct_statements import built
from uplift.ledger.parameters import array, is_among
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


_STALLED = bindparam("stalled_seconds", type_=Float)
_MACHINE = bindparam("machine", type_=Float)


def _now(machine: float | ColumnElement[float] = _MACHINE) -> ColumnElement[datetime]:
    """By both clocks, the ledger's and this `machine`'s: either may run ahead."""
    return func.least(func.now(), func.to_timestamp(machine))


def _is_newer_than_doubt(upload: Any, delivery: Any) -> ColumnElement[bool]:
    """Whether an older version may be stored late: it was sent there without a precondition."""
    lately = delivery.in_doubt_until > _now() - _LINGERS
    newer: ColumnElement[bool] = and_(delivery.in_doubt_version < upload.version, lately)
    return newer


def _older_had_time(upload: Any, delivery: Any) -> ColumnElement[bool]:
    """Whether an older version that may be stored late had time to arrive."""
    waits = _is_newer_than_doubt(upload, delivery) & (delivery.in_doubt_until > _now())
    return func.coalesce(~waits, text("true"))


def _restored_since(upload: Any, delivery: Any) -> ColumnElement[bool]:
    """Whether the ledger went back in time since its record was last delivered there: it may not
    know what is there."""
    since_delivered = Restore.at > delivery.delivered_at
    never_delivered = delivery.delivered_at.is_(None) & (
        (Restore.at > upload.created_at) | (Restore.look_until > upload.created_at)
    )
    return select(1).select_from(Restore).where(since_delivered | never_delivered).exists()


def _older_lost(upload: Any, delivery: Any) -> Any:
    """Whether older versions may be at the destination only because the ledger lost commits; NULL
    if none may be, or something was delivered there since."""
    older = aliased(Upload)
    return (
        select(func.bool_and(older.maybe_lost))
        .where(
            older.record_id == upload.record_id,
            older.version < upload.version,
            older.version > func.coalesce(delivery.version, 0),
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
    """Whether the time to give up has come, without counting so many seconds."""
    over: ColumnElement[bool] = upload.give_up_at <= _now(machine) - func.make_interval(
        0, 0, 0, 0, 0, 0, stalled_seconds
    )
    return over


class Due(NamedTuple):
    """What a claim knows of an upload that it locked. Nobody else can claim it until the
    transaction ends. It is due if it `may` be claimed.

    `crashes` is how many of its leases ran out, one after the other. What else is not a column is
    as `leases.Claim` has it; `older_lost` is None if no older version is in doubt.
    """

    id: UUID
    user_id: UUID
    record_id: UUID
    destination: str
    fhir_version: str
    resource_type: str
    body_bytes: int
    crashes: int
    attempts: int
    maybe_sent: bool
    maybe_lost: bool
    restored: bool
    empty_searches: int
    cancel_requested: bool
    bundle_limit: int
    validated: bool
    created_at: datetime
    reason: str | None
    older_lost: bool | None
    maybe_overwritten: bool | None
    read_first: bool
    past_deadline: bool
    app_user_id: str | None
    master_key_id: str | None
    wrapped_key: bytes | None
    record_receipt: bytes | None
    upstream_key: bytes | None
    derived_id: str | None
    source_key: bytes | None
    waited_seconds: float | None
    due_seconds: float
    ledger_at: float
    may: bool

    @property
    def fhir_type(self) -> FhirType:
        """Its FHIR version and resource type."""
        return FhirType(self.fhir_version, self.resource_type)


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


def _locked(*conditions: ColumnElement[bool]) -> Select[Any]:
    return select(*_COLUMNS).where(*conditions).with_for_update(skip_locked=True)


def _looked_up(name: str, columns: Sequence[Any], *conditions: ColumnElement[bool]) -> FromClause:
    """What is found for each upload, one after the other: PostgreSQL would rather read ten thousand
    users than look up a hundred. An offset keeps it from that."""
    return select(*columns).where(*conditions).offset(literal_column("0")).lateral(name)


_OF_PERSON = (
    User.app_user_id,
    User.master_key_id,
    User.wrapped_key,
    User.destination,
    User.erased_at,
    User.erasing_upstream_since,
)
_OF_RECORD = (Record.upstream_key, Record.derived_id, Record.source_key)
_OF_DELIVERY = (
    Delivery.sealed_receipt,
    Delivery.version,
    Delivery.delivered_at,
    Delivery.in_doubt_version,
    Delivery.in_doubt_until,
)


def _epoch(time: Any) -> ColumnElement[float]:
    return func.extract("epoch", time).cast(Float)


def _details(locked: CTE, *more: ColumnElement[Any]) -> Select[Any]:
    """The columns of `Due` for locked uploads, and more behind them."""
    upload = locked.c
    person_of = _looked_up("person", _OF_PERSON, User.id == upload.user_id)
    record_of = _looked_up("record", _OF_RECORD, Record.id == upload.record_id)
    delivery_of = _looked_up(
        "delivery",
        _OF_DELIVERY,
        Delivery.record_id == upload.record_id,
        Delivery.destination == upload.destination,
    )
    person, record, delivery = person_of.c, record_of.c, delivery_of.c
    columns: dict[str, SQLColumnExpression[Any]] = {
        "older_lost": _older_lost(upload, delivery),
        "maybe_overwritten": _is_newer_than_doubt(upload, delivery),
        "read_first": _restored_since(upload, delivery),
        "past_deadline": func.coalesce(
            is_over(_STALLED, _MACHINE, upload),
            text("false"),
        ),
        "app_user_id": person.app_user_id,
        "master_key_id": person.master_key_id,
        "wrapped_key": person.wrapped_key,
        "record_receipt": delivery.sealed_receipt,
        "upstream_key": record.upstream_key,
        "derived_id": record.derived_id,
        "source_key": record.source_key,
        "waited_seconds": _epoch(func.now() - upload.waiting_since),
        "due_seconds": _epoch(func.now() - upload.next_attempt_at),
        "ledger_at": _epoch(func.now()),
        "may": and_(
            person.erased_at.is_(None),
            # Of who is erased upstream nothing is sent, but what may be there is looked up.
            or_(person.erasing_upstream_since.is_(None), upload.cancel_requested),
            _may_go_there(upload, person),
            _older_had_time(upload, delivery),
            *_may_be_sent(upload),
        ),
    }
    in_order = [
        columns[name].label(name) if name in columns else upload[name] for name in Due._fields
    ]
    return (
        select(*in_order, *more)
        .select_from(locked)
        .join(person_of, text("true"))
        .join(record_of, text("true"))
        .outerjoin(delivery_of, text("true"))
    )


# Where ids are given, PostgreSQL must find the rows by them. An expression hides the state from
# its planner: by an index of what is queued, each claim would read everything that waits.
_STATE_OF_THESE = Upload.state.concat("")

_NAMED = _locked(is_among(Upload.id), state_is(_STATE_OF_THESE, State.QUEUED)).cte("named")
_DUE = built(
    _details(_NAMED).order_by(_NAMED.c.id),
    *("ids", "stalled_seconds", "machine"),
    row=Due._make,
)

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
    # In a subquery, PostgreSQL does not see how many: else it would plan for them each time.
    .limit(select(bindparam("limit", type_=Integer)).scalar_subquery())
    .cte("front")
)
_FRONT = built(
    _details(_AT_FRONT, fair_queue.advanced(_AT_FRONT)).order_by(
        _AT_FRONT.c.finish_tag, _AT_FRONT.c.id
    ),
    *("queue", "destination", "limit", "stalled_seconds", "machine"),
    row=lambda columns: Due._make(columns[:-1]),  # without the virtual time
)


def _clock(stalled_seconds: float) -> dict[str, float]:
    return {"stalled_seconds": stalled_seconds, "machine": time.time()}


async def due_among(
    connection: AsyncConnection, ids: Sequence[UUID], *, stalled_seconds: float = 0.0
) -> dict[UUID, Due]:
    """Those of the uploads that are due now and locked by nobody, in the order of their ids.

    For `stalled_seconds` nothing could be sent: their time to give up is later by as much.
    """
    found: list[Due] = await _DUE.rows(
        connection, {"ids": array("uuid", ids), **_clock(stalled_seconds)}
    )
    return {each.id: each for each in found if each.may}


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
    found: list[Due] = await _FRONT.rows(
        connection,
        {
            "queue": queue,
            "destination": destination,
            "limit": limit,
            **_clock(stalled_seconds),
        },
    )
    due = {each.id: each for each in found if each.may}
    if len(due) < len(found):
        passed = [each.id for each in found if not each.may]
        await fair_queue.untag(connection, passed, longest_wait=longest_wait)
    if probing and (waiting := [each.id for each in due.values() if _waits(each, probing)]):
        await set_aside(connection, queue, destination, waiting, probing)
        due = {id_: each for id_, each in due.items() if id_ not in waiting}
    return Front(len(found), due)


def _waits(due: Due, probing: Collection[FhirType]) -> bool:
    return waits(
        due.fhir_type,
        probing,
        last_attempt=due.past_deadline or due.cancel_requested,
        crashes=due.crashes,
    )
