"""The processes: when each was last heard of, what it lacked then, and whether it has ended."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func, null, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.tables import Process

# By then no lease names it any more.
_KEPT = timedelta(days=1)


# The last heartbeat of a process that lives is not older. By a clock that jumped it may be later.
_LATELY = timedelta(seconds=30)
_SOON = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a process that lives said with its last heartbeat.

    `ahead` is by how many seconds the clock of its machine is ahead of the ledger's.
    """

    kind: str
    ahead: float
    lacks_files: bool


async def register(connection: AsyncConnection, process_id: UUID, kind: str | None = None) -> bool:
    """Note a process that starts; False if there was one of that id already.

    Removes processes that nobody has heard of for a day.
    """
    await connection.execute(delete(Process).where(Process.heartbeat_at < func.now() - _KEPT))
    added = await connection.scalar(
        insert(Process)
        .values(id=process_id, kind=kind)
        .on_conflict_do_nothing()
        .returning(Process.id)
    )
    return added is not None


async def beat(
    connection: AsyncConnection,
    process_id: UUID,
    *,
    kind: str | None = None,
    machine: float | None = None,
    lacks_files: bool = False,
) -> bool:
    """Note that the process lives; False if it is noted as ended.

    `machine` is the time by its machine's clock, in seconds since 1970. `lacks_files`: it could
    open none. If it is not there any more, since a clock jumped by more than a day, it is again.
    """
    said = {
        "heartbeat_at": func.now(),
        "machine_at": null() if machine is None else func.to_timestamp(machine),
        "no_files_at": func.now() if lacks_files else null(),
    }
    found = await connection.scalar(
        insert(Process)
        .values(id=process_id, kind=kind, **said)
        .on_conflict_do_update(
            index_elements=[Process.id], set_=said, where=Process.ended_at.is_(None)
        )
        .returning(Process.id)
    )
    return found is not None


async def living(connection: AsyncConnection) -> list[Seen]:
    """The processes that were heard of lately and have not ended."""
    now = func.now()
    rows = await connection.execute(
        select(
            Process.kind,
            func.coalesce(
                func.extract("epoch", Process.machine_at - Process.heartbeat_at), 0
            ).label("ahead"),
            Process.no_files_at.is_not(None).label("lacks_files"),
        ).where(
            Process.ended_at.is_(None),
            Process.heartbeat_at.between(now - _LATELY, now + _SOON),
        )
    )
    return [Seen(row.kind or "process", float(row.ahead), row.lacks_files) for row in rows]


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
