"""What each role of PostgreSQL may do in the ledger.

The owner migrates. The processes are members of `uplift_app`: they cannot change the schema, empty
a table, or change or remove what the audit trail says. Members of `uplift_read` only read. An
administrator makes the roles (`ops/make-secrets.sh`); `uplift migrate` gives them their rights.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.tables import Table

APP = "uplift_app"
"""The role whose members are the processes."""

READ = "uplift_read"
"""The role whose members only read: for `uplift doctor`, and for what measures the ledger."""

# What a migration of another version added is covered too: all tables, then the exceptions. Nobody
# chooses an event's time, order or transaction: their defaults do.
_RIGHTS = {
    APP: """
        GRANT USAGE ON SCHEMA public TO uplift_app;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO uplift_app;
        GRANT SELECT, UPDATE ON SEQUENCE virtual_time_uploads, virtual_time_bulk TO uplift_app;
        REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM uplift_app;
        REVOKE INSERT, UPDATE, DELETE ON audit_events FROM uplift_app;
        GRANT INSERT (actor, action, pseudonym, upload_id, credential_id) ON audit_events
            TO uplift_app;
        REVOKE UPDATE, DELETE ON audit_seals FROM uplift_app;
        GRANT EXECUTE ON FUNCTION hold_the_audit_trail() TO uplift_app;
        REVOKE DELETE ON deployment_keys, master_keys FROM uplift_app;
    """,
    READ: """
        GRANT USAGE ON SCHEMA public TO uplift_read;
        GRANT SELECT ON ALL TABLES IN SCHEMA public TO uplift_read;
        GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO uplift_read;
    """,
}

# Databases that are older than PostgreSQL 15 let everybody make tables. All let everybody make
# temporary ones.
_NOT_EVERYBODY = """
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    DO $$ BEGIN
        EXECUTE 'REVOKE TEMPORARY ON DATABASE ' || quote_ident(current_database())
            || ' FROM PUBLIC';
    END $$;
"""


def grant(connection: Connection) -> None:
    """Give the roles that exist their rights. The connection's role must own the ledger."""
    for role, rights in _RIGHTS.items():
        found = connection.scalar(
            text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}
        )
        if found:
            connection.exec_driver_sql(rights)
    connection.exec_driver_sql(_NOT_EVERYBODY)


@dataclass(frozen=True, slots=True)
class Rights:
    """Whether a role may write at all, and the tables to which it may not add rows."""

    may_write: bool
    lacking: tuple[str, ...]


async def rights(connection: AsyncConnection) -> Rights:
    """What this connection's role may write; members of `uplift_read` nothing."""
    names = set(Table.metadata.tables)
    found = await connection.execute(
        text("""
            SELECT relname, has_any_column_privilege(current_user, oid, 'INSERT') AS may_add
            FROM pg_class
            WHERE relnamespace = CAST('public' AS regnamespace) AND relkind = 'r'
                AND relname = ANY(:names)
            ORDER BY relname
        """),
        {"names": sorted(names)},
    )
    may_add = {row.relname: row.may_add for row in found}
    lacking = tuple(name for name, may in may_add.items() if not may)
    return Rights(len(lacking) < len(may_add), lacking)
