"""Work that should have been taken up by now: what tells that nobody is at work."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, SQLColumnExpression, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.leases import is_due
from uplift.ledger.tables import Upload, state_is
from uplift.lifecycle import State


@dataclass(frozen=True, slots=True)
class Overdue:
    """Uploads that may be claimed and since when, and leases that ran out and since when, in
    seconds. What is paused, or waits for an older version of its record, may not be claimed.
    """

    due: int
    due_seconds: float
    abandoned: int
    abandoned_seconds: float


async def overdue(connection: AsyncConnection) -> Overdue:
    """As of now, by the database's clock."""

    def since(column: SQLColumnExpression[datetime | None]) -> ColumnElement[float]:
        return func.coalesce(func.extract("epoch", func.now() - func.min(column)), 0)

    due = (
        await connection.execute(
            select(func.count(), since(Upload.next_attempt_at)).where(*is_due(Upload.state))
        )
    ).one()
    abandoned = (
        await connection.execute(
            select(func.count(), since(Upload.lease_until)).where(
                state_is(Upload.state, State.SENDING), Upload.lease_until <= func.now()
            )
        )
    ).one()
    return Overdue(due[0], float(due[1]), abandoned[0], float(abandoned[1]))
