"""Start-time fair queueing between the users of each queue: who is claimed next.

An upload gets its finish tag when it may be claimed: at acceptance, or by the sweep, if it waited
for something. The tag is its cost behind the last tag of its user, or behind the queue's virtual
time if that is later. So users take turns however much each has waiting, and who waited long for
something else has no credit. Claims take the least tags of a destination, and advance the virtual
time to them. That is the queue's, so a destination that stood still gets no credit either.

Only what is ready, that is queued with a tag, is in the index that claims read. What was claimed
and handed back unattempted keeps its tag.

The virtual time is a sequence: it needs no lock, and no transaction waits for another. Requests of
one user that commit at once may give a tag twice; their number is limited.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import CTE, ColumnElement, bindparam, func, literal, select, text
from sqlalchemy.dialects.postgresql import REGCLASS
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.direct_statements import DirectStatement

COST = "1 + body_bytes / 65536"
"""What an upload costs, in SQL: an attempt, and one more for each 64 KiB."""

_SEQUENCE = "virtual_time_"  # and the queue's name


def behind(rows: str) -> str:
    """SQL: the last tag of each user and queue of these rows, from which their next ones count."""
    return f"""(
        SELECT o.user_id, o.queue, greatest(
            coalesce(pg_sequence_last_value(CAST('{_SEQUENCE}' || o.queue AS regclass)), 0),
            (SELECT max(u.finish_tag) FROM uploads AS u
             WHERE u.user_id = o.user_id AND u.queue = o.queue AND u.state = 'queued')
        ) AS finish_tag
        FROM (SELECT DISTINCT user_id, queue FROM {rows}) AS o
    )"""  # noqa: S608  names from our own code


def advanced(front: CTE) -> ColumnElement[Any]:
    """A column that advances the virtual time of `:queue` to the last tag of that front."""
    taken = front.alias("taken")
    sequence = (literal(_SEQUENCE) + bindparam("queue")).cast(REGCLASS)
    last = func.pg_sequence_last_value(sequence)
    time = func.setval(sequence, func.greatest(func.max(taken.c.finish_tag), last))
    return select(time).select_from(taken).scalar_subquery().label("virtual_time")


# Each user in whose name something waits, one step through the index for each. Of those who are
# not paused, up to :each of what is due; the first of everybody before the second of anybody.
_PICK = text("""
    WITH RECURSIVE waiting AS (
        (
            SELECT user_id FROM uploads
            WHERE queue = :queue AND state = 'queued' AND finish_tag IS NULL
            ORDER BY user_id LIMIT 1
        )
        UNION ALL
        SELECT (
            SELECT u.user_id FROM uploads AS u
            WHERE u.queue = :queue AND u.state = 'queued' AND u.finish_tag IS NULL
                AND u.user_id > w.user_id
            ORDER BY u.user_id LIMIT 1
        )
        FROM waiting AS w WHERE w.user_id IS NOT NULL
    )
    SELECT d.id
    FROM waiting AS w
    JOIN users ON users.id = w.user_id AND users.erased_at IS NULL
    CROSS JOIN LATERAL (
        SELECT u.id, u.next_attempt_at, row_number() OVER (ORDER BY u.next_attempt_at) AS nth
        FROM uploads AS u
        WHERE u.queue = :queue AND u.user_id = w.user_id AND u.state = 'queued'
            AND u.destination = :destination AND u.finish_tag IS NULL AND u.next_attempt_at <= now()
            AND NOT EXISTS (
                SELECT 1 FROM uploads AS older
                WHERE older.record_id = u.record_id AND older.version < u.version
                    AND older.destination = u.destination
                AND older.state IN ('parked', 'queued', 'sending'))
        ORDER BY u.next_attempt_at LIMIT :each
    ) AS d
    WHERE NOT EXISTS (SELECT 1 FROM pauses WHERE user_id IS NULL)
        AND NOT EXISTS (SELECT 1 FROM pauses WHERE pauses.user_id = w.user_id)
    ORDER BY d.nth, d.next_attempt_at
    LIMIT :limit
""")

# As in `due`, an expression hides the state, so that the rows are found by their ids.
_TAG = text(f"""
    WITH picked AS (
        SELECT id, user_id, queue, body_bytes, next_attempt_at FROM uploads
        WHERE id = ANY(CAST(:ids AS uuid[])) AND state || '' = 'queued' AND finish_tag IS NULL
            AND next_attempt_at <= now()
        ORDER BY id FOR UPDATE SKIP LOCKED
    ), tagged AS (
        SELECT p.id, b.finish_tag + sum({COST}) OVER (
            PARTITION BY p.user_id, p.queue ORDER BY p.next_attempt_at, p.id) AS finish_tag
        FROM picked AS p
        JOIN {behind("picked")} AS b ON b.user_id = p.user_id AND b.queue = p.queue
    )
    UPDATE uploads AS u SET finish_tag = tagged.finish_tag
    FROM tagged WHERE u.id = tagged.id
    RETURNING u.id
""")  # noqa: S608  names from our own code

_UNTAG = text("""
    UPDATE uploads SET finish_tag = NULL,
        next_attempt_at = least(next_attempt_at, now() + make_interval(secs => :longest))
    WHERE id = ANY(CAST(:ids AS uuid[]))
""")

# The states stand in the text for the partial index, as `tables.state_is` explains.
_READY = """
    SELECT id FROM uploads
    WHERE queue = :queue AND destination = :destination AND state = 'queued'
        AND finish_tag IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM pauses WHERE user_id IS NULL)
    ORDER BY finish_tag LIMIT (SELECT CAST(:limit AS int))
"""
_FIRST_READY = text(_READY)
_COUNT_READY = DirectStatement(f"SELECT count(*) FROM ({_READY}) AS ready")  # noqa: S608


async def tag(connection: AsyncConnection, ids: Sequence[UUID]) -> list[UUID]:
    """Give these uploads a tag, if they are due and have none; who got one.

    What turns out to be blocked or paused loses it at the front.
    """
    if not ids:
        return []
    return list(await connection.scalars(_TAG, {"ids": list(ids)}))


async def tag_due(
    connection: AsyncConnection, queue: str, destination: str, *, each: int, limit: int
) -> list[UUID]:
    """Give tags to what may be claimed now and has none: up to `limit`, and `each` of one user.

    So nobody's backlog keeps what others have waiting from its tag.
    """
    values = {"queue": queue, "destination": destination, "each": each, "limit": limit}
    picked = await connection.scalars(_PICK, values)
    return await tag(connection, picked.all())


async def untag(connection: AsyncConnection, ids: Sequence[UUID], *, longest_wait: float) -> None:
    """Take these out of the fair queue until the sweep finds that they may be claimed.

    They were due once. What waits now waits because PostgreSQL's clock ran ahead then: no longer
    than `longest_wait` seconds.
    """
    await connection.execute(_UNTAG, {"ids": list(ids), "longest": longest_wait})


async def first_ready(
    connection: AsyncConnection, queue: str, destination: str, *, limit: int
) -> list[UUID]:
    """The uploads that are claimed next for that destination."""
    values = {"queue": queue, "destination": destination, "limit": limit}
    return list(await connection.scalars(_FIRST_READY, values))


async def count_ready(
    connection: AsyncConnection, queue: str, destination: str, *, limit: int
) -> int:
    """How many are ready, or `limit` if there are more."""
    values = {"queue": queue, "destination": destination, "limit": limit}
    (count,) = await _COUNT_READY.column(connection, values)
    return int(count)
