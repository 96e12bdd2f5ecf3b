"""Migrates the ledger's schema with Alembic."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError, ProgrammingError

from uplift.errors import ConfigurationError
from uplift.ledger import roles
from uplift.ledger.database import Database
from uplift.ledger.revisions import Revisions
from uplift.ledger.tables import Table
from uplift.settings import Settings

# Any fixed number: two processes that migrate at once go one after the other.
_LOCK = 7_364_119
_NOT_PERMITTED = "42501"  # SQLSTATE insufficient_privilege
# SQLSTATE deadlock_detected and lock_not_available.
_LOCKED = ("40P01", "55P03")
# Behind a migration that waits for a lock everybody waits. And of two that wait for each other,
# PostgreSQL ends the one that waited for a second (deadlock_timeout): so it is the migration.
_LOCK_SECONDS = 0.5
_TRIES = 120
_PAUSE_SECONDS = 0.5


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    # In a file of this form, % begins the name of another option.
    folder = str(Path(__file__).parent / "migrations").replace("%", "%%")
    config.set_main_option("script_location", folder)
    config.attributes["connection"] = connection
    return config


def _prepare(connection: Connection) -> None:
    # These limits protect the service from a stuck query, and would end a long migration.
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'"))


def owner_settings(settings: Settings) -> Settings:
    """The settings with the address of the role that owns the ledger, if there is one."""
    url = settings.migration_database_url
    return settings if url is None else settings.model_copy(update={"database_url": url})


def head() -> str | None:
    """The newest revision this version of Uplift knows."""
    return ScriptDirectory.from_config(_config()).get_current_head()


async def upgrade(database: Database, revision: str = "head") -> None:
    """Migrate up to `revision`, and give the roles their rights.

    A ledger that a newer version migrated stays as it is. Raises ConfigurationError if this version
    does not work on it, the database's role does not own the ledger, or somebody locks it.
    """

    def run(connection: Connection) -> None:
        _prepare(connection)
        found = _revisions(connection)
        if found.is_newer:
            if found.problem is not None:
                raise ConfigurationError(found.problem)
            return
        command.upgrade(_config(connection), revision)
        roles.grant(connection)

    try:
        await with_its_locks(database, run)
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) != _NOT_PERMITTED:
            raise
        raise ConfigurationError(
            "This role of PostgreSQL may not migrate the ledger. Set UPLIFT_MIGRATION_DATABASE_URL"
            " to the address of the role that owns it."
        ) from None


async def with_its_locks(database: Database, run: Callable[[Connection], None]) -> None:
    """Run it in a transaction; again, while processes that work have what it wants to lock.

    Raises ConfigurationError if one keeps it for minutes.
    """
    for _ in range(_TRIES):
        try:
            async with database.transaction(unlimited=True) as connection:
                await connection.run_sync(run)
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) not in _LOCKED:
                raise
            await asyncio.sleep(_PAUSE_SECONDS)
        else:
            return
    raise ConfigurationError(
        "A transaction in this database keeps tables locked that the migration changes. Nothing is"
        " changed. End it (`SELECT * FROM pg_stat_activity` shows it), and migrate again."
    )


async def downgrade(database: Database, revision: str) -> None:
    """Migrate down to `revision`; "base" is an empty schema. Removes the tables' data as well."""

    def run(connection: Connection) -> None:
        _prepare(connection)
        command.downgrade(_config(connection), revision)

    async with database.transaction(unlimited=True) as connection:
        await connection.run_sync(run)


async def current(database: Database) -> str | None:
    """The revision the database is at, or None for an empty one."""

    def run(connection: Connection) -> str | None:
        return MigrationContext.configure(connection).get_current_revision()

    async with database.transaction() as connection:
        return await connection.run_sync(run)


async def revisions(database: Database) -> Revisions:
    """The ledger's revision, and whether this version works on it."""
    async with database.transaction() as connection:
        return await connection.run_sync(_revisions)


def _revisions(connection: Connection) -> Revisions:
    at = oldest = None
    # An empty database has no such table.
    if connection.scalar(text("SELECT to_regclass('alembic_version')")) is not None:
        row = connection.execute(
            text("SELECT version_num, to_jsonb(v) ->> 'oldest_revision' FROM alembic_version AS v")
        ).one_or_none()
        at, oldest = row if row is not None else (None, None)
    ours = head()
    assert ours is not None  # noqa: S101  there is a first migration
    return Revisions(at, oldest, ours)


async def drift(database: Database) -> list[object]:
    """What differs between the tables and the database; empty when they agree."""

    def run(connection: Connection) -> list[object]:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        return list(compare_metadata(context, Table.metadata))

    async with database.transaction() as connection:
        return await connection.run_sync(run)


async def draft(database: Database, message: str) -> None:
    """Write the next migration from the difference between the tables and the database."""

    def run(connection: Connection) -> None:
        number = f"{int(head() or 0) + 1:04}"
        command.revision(_config(connection), message, autogenerate=True, rev_id=number)

    async with database.transaction() as connection:
        await connection.run_sync(run)
