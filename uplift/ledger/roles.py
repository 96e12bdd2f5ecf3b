"""What each role of PostgreSQL may do in the ledger.

The owner migrates. The processes are members of `uplift_app`: they cannot change the schema, empty
a table, or change or remove what the audit trail says. Members of `uplift_read` only read. An
administrator makes the roles (`ops/make-secrets.sh`); `uplift migrate` gives them their rights.
"""

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

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


async def may_write(connection: AsyncConnection) -> bool:
    """Whether this connection's role may write; members of `uplift_read` may not."""
    return bool(
        await connection.scalar(
            text("SELECT has_table_privilege(current_user, 'pauses', 'DELETE')")
        )
    )
