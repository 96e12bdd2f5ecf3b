"""Facts about the PostgreSQL server: its version, its durability settings and its clock."""

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """The server's version (150004 is 15.4), its durability settings, and its clock, Unix time."""

    version: int
    version_text: str
    fsync: bool
    synchronous_commit: str
    clock: float


async def server_facts(connection: AsyncConnection) -> ServerFacts:
    """Ask the server for them."""
    row = (
        await connection.execute(
            text("""
                SELECT current_setting('server_version_num')::int AS version,
                       current_setting('server_version') AS version_text,
                       current_setting('fsync')::bool AS fsync,
                       current_setting('synchronous_commit') AS synchronous_commit,
                       extract(epoch FROM clock_timestamp())::float8 AS clock
            """)
        )
    ).one()
    return ServerFacts(**row._asdict())


async def write_nothing(connection: AsyncConnection) -> None:
    """Raise the error of any write, if the server takes none. The commit belongs to it."""
    # A standby refuses this, although it finds nothing.
    await connection.execute(text("DELETE FROM pauses WHERE false"))
    # A line in the log of writes, so that the commit waits for disks and standbys, as any does.
    await connection.execute(text("SELECT pg_logical_emit_message(true, 'uplift', '')"))


def is_read_only(error: Exception) -> bool:
    """Whether a server refuses because it is a standby, or read-only otherwise."""
    original = getattr(error, "orig", None)
    # libpq's own error has no SQLSTATE: "session is read-only", "server is in hot standby mode".
    return getattr(original, "sqlstate", None) == "25006" or any(
        words in str(original) for words in ("session is read-only", "hot standby")
    )
