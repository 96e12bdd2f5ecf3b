"""The order of a record's versions where a send needs no look-up: at destinations with derived ids.

To send a version twice stores it once. But a version of unknown outcome may be stored late, over a
newer one. So it is not sent again once there is a newer one, which waits until the older one had
time to arrive. What may be stored even later says so: `maybe_overwritten`.
"""

import time
from collections.abc import Collection, Mapping
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.parameters import Rows
from uplift.ledger.transitions import Change, change_state
from uplift.lifecycle import Reason, State

DERIVES_IDS = "(SELECT name FROM destinations WHERE address ->> 'mode' <> 'oneup')"
"""SQL: the destinations at which a record has a derived id."""

_IN_DOUBT = Rows("in_doubt", upload_id="uuid", seconds="float8")

_NOTE = _IN_DOUBT.statement(f"""
    INSERT INTO deliveries AS d (record_id, destination, in_doubt_version, in_doubt_until)
    SELECT DISTINCT ON (u.record_id, u.destination) u.record_id, u.destination, u.version,
        -- Either clock may run ahead.
        least(now(), to_timestamp(:machine)) + make_interval(secs => n.seconds)
    FROM {{in_doubt}} AS n CROSS JOIN LATERAL (
        SELECT record_id, destination, version FROM uploads WHERE id = n.upload_id OFFSET 0
    ) AS u
    WHERE u.destination IN {DERIVES_IDS}
    ORDER BY u.record_id, u.destination, u.version DESC
    ON CONFLICT (record_id, destination) DO UPDATE
    SET in_doubt_version = greatest(d.in_doubt_version, excluded.in_doubt_version),
        in_doubt_until = greatest(d.in_doubt_until, excluded.in_doubt_until)
""")  # noqa: S608  our own text


async def note_in_doubt(connection: AsyncConnection, seconds: Mapping[UUID, float]) -> None:
    """Note that these uploads were sent without a precondition, and with an unknown outcome.

    Each may arrive within so many seconds, and with less probability later. It does nothing about
    uploads for other destinations.
    """
    if seconds:
        rows = ({"upload_id": id_, "seconds": each} for id_, each in seconds.items())
        await connection.execute(_NOTE, {"machine": time.time(), **_IN_DOUBT.parameter(rows)})


_OVERTAKEN = text(f"""
    SELECT u.id FROM uploads AS u
    WHERE u.id = ANY(CAST(:ids AS uuid[])) AND u.state || '' = 'queued' AND u.maybe_sent
        AND u.destination IN {DERIVES_IDS}
        AND EXISTS (
            SELECT 1 FROM uploads AS newer
            WHERE newer.record_id = u.record_id AND newer.version > u.version
                AND newer.destination = u.destination
                AND newer.state IN ('parked', 'queued', 'sending', 'delivered'))
    ORDER BY u.id FOR UPDATE
""")  # noqa: S608  our own text


async def supersede_overtaken(connection: AsyncConnection, ids: Collection[UUID]) -> set[UUID]:
    """End those of these uploads that would be sent again although a newer version was accepted.

    The transaction has locked them. They keep saying that they may be there.
    """
    if not ids:
        return set()
    rows = await connection.scalars(_OVERTAKEN, {"ids": list(ids)})
    return await change_state(
        connection,
        [
            Change(
                upload_id=id_,
                source=State.QUEUED,
                target=State.SUPERSEDED,
                reason=Reason.NEWER_VERSION,
            )
            for id_ in rows
        ],
    )
