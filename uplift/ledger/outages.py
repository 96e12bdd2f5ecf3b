"""Uploads that failed while the destination was away are due again when it answers."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.set_aside import SETTLED, TYPES, FhirType

# An attempt opens some time before it closes, and only the opening has an index.
_SUCCEEDED = text("""
    SELECT now() AS at, EXISTS (
        SELECT FROM attempts JOIN uploads ON uploads.id = attempts.upload_id
        WHERE uploads.destination = :destination
            AND opened_at > now() - make_interval(secs => :attempt + :seconds)
            AND closed_at > now() - make_interval(secs => :seconds)
            AND status_code BETWEEN 200 AND 299
    ) AS succeeded
""")


async def succeeded_lately(
    connection: AsyncConnection, destination: str, *, seconds: float, attempt_seconds: float
) -> tuple[datetime, bool]:
    """The ledger's time, and whether a call there succeeded within so many seconds before."""
    values = {"destination": destination, "seconds": seconds, "attempt": attempt_seconds}
    row = (await connection.execute(_SUCCEEDED, values)).one()
    return row.at, row.succeeded


# Not `awaiting_token`: a new token releases those. Not what waits for its type.
_WAITS = """
    destination = :destination AND state = 'queued' AND finish_tag IS NULL
    AND reason IN ('retry', 'held', 'settling', 'no_token')
    AND next_attempt_at > now() + make_interval(secs => :spread) AND updated_at > :since
    AND NOT EXISTS (
        SELECT FROM {types} AS t WHERE t.fhir_version = uploads.fhir_version
            AND t.resource_type = uploads.resource_type)
"""
_COUNT = TYPES.statement(f"SELECT count(*) FROM uploads WHERE {_WAITS}")  # noqa: S608  our own text
_MAKE_DUE = TYPES.statement(f"""
    UPDATE uploads AS u
    SET next_attempt_at = least(u.next_attempt_at, greatest(
            now() + random() * make_interval(secs => :spread), {SETTLED})),
        revision = u.revision + 1
    FROM (SELECT id FROM uploads WHERE {_WAITS}
        AND (NOT maybe_sent
            OR least(updated_at, now()) + make_interval(secs => :settle) < next_attempt_at)
        ORDER BY next_attempt_at DESC LIMIT :limit FOR UPDATE SKIP LOCKED) AS waiting
    WHERE u.id = waiting.id
""")  # noqa: S608  our own text


async def count_waiting(
    connection: AsyncConnection,
    destination: str,
    since: datetime,
    *,
    probing: Collection[FhirType] = (),
) -> int:
    """How many uploads failed since then, and wait. Not of types of which only probes are sent."""
    values = {"destination": destination, "since": since, "spread": 0.0, **_types(probing)}
    return await connection.scalar(_COUNT, values) or 0


def _types(types: Collection[FhirType]) -> dict[str, object]:
    return TYPES.parameter(each._asdict() for each in types)


async def make_due(
    connection: AsyncConnection,
    destination: str,
    since: datetime,
    *,
    probing: Collection[FhirType] = (),
    spread: float,
    settle_seconds: float,
    limit: int,
) -> int:
    """Let these be due at random times within `spread` seconds; how many, `limit` or fewer.

    What may be at the destination is due when `settle_seconds` have passed since it was sent.
    """
    values = {
        "destination": destination,
        "since": since,
        "spread": spread,
        "settle": settle_seconds,
        "limit": limit,
    }
    values |= _types(probing)
    return (await connection.execute(_MAKE_DUE, values)).rowcount
