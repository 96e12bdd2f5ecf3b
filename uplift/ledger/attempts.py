"""The attempts to deliver an upload, as its owner sees them."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.tables import Attempt

MAX_ATTEMPTS = 100
"""The most attempts that are shown of one upload."""


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One attempt. All but `opened_at` is None until it ends, or if its worker stopped in it.

    `outcome` is a code, `status_code` that of 1upHealth's HTTP response, if there was one.
    """

    opened_at: datetime
    closed_at: datetime | None
    outcome: str | None
    status_code: int | None
    duration_ms: int | None


async def latest_attempts(connection: AsyncConnection, upload_id: UUID) -> list[AttemptRow]:
    """The latest attempts of this upload, at most MAX_ATTEMPTS, newest first."""
    statement = (
        select(
            Attempt.opened_at,
            Attempt.closed_at,
            Attempt.outcome,
            Attempt.status_code,
            Attempt.duration_ms,
        )
        .where(Attempt.upload_id == upload_id)
        .order_by(Attempt.opened_at.desc(), Attempt.lease_id.desc())
        .limit(MAX_ATTEMPTS)
    )
    return [AttemptRow(*row) for row in await connection.execute(statement)]
