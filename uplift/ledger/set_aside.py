"""Uploads of a FHIR type that a destination lacks: set aside, so that they are in nobody's way.

What is set aside is held: it has no place in the fair queue, and is due in an hour. It is due
before when its type answers again, or as the next probe of its type.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.parameters import Rows
from uplift.lifecycle import ALONE_AFTER_CRASHES


class FhirType(NamedTuple):
    """A resource type of one FHIR version: `R4`, `Observation`."""

    fhir_version: str
    resource_type: str


TYPES = Rows("types", fhir_version="text", resource_type="text")
"""FHIR types as a parameter of a statement."""


_SECONDS = 3600.0
# So many at the front are looked at, at once: claims go on meanwhile.
_WITHIN = 5000


def waits(
    fhir_type: FhirType, types: Collection[FhirType], *, last_attempt: bool, crashes: int
) -> bool:
    """Whether an upload waits while only probes of these types are sent.

    What is attempted for the last time does not, or it would never end. Neither does what is
    attempted alone, because it may crash its worker: it is no good probe.
    """
    return fhir_type in types and not last_attempt and crashes < ALONE_AFTER_CRASHES


_SET_ASIDE = TYPES.statement(f"""
    WITH front AS (
        SELECT id, fhir_version, resource_type FROM uploads
        WHERE queue = :queue AND destination = :destination AND state = 'queued'
            AND finish_tag IS NOT NULL
            AND NOT cancel_requested AND crashes < {ALONE_AFTER_CRASHES}
            AND coalesce(give_up_at > now(), true)
        ORDER BY finish_tag LIMIT :within
    ), waiting AS (
        SELECT id FROM front
        JOIN {{types}} AS t USING (fhir_version, resource_type)
        UNION SELECT unnest(CAST(:ids AS uuid[]))
    ), locked AS (
        SELECT u.id FROM uploads AS u JOIN waiting ON waiting.id = u.id
        WHERE u.state || '' = 'queued' AND u.finish_tag IS NOT NULL
        ORDER BY u.id FOR UPDATE OF u SKIP LOCKED
    )
    UPDATE uploads AS u
    SET finish_tag = NULL, reason = 'held', revision = u.revision + 1,
        next_attempt_at = now() + make_interval(secs => :seconds)
    FROM locked WHERE u.id = locked.id
""")  # noqa: S608  a number of our own


async def set_aside(
    connection: AsyncConnection,
    queue: str,
    destination: str,
    ids: Sequence[UUID],
    types: Collection[FhirType],
) -> None:
    """Set aside these, which `waits` says wait, and what else is of these types at the front."""
    values = {
        "queue": queue,
        "destination": destination,
        "ids": list(ids),
        "within": _WITHIN,
        "seconds": _SECONDS,
    }
    types_ = TYPES.parameter(each._asdict() for each in types)
    await connection.execute(_SET_ASIDE, {**values, **types_})


# What was never tried comes first: what fails again and again may have a reason of its own.
_FIRST = text(f"""
    SELECT u.id FROM uploads AS u
    WHERE u.queue = :queue AND u.destination = :destination
        AND u.fhir_version = :fhir_version AND u.resource_type = :resource_type
        AND u.state = 'queued' AND u.finish_tag IS NULL AND u.reason = 'held'
        -- What may be at the destination settles first.
        AND (NOT u.maybe_sent OR u.next_attempt_at <= now())
        AND u.crashes < {ALONE_AFTER_CRASHES}
        AND NOT EXISTS (
            SELECT 1 FROM uploads AS older
            WHERE older.record_id = u.record_id AND older.version < u.version
                AND older.destination = u.destination
                AND older.state IN ('parked', 'queued', 'sending'))
        AND NOT EXISTS (SELECT 1 FROM pauses WHERE user_id IS NULL OR user_id = u.user_id)
    ORDER BY u.attempts, u.next_attempt_at
    LIMIT 1
""")  # noqa: S608  a number of our own


async def first_set_aside(
    connection: AsyncConnection, queue: str, destination: str, fhir_type: FhirType
) -> UUID | None:
    """The upload of that type with which to probe; None if none of them may be sent."""
    values = {"queue": queue, "destination": destination, **fhir_type._asdict()}
    found = await connection.scalar(_FIRST, values)
    return UUID(str(found)) if found is not None else None


_DUE_NOW = text("""
    UPDATE uploads SET next_attempt_at = least(next_attempt_at, now())
    WHERE id = CAST(:id AS uuid) AND state = 'queued'
""")


async def make_due(connection: AsyncConnection, upload_id: UUID) -> None:
    """Let this one be due now."""
    await connection.execute(_DUE_NOW, {"id": upload_id})


# The last change may be from when PostgreSQL's clock ran ahead: no wait is from later than now.
SETTLED = """CASE WHEN u.maybe_sent
    THEN least(u.updated_at, now()) + make_interval(secs => :settle) END"""
"""SQL: when what may be at the destination has settled there, after its last change; else NULL."""

_RELEASE = TYPES.statement(f"""
    WITH held AS (
        SELECT u.id FROM uploads AS u
        JOIN {{types}} AS t
            ON t.fhir_version = u.fhir_version AND t.resource_type = u.resource_type
        WHERE u.destination = :destination
            AND u.state = 'queued' AND u.finish_tag IS NULL AND u.reason = 'held'
            -- Later than now: written while PostgreSQL's clock ran ahead.
            AND NOT u.updated_at BETWEEN now() - make_interval(secs => :since) AND now()
            AND u.next_attempt_at > greatest(now(), {SETTLED})
        LIMIT :limit FOR UPDATE OF u SKIP LOCKED
    )
    UPDATE uploads AS u
    SET revision = u.revision + 1, next_attempt_at = greatest(now(), {SETTLED})
    FROM held WHERE u.id = held.id
""")  # noqa: S608  our own text


async def release(
    connection: AsyncConnection,
    destination: str,
    fhir_type: FhirType,
    *,
    since: float,
    settle_seconds: float,
    limit: int,
) -> int:
    """Let what is held of that type be due, which answered again `since` seconds ago; how many.

    What is held by a response that came later is not among them. What may be at the destination is
    due when `settle_seconds` have passed since it was sent.
    """
    values = {
        "destination": destination,
        "since": since,
        "settle": settle_seconds,
        "limit": limit,
    }
    types = TYPES.parameter([fhir_type._asdict()])
    return (await connection.execute(_RELEASE, {**values, **types})).rowcount
