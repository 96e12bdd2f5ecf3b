"""Versions that a newer one takes the place of: nobody has tried to send them, or to send them
again would be of no use."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.put_order import DERIVES_IDS
from uplift.ledger.transitions import Change, change_state
from uplift.lifecycle import Reason, State

# The states stand in the text for the partial index, as `tables.state_is` explains.
_UNSENT = text(f"""
    SELECT id, state FROM uploads
    WHERE record_id = ANY(CAST(:record_ids AS uuid[])) AND state IN ('queued', 'parked')
        AND (NOT maybe_sent OR destination IN {DERIVES_IDS})
    ORDER BY id FOR UPDATE
""")  # noqa: S608  our own text


async def lock_unsent(
    connection: AsyncConnection, record_ids: Collection[UUID]
) -> dict[UUID, State]:
    """Lock what is not sent of these locked records, or need not be sent again: nobody claims it
    now. Its states, by id."""
    rows = await connection.execute(_UNSENT, {"record_ids": list(record_ids)})
    return {row.id: State(row.state) for row in rows}


async def supersede_unsent(connection: AsyncConnection, record_ids: Collection[UUID]) -> None:
    """Supersede what is not sent of these locked records, and what need not be sent again."""
    unsent = await lock_unsent(connection, record_ids)
    await change_state(
        connection,
        [
            Change(
                upload_id=id_,
                source=state,
                target=State.SUPERSEDED,
                reason=Reason.NEWER_VERSION,
            )
            for id_, state in unsent.items()
        ],
    )
