"""The processes that claim uploads: when each was last heard of, and whether it has ended."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.tables import Process

# By then no lease names it any more.
_KEPT = timedelta(days=1)


async def register(connection: AsyncConnection, process_id: UUID) -> bool:
    """Note a process that starts to claim; False if there was one of that id already.

    Removes processes that nobody has heard of for a day.
    """
    await connection.execute(delete(Process).where(Process.heartbeat_at < func.now() - _KEPT))
    added = await connection.scalar(
        insert(Process).values(id=process_id).on_conflict_do_nothing().returning(Process.id)
    )
    return added is not None


async def beat(connection: AsyncConnection, process_id: UUID) -> bool:
    """Note that the process lives; False if it is noted as ended, or not at all."""
    found = await connection.scalar(
        update(Process)
        .where(Process.id == process_id, Process.ended_at.is_(None))
        .values(heartbeat_at=func.now())
        .returning(Process.id)
    )
    return found is not None


async def note_end(connection: AsyncConnection, process_id: UUID, *, crashed: bool) -> bool:
    """Note that the process has ended and sends nothing more: `crashed`, or by itself.

    False if that is noted already, or there was no such process.
    """
    found = await connection.scalar(
        update(Process)
        .where(Process.id == process_id, Process.ended_at.is_(None))
        .values(ended_at=func.now(), crashed=crashed)
        .returning(Process.id)
    )
    return found is not None
