"""Batches: which uploads came in one request, and what became of each of its lines."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, case, func, literal_column, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import aliased

from uplift.ledger.pages import Order
from uplift.ledger.parameters import Rows
from uplift.ledger.tables import Batch, BatchLine, Tombstone, Upload, User
from uplift.lifecycle import State


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLine:
    """What became of a line: an upload, or a problem with its code."""

    line: int
    upload_id: UUID | None = None
    duplicate: bool = False
    problem_code: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class LineRow:
    """A line, and the state of its upload now; none if that upload is no longer kept."""

    line: int
    upload_id: UUID | None
    state: State | None
    duplicate: bool
    problem_code: str | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A batch and its counters. Without `closed_at` its input has not ended."""

    id: UUID
    user_id: UUID
    app_user_id: str
    created_at: datetime
    updated_at: datetime
    closed_at: datetime | None
    broken: bool
    accepted: int
    duplicates: int
    problems: int

    @property
    def lines(self) -> int:
        """How many lines it has so far."""
        return self.accepted + self.duplicates + self.problems


async def add_batch(connection: AsyncConnection, batch_id: UUID, user_id: UUID) -> bool:
    """Open a batch; False if there is one of that id."""
    row = await connection.execute(
        upsert(Batch)
        .values(id=batch_id, user_id=user_id)
        .on_conflict_do_nothing(index_elements=[Batch.id])
        .returning(Batch.id)
    )
    return row.one_or_none() is not None


_LINES = Rows(
    "lines",
    line="int",
    upload_id="uuid",
    duplicate="bool",
    problem_code="text",
    problem="text",
)

# A group whose commit got no answer may be put in again: its lines are counted once.
_ADD_LINES = _LINES.direct("""
    WITH added AS (
        INSERT INTO batch_lines (batch_id, line, upload_id, duplicate, problem_code, problem)
        SELECT :batch_id, n.line, n.upload_id, n.duplicate, n.problem_code, n.problem
        FROM {lines} AS n
        ON CONFLICT DO NOTHING
        RETURNING upload_id IS NOT NULL AS kept, duplicate)
    UPDATE batches SET
        updated_at = now(),
        accepted = accepted + (SELECT count(*) FROM added WHERE kept AND NOT duplicate),
        duplicates = duplicates + (SELECT count(*) FROM added WHERE kept AND duplicate),
        problems = problems + (SELECT count(*) FROM added WHERE NOT kept)
    WHERE id = :batch_id
""")


async def add_lines(connection: AsyncConnection, batch_id: UUID, lines: Sequence[NewLine]) -> None:
    """Note what became of lines. A line that is noted already stays as it is."""
    await _ADD_LINES.rows(connection, {"batch_id": batch_id, **_LINES.parameter(lines)})


async def close_batch(connection: AsyncConnection, batch_id: UUID, *, broken: bool) -> None:
    """Note that a batch's input has ended, and whether before it was whole."""
    await connection.execute(
        update(Batch)
        .where(Batch.id == batch_id, Batch.closed_at.is_(None))
        .values(closed_at=func.now(), updated_at=func.now(), broken=broken)
    )


def _batches() -> Select[Any]:
    return select(
        Batch.id,
        Batch.user_id,
        User.app_user_id,
        Batch.created_at,
        Batch.updated_at,
        Batch.closed_at,
        Batch.broken,
        Batch.accepted,
        Batch.duplicates,
        Batch.problems,
    ).join(User, (User.id == Batch.user_id) & User.erased_at.is_(None))


async def get_batch(connection: AsyncConnection, batch_id: UUID) -> BatchRow | None:
    """The batch of that id, if there is one and its user is not erased."""
    row = (await connection.execute(_batches().where(Batch.id == batch_id))).one_or_none()
    return BatchRow(*row) if row is not None else None


async def list_batches(
    connection: AsyncConnection,
    *,
    user_id: UUID | None,
    order: Order = Order.NEWEST_FIRST,
    after: UUID | None,
    limit: int,
) -> list[BatchRow]:
    """Batches by the time when they began, from the one after `after`."""
    # A batch can have an id of its caller, so its id says nothing about the order.
    statement = _batches().order_by(order.of(Batch.created_at), order.of(Batch.id)).limit(limit)
    if user_id is not None:
        statement = statement.where(Batch.user_id == user_id)
    if after is not None:
        last = aliased(Batch)
        place = select(last.created_at, last.id).where(last.id == after).scalar_subquery()
        statement = statement.where(order.is_after(tuple_(Batch.created_at, Batch.id), place))
    return [BatchRow(*row) for row in await connection.execute(statement)]


# An upload that was thinned out was delivered.
_STATE_OF_LINE = func.coalesce(
    Upload.state,
    case((Tombstone.upload_id.is_not(None), literal_column(f"'{State.DELIVERED}'"))),
)


async def list_lines(
    connection: AsyncConnection, batch_id: UUID, *, after: int, limit: int
) -> list[LineRow]:
    """Lines of a batch in their order, from the one after `after`."""
    rows = await connection.execute(
        select(
            BatchLine.line,
            BatchLine.upload_id,
            _STATE_OF_LINE,
            BatchLine.duplicate,
            BatchLine.problem_code,
            BatchLine.problem,
        )
        .outerjoin(Upload, Upload.id == BatchLine.upload_id)
        .outerjoin(Tombstone, Tombstone.upload_id == BatchLine.upload_id)
        .where(BatchLine.batch_id == batch_id, BatchLine.line > after)
        .order_by(BatchLine.line)
        .limit(limit)
    )
    return [
        LineRow(line, upload_id, State(state) if state else None, *rest)
        for line, upload_id, state, *rest in rows
    ]


async def count_by_state(connection: AsyncConnection, batch_id: UUID) -> dict[State, int]:
    """How many lines of a batch have their upload in each state."""
    rows = await connection.execute(
        select(_STATE_OF_LINE, func.count())
        .select_from(BatchLine)
        .outerjoin(Upload, Upload.id == BatchLine.upload_id)
        .outerjoin(Tombstone, Tombstone.upload_id == BatchLine.upload_id)
        .where(BatchLine.batch_id == batch_id)
        .group_by(_STATE_OF_LINE)
    )
    return {State(state): count for state, count in rows if state is not None}
