"""The latest calls of 1upHealth, and what ended lately without being delivered: for the doctor."""

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

MAX_CALLS = 200
MAX_AGE_SECONDS = 600.0

# Seconds. With thousands of calls a second, those of the last seconds are enough.
_WINDOWS = (10.0, 60.0, MAX_AGE_SECONDS)
# An attempt closes some time after it opened, and only the opening has an index.
_MAX_ATTEMPT_SECONDS = 300.0

_LATEST = text("""
    SELECT status_code FROM attempts
    WHERE opened_at > now() - make_interval(secs => :seconds + :attempt)
        AND closed_at > now() - make_interval(secs => :seconds) AND status_code IS NOT NULL
        -- What is later came while PostgreSQL's clock ran ahead: nobody knows when.
        AND closed_at <= now()
    ORDER BY closed_at DESC LIMIT :limit
""")


async def latest_statuses(connection: AsyncConnection) -> list[int]:
    """The HTTP statuses of the latest calls, the newest first: MAX_CALLS of them or fewer, and none
    older than MAX_AGE_SECONDS."""
    found: list[int] = []
    for seconds in _WINDOWS:
        values = {"seconds": seconds, "attempt": _MAX_ATTEMPT_SECONDS, "limit": MAX_CALLS}
        found = list(await connection.scalars(_LATEST, values))
        if len(found) == MAX_CALLS:
            break
    return found


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """How many uploads expired or were refused and were not redriven, and how many expired
    lately."""

    waiting: int
    expired_lately: int


# By the primary key, which follows time (UUIDv7): no index is for what has ended.
_DEAD_LETTERS = text("""
    SELECT count(*) AS waiting,
           count(*) FILTER (
               WHERE state = 'expired' AND updated_at <= now()
                   AND updated_at > now() - make_interval(secs => :lately)
           ) AS expired_lately
    FROM (
        SELECT state, updated_at FROM uploads
        WHERE state IN ('expired', 'refused') AND id > CAST(:since AS uuid) LIMIT :limit
    ) AS ended
""")


async def dead_letters(connection: AsyncConnection, *, days: float, limit: int) -> DeadLetters:
    """Those among the uploads that were accepted in the last days; `limit` or fewer."""
    # A UUIDv7 begins with its time of creation, in milliseconds since 1970 (RFC 9562, 5.7).
    since = await connection.scalar(
        text("SELECT extract(epoch FROM now() - make_interval(days => :days))::float8"),
        {"days": round(days)},
    )
    digits = f"{int((since or 0) * 1000):012x}"
    first = f"{digits[:8]}-{digits[8:]}-7000-8000-000000000000"
    row = (
        await connection.execute(
            _DEAD_LETTERS, {"since": first, "limit": limit, "lately": MAX_AGE_SECONDS}
        )
    ).one()
    return DeadLetters(row.waiting, row.expired_lately)
