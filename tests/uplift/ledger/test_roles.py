"""What the roles of PostgreSQL may do in the ledger, and what they may not."""

import re
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr
from sqlalchemy import delete, select, text
from sqlalchemy.exc import DBAPIError

from tests.uplift.ledger import rows
from uplift.cli.local.embedded import EmbeddedPostgres
from uplift.errors import ConfigurationError
from uplift.ledger import audit, migrate
from uplift.ledger.audit import SYSTEM, Action
from uplift.ledger.database import Database
from uplift.ledger.roles import READ, Rights, rights
from uplift.ledger.tables import Table
from uplift.ledger.users import UserRow
from uplift.sealing import KeyRing
from uplift.settings import Settings

# What wraps a key, or says since when it is in use, is replaced and never removed.
KEPT = {("deployment_keys", "DELETE"), ("master_keys", "DELETE")}


@pytest.fixture
async def as_app(database: Database, postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    """The ledger as the processes have it."""
    opened = Database.connect(Settings(database_url=SecretStr(postgres.app_url)))
    yield opened
    await opened.close()


async def refused(database: Database, statement: str, *, role: str = "uplift_app") -> None:
    async with database.reading() as connection:
        await connection.execute(text(f"SET ROLE {role}"))
        with pytest.raises(DBAPIError) as raised:
            await connection.execute(text(statement))
        await connection.execute(text("RESET ROLE"))
    assert getattr(raised.value.orig, "sqlstate", None) == "42501", raised.value


@pytest.mark.parametrize(
    "statement",
    [
        "COPY pauses FROM PROGRAM 'id'",
        "COPY pauses TO '/tmp/pauses'",
        "SELECT pg_read_file('/etc/passwd')",
        "CREATE ROLE other SUPERUSER",
        "SET session_replication_role = replica",
        "CREATE TABLE more (id int)",
        "CREATE TEMPORARY TABLE more (id int)",
        "CREATE FUNCTION more() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER TABLE users ADD COLUMN more text",
        "DROP TABLE users CASCADE",
        "CREATE INDEX more ON users (created_at)",
        "TRUNCATE users CASCADE",
        "TRUNCATE audit_events",
        "UPDATE audit_events SET actor = 'nobody'",
        "DELETE FROM audit_events",
        "INSERT INTO audit_events (actor, action, at) VALUES ('a', 'b', '2001-01-01')",
        "INSERT INTO audit_events (id, actor, action) OVERRIDING SYSTEM VALUE VALUES (1, 'a', 'b')",
        "ALTER TABLE audit_events DISABLE TRIGGER ALL",
        "DROP TRIGGER keep_the_audit_trail ON audit_events",
        "SELECT setval('audit_events_id_seq', 1)",
        "UPDATE alembic_version SET version_num = '0000'",
        "DELETE FROM alembic_version",
        "DELETE FROM deployment_keys",
        "UPDATE audit_seals SET events = 0",
        "DELETE FROM audit_seals",
        "TRUNCATE audit_seals",
    ],
)
async def test_the_processes_cannot(as_app: Database, statement: str) -> None:
    await refused(as_app, statement)


async def test_the_processes_write_every_other_table(as_app: Database) -> None:
    trail = {"audit_events", "audit_seals"}
    async with as_app.transaction() as connection:
        for table in Table.metadata.sorted_tables:
            for right in ("SELECT", "INSERT", "UPDATE", "DELETE"):
                has = await connection.scalar(
                    text("SELECT has_table_privilege(:table, :right)"),
                    {"table": table.name, "right": right},
                )
                kept = table.name in trail and right != "SELECT"
                kept |= (table.name, right) in KEPT
                assert has != kept or (table.name, right) == ("audit_seals", "INSERT"), table.name


async def test_the_processes_note_events(as_app: Database, alice: UserRow) -> None:
    async with as_app.transaction() as connection:
        await audit.note(connection, SYSTEM, Action.PAUSED, user_id=alice.id)
        assert (await audit.list_events(connection))[-1].action == "paused"


async def test_the_processes_add_users_and_uploads(as_app: Database, key_ring: KeyRing) -> None:
    bob = await rows.add_user(as_app, key_ring, "bob")
    assert await rows.put(as_app, bob)


async def test_the_reading_role_reads_all_and_writes_nothing(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(text("SET LOCAL ROLE uplift_read"))
        assert not (await rights(connection)).may_write
        for table in Table.metadata.sorted_tables:
            await connection.execute(select(table))
    for table in Table.metadata.sorted_tables:
        await refused(database, str(delete(table)), role=READ)
    await refused(database, "INSERT INTO audit_events (actor, action) VALUES ('a', 'b')", role=READ)
    await refused(database, "COPY pauses FROM PROGRAM 'id'", role=READ)


async def test_the_processes_may_add_to_every_table_and_what_was_revoked_is_named(
    database: Database, as_app: Database
) -> None:
    async with as_app.transaction() as connection:
        assert await rights(connection) == Rights(may_write=True, lacking=())
    async with database.transaction() as connection:
        await connection.execute(text("REVOKE INSERT ON uploads FROM uplift_app"))
    try:
        async with as_app.transaction() as connection:
            assert await rights(connection) == Rights(may_write=True, lacking=("uploads",))
    finally:
        async with database.transaction() as connection:
            await connection.execute(text("GRANT INSERT ON uploads TO uplift_app"))


async def test_a_role_that_does_not_own_the_ledger_cannot_migrate_it(as_app: Database) -> None:
    with pytest.raises(ConfigurationError, match="UPLIFT_MIGRATION_DATABASE_URL"):
        await migrate.upgrade(as_app)


async def test_a_table_of_a_later_migration_is_granted_too(
    database: Database, as_app: Database
) -> None:
    async with database.transaction() as connection:
        await connection.execute(text("CREATE TABLE later (id int)"))
    try:
        await migrate.upgrade(database)
        async with as_app.transaction() as connection:
            await connection.execute(text("INSERT INTO later VALUES (1)"))
    finally:
        async with database.transaction() as connection:
            await connection.execute(text("DROP TABLE later"))


def test_each_role_has_its_own_password(postgres: EmbeddedPostgres) -> None:
    urls = (postgres.url, postgres.owner_url, postgres.app_url)
    passwords = {re.findall(":([^:@]+)@", url)[0] for url in urls}
    assert len(passwords) == 3
