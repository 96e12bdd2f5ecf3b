"""Removes what is old: a bounded part of it at a time, without making anybody wait.

A step walks so many uploads in the order of their ids, from where the last step ended. An id begins
with the time at which its upload came (RFC 9562, 5.7), so no index of ended uploads is needed:
each delivery would have to write it. Locked rows are passed over, never waited for: whoever claims,
records or puts in goes first, and the next pass meets the row again.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import delete, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.tables import Credential, IdempotencyKey
from uplift.settings import Settings

FIRST_UPLOAD = UUID(int=0)
FIRST_BATCH = (datetime(1970, 1, 1, tzinfo=UTC), UUID(int=0))

# An Idempotency-Key of a device refers to its token until it ends itself.
_TOKENS_KEPT_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """For how many days things are kept; None is for ever. `tombstones`: whether some are left."""

    delivered: float | None
    tombstones: bool
    withdrawn: float | None  # cancelled and superseded
    bodies: float | None  # of rejected, refused and expired uploads
    failed: float | None  # these uploads themselves
    batches: float | None

    @property
    def shortest(self) -> float | None:
        """Younger uploads than this are kept in any case."""
        given = [self.delivered, self.withdrawn, self.bodies, self.failed]
        return min((days for days in given if days is not None), default=None)


def windows(settings: Settings) -> Windows:
    """What the settings keep, and for how long."""
    return Windows(
        delivered=settings.retain_delivered_days or None,
        tombstones=settings.retain_tombstones,
        withdrawn=settings.retain_withdrawn_days or None,
        bodies=settings.retain_bodies_days or None,
        failed=settings.retain_failed_days or None,
        batches=settings.retain_batches_days or None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Walked:
    """What a step did; `last` is where to go on, None if it was the last step."""

    last: UUID | None
    looked_at: int = 0
    thinned: int = 0
    shredded: int = 0
    removed: int = 0


# The first id of a time: 48 bits of milliseconds, and nothing after them.
_WALK = text("""
    SELECT id,
        CASE WHEN state = 'delivered' AND delivered_at < now() - make_interval(secs => :delivered)
                THEN 'thin'
             WHEN state IN ('cancelled', 'superseded')
                AND updated_at < now() - make_interval(secs => :withdrawn) THEN 'remove'
             WHEN state IN ('rejected', 'refused', 'expired') THEN
                CASE WHEN updated_at < now() - make_interval(secs => :failed) THEN 'remove'
                     WHEN sealed_body IS NOT NULL
                        AND updated_at < now() - make_interval(secs => :bodies) THEN 'shred' END
        END AS fate
    FROM uploads
    WHERE id > :after
        AND id < CAST(rpad(lpad(to_hex(CAST(greatest(0, extract(epoch FROM now()) - :shortest)
            * 1000 AS bigint)), 12, '0'), 32, '0') AS uuid)
    ORDER BY id LIMIT :limit
""")

# Users who are being erased are left to that. The tombstone's foreign key locks the user in any
# case; locked here, it does not wait.
_THIN = text("""
    WITH old AS (
        SELECT u.id FROM uploads AS u
        JOIN users AS p ON p.id = u.user_id AND p.erased_at IS NULL
        WHERE u.id = ANY(:ids) AND u.state = 'delivered'
        FOR UPDATE OF u SKIP LOCKED FOR KEY SHARE OF p SKIP LOCKED
    ), gone AS (
        DELETE FROM uploads AS u USING old WHERE u.id = old.id
        RETURNING u.id, u.user_id, u.batch_id, u.destination, u.fhir_version, u.resource_type,
            u.revision, u.reason, u.attempts, u.possible_duplicate, u.maybe_overwritten,
            u.sealed_receipt, u.created_at, u.delivered_at
    ), left_over AS (
        -- Its status says a little less from now on, so this is another revision.
        INSERT INTO tombstones (upload_id, user_id, batch_id, destination, fhir_version,
            resource_type, revision, reason, attempts, possible_duplicate, maybe_overwritten,
            sealed_receipt, created_at, delivered_at)
        SELECT id, user_id, batch_id, destination, fhir_version, resource_type, revision + 1,
            reason, attempts, possible_duplicate, maybe_overwritten, sealed_receipt, created_at,
            delivered_at
        FROM gone WHERE CAST(:tombstones AS bool)
    )
    SELECT count(*) FROM gone
""")

_SHRED = text("""
    WITH old AS (
        SELECT id FROM uploads
        WHERE id = ANY(:ids) AND state IN ('rejected', 'refused', 'expired')
            AND sealed_body IS NOT NULL
        FOR UPDATE SKIP LOCKED
    ), shredded AS (
        UPDATE uploads AS u SET sealed_body = NULL FROM old WHERE u.id = old.id RETURNING u.id
    )
    SELECT count(*) FROM shredded
""")

# A version that may be at 1upHealth unnoticed stays, without its body, until a later one is
# delivered. It says that 1upHealth must be asked before anything of its record is sent. A record
# forgets what is removed: the same content that comes again is a new upload.
_REMOVE = text("""
    WITH old AS (
        SELECT u.id, u.record_id FROM uploads AS u JOIN records AS r ON r.id = u.record_id
        LEFT JOIN deliveries AS d ON d.record_id = u.record_id AND d.destination = u.destination
        WHERE u.id = ANY(:ids)
            AND u.state IN ('cancelled', 'superseded', 'rejected', 'refused', 'expired')
            AND NOT (u.maybe_sent AND u.version > coalesce(d.version, 0))
        FOR UPDATE OF u SKIP LOCKED FOR NO KEY UPDATE OF r SKIP LOCKED
    ), forgotten AS (
        UPDATE records AS r SET latest_upload_id = NULL, latest_digest = NULL
        FROM old WHERE r.id = old.record_id AND r.latest_upload_id = old.id
    ), gone AS (
        DELETE FROM uploads AS u USING old WHERE u.id = old.id RETURNING u.id
    )
    SELECT count(*) FROM gone
""")

# Longer than anything has existed, and still an interval.
_EVER_SECONDS = 1000 * 365.25 * 24 * 3600


def _seconds(days: float | None) -> float:
    return _EVER_SECONDS if days is None else days * 24 * 3600


async def walk_uploads(
    connection: AsyncConnection, windows: Windows, *, after: UUID, limit: int
) -> Walked:
    """Walk up to `limit` uploads after that id; thin out, shred or remove those whose time came."""
    if windows.shortest is None:
        return Walked(last=None)
    rows = (
        await connection.execute(
            _WALK,
            {
                "delivered": _seconds(windows.delivered),
                "withdrawn": _seconds(windows.withdrawn),
                "bodies": _seconds(windows.bodies),
                "failed": _seconds(windows.failed),
                "shortest": _seconds(windows.shortest),
                "after": after,
                "limit": limit,
            },
        )
    ).all()
    fates: dict[str, list[UUID]] = {"thin": [], "shred": [], "remove": []}
    for row in rows:
        if row.fate is not None:
            fates[row.fate].append(row.id)
    thinned = shredded = removed = 0
    if fates["thin"]:
        thinned = await connection.scalar(
            _THIN, {"ids": fates["thin"], "tombstones": windows.tombstones}
        )
    if fates["remove"]:
        removed = await connection.scalar(_REMOVE, {"ids": fates["remove"]})
    # What must stay although its time has come loses its body.
    if shred := fates["shred"] + fates["remove"]:
        shredded = await connection.scalar(_SHRED, {"ids": shred})
    return Walked(
        last=rows[-1].id if len(rows) == limit else None,
        looked_at=len(rows),
        thinned=thinned or 0,
        shredded=shredded or 0,
        removed=removed or 0,
    )


_NEXT_BATCHES = text("""
    SELECT b.created_at, b.id,
        updated_at < now() - make_interval(secs => :batches)
            AND NOT EXISTS (SELECT 1 FROM uploads WHERE batch_id = b.id) AS over
    FROM batches AS b
    WHERE (b.created_at, b.id) > (:created_at, :id)
        AND b.created_at < now() - make_interval(secs => :batches)
    ORDER BY b.created_at, b.id LIMIT :limit
""")

_REMOVE_LINES = text("""
    WITH gone AS (
        DELETE FROM batch_lines WHERE (batch_id, line) IN (
            SELECT batch_id, line FROM batch_lines WHERE batch_id = ANY(:ids) LIMIT :limit)
        RETURNING 1
    )
    SELECT count(*) FROM gone
""")

_REMOVE_BATCHES = text("""
    WITH old AS (
        SELECT id FROM batches WHERE id = ANY(:ids) FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM batches AS b USING old
        WHERE b.id = old.id AND NOT EXISTS (SELECT 1 FROM batch_lines WHERE batch_id = b.id)
        RETURNING 1
    )
    SELECT count(*) FROM gone
""")


async def walk_batches(
    connection: AsyncConnection, windows: Windows, *, after: tuple[datetime, UUID], limit: int
) -> tuple[tuple[datetime, UUID] | None, int]:
    """Walk batches after that one, and remove up to `limit` rows of those whose time came.

    Returns the batch after which to go on, None at the end, and how many batches were removed.
    """
    if windows.batches is None:
        return None, 0
    rows = (
        await connection.execute(
            _NEXT_BATCHES,
            {
                "batches": _seconds(windows.batches),
                "created_at": after[0],
                "id": after[1],
                "limit": limit,
            },
        )
    ).all()
    over = [row.id for row in rows if row.over]
    if over:
        lines = await connection.scalar(_REMOVE_LINES, {"ids": over, "limit": limit})
        if lines == limit:
            return after, 0  # a batch may have 100,000 of them, so the next step goes on here
    removed = await connection.scalar(_REMOVE_BATCHES, {"ids": over}) if over else 0
    last = (rows[-1].created_at, rows[-1].id) if len(rows) == limit else None
    return last, removed or 0


async def remove_ended_tokens(connection: AsyncConnection, *, limit: int) -> int:
    """Remove device tokens that ended a day ago or earlier; how many."""
    old = (
        select(Credential.id)
        .where(
            Credential.expires_at < text("now() - make_interval(secs => :seconds)"),
            ~select(1).where(IdempotencyKey.credential_id == Credential.id).exists(),
        )
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    removed = await connection.scalars(
        delete(Credential).where(Credential.id.in_(old.scalar_subquery())).returning(Credential.id),
        {"seconds": _TOKENS_KEPT_SECONDS},
    )
    return len(removed.all())


_LAG = text("""
    SELECT extract(epoch FROM now() - min(since))
    FROM (
        SELECT CASE WHEN state = 'delivered'
                THEN delivered_at + make_interval(secs => :delivered)
                ELSE updated_at + make_interval(secs => :withdrawn) END AS since
        FROM uploads
        WHERE state IN ('delivered', 'cancelled', 'superseded')
            AND NOT maybe_sent
        ORDER BY id LIMIT :limit
    ) AS oldest
""")


async def lag(connection: AsyncConnection, windows: Windows, *, limit: int = 1000) -> float:
    """Since how many seconds the oldest uploads should be gone; 0 if none should."""
    found = await connection.scalar(
        _LAG,
        {
            "delivered": _seconds(windows.delivered),
            "withdrawn": _seconds(windows.withdrawn),
            "limit": limit,
        },
    )
    return max(0.0, float(found or 0.0))
