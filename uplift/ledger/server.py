"""Facts about the PostgreSQL server: its version, its durability settings and its clock."""

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.database import SLOW


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


# What an accepted upload is written to. Although they find nothing, a standby refuses these, a role
# without its rights may not run them, and they wait behind who locks a table.
_NOTHING = text("""
    WITH uploads_added AS (INSERT INTO uploads (id) SELECT id FROM uploads WHERE false),
        uploads_changed AS (UPDATE uploads SET state = state WHERE false),
        records_added AS (INSERT INTO records (id) SELECT id FROM records WHERE false),
        records_changed AS (UPDATE records SET versions = versions WHERE false),
        noted AS (INSERT INTO audit_events (actor) SELECT actor FROM audit_events WHERE false)
    DELETE FROM pauses WHERE false
""")


async def write_nothing(connection: AsyncConnection, *, lock_seconds: float | None = None) -> None:
    """Raise the error of an upload's acceptance, if the server takes none. The commit belongs to
    it. Behind a lock it waits for `lock_seconds`, or as long as any statement."""
    if lock_seconds is not None:
        await connection.execute(
            text("SELECT set_config('lock_timeout', :wait, true)"), {"wait": f"{lock_seconds}s"}
        )
    await connection.execute(_NOTHING)
    # A line in the log of writes, so that the commit waits for disks and standbys, as any does.
    await connection.execute(text("SELECT pg_logical_emit_message(true, 'uplift', '')"))


class Trouble(StrEnum):
    """Why a server that responds does not do what it is asked."""

    READ_ONLY = "read_only"
    """It is a standby, or read-only otherwise."""
    NO_RIGHTS = "no_rights"
    NO_LOGIN = "no_login"
    NO_CONNECTION_LEFT = "no_connection_left"
    DISK_FULL = "disk_full"
    TOO_SLOW = "too_slow"
    """A statement took too long, such as behind a lock."""


# By SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html), and by words: what
# libpq says of a connection that did not open has no SQLSTATE.
_TROUBLES: dict[Trouble, tuple[frozenset[str], tuple[str, ...]]] = {
    Trouble.READ_ONLY: (frozenset({"25006"}), ("session is read-only", "hot standby")),
    Trouble.NO_RIGHTS: (frozenset({"42501"}), ("permission denied for database",)),
    Trouble.NO_LOGIN: (
        frozenset({"28000", "28P01"}),
        ("password authentication failed", "not permitted to log in", "no pg_hba.conf entry"),
    ),
    Trouble.NO_CONNECTION_LEFT: (
        frozenset({"53300"}),
        ("too many connections", "too many clients", "remaining connection slots"),
    ),
    Trouble.DISK_FULL: (frozenset({"53100"}), ()),
    Trouble.TOO_SLOW: (frozenset(SLOW), ()),
}


def trouble(error: Exception) -> Trouble | None:
    """Why a server refused; None if it did not respond, or for another reason."""
    original = getattr(error, "orig", None)
    state = getattr(original, "sqlstate", None)
    if state is not None:
        found = (each for each, (states, _) in _TROUBLES.items() if state in states)
    else:
        said = str(original)
        found = (
            each for each, (_, words) in _TROUBLES.items() if any(word in said for word in words)
        )
    return next(found, None)
