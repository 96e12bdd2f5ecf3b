"""A ledger that goes back in time: a backup is restored, or a standby without the last commits is
promoted.

A promoted standby is a copy of the ledger of a few seconds ago, which takes its name: for Uplift
nothing else is different, and it needs no second server.
"""

import asyncio
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.errors import ObjectInUse

from chaos.told import settings_of
from uplift.cli.local.embedded import EmbeddedPostgres
from uplift.cli.local.embedded.programs import find_programs
from uplift.ledger import migrate
from uplift.ledger.database import Database
from uplift.ledger.migrate import owner_settings
from uplift.maintenance.restore import Restorer

_LEDGER = "uplift"
_OWNER = "uplift_owner"
_SWITCH_SECONDS = 20.0
_LOOK_SECONDS = 7 * 86_400.0
# Somebody was not sure when the backup began.
_EARLIER = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Restored:
    """One time that the ledger went back. What was accepted before `at`, in Unix time, and is not
    among the uploads `kept`, is lost. The ledger that was lost has another name now: `lost`."""

    at: float
    kept: frozenset[str]
    lost: str


class Restores:
    """Backups of one server, and what was restored from them."""

    def __init__(
        self, folder: Path, server: EmbeddedPostgres, environment: Mapping[str, str]
    ) -> None:
        self._folder = folder
        self._server = server
        self._settings = settings_of(environment)
        self._began: dict[str, datetime] = {}
        self.done: list[Restored] = []

    def back_up(self, name: str) -> None:
        """Keep the ledger as it is now. Raises CalledProcessError if PostgreSQL does not answer."""
        began = datetime.now(UTC)
        self._run("pg_dump", "--format=custom", f"--file={self._file(name)}", self._server.url)
        self._began[name] = began

    def copy(self, name: str) -> None:
        """Make a database of that backup, with all of its roles' rights, as a standby is one."""
        self._make(name, "--exit-on-error")

    def has(self, name: str) -> bool:
        """Whether there is such a backup."""
        return name in self._began

    def promote(self, name: str) -> None:
        """Let the copy be the ledger, and mark what may have been sent since."""
        self._switch(name)
        self._mark(self._began[name])
        self._note()

    def restore(self, name: str) -> None:
        """Restore the backup by docs/operations.md, and mark what may have been sent since."""
        self._make(name, "--exit-on-error", f"--role={_OWNER}", "--no-owner", "--no-privileges")
        self._switch(name)
        asyncio.run(self._migrate())
        self._mark(self._began[name] - _EARLIER)
        self._note()

    def url_of_lost(self, restored: Restored) -> str:
        """The address of a ledger that was lost."""
        return self._url(restored.lost)

    def _make(self, name: str, *options: str) -> None:
        with self._connect() as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8'").format(
                    sql.Identifier(name), sql.Identifier(_OWNER)
                )
            )
        self._run("pg_restore", *options, f"--dbname={self._url(name)}", str(self._file(name)))

    def _switch(self, name: str) -> None:
        """Give this database the ledger's name, and the ledger another one."""
        lost = f"lost_{len(self.done)}"
        ledger = sql.Identifier(_LEDGER)
        until = time.monotonic() + _SWITCH_SECONDS
        with self._connect() as connection:
            connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(ledger))
            while True:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                    [_LEDGER],
                )
                try:
                    connection.execute(
                        sql.SQL("ALTER DATABASE {} RENAME TO {}").format(
                            ledger, sql.Identifier(lost)
                        )
                    )
                    break
                except ObjectInUse:
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.05)
            for statement in (
                sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(name), ledger),
                sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(sql.Identifier(lost)),
            ):
                connection.execute(statement)

    async def _migrate(self) -> None:
        """What `uplift migrate` does."""
        database = Database.connect(owner_settings(self._settings))
        try:
            await migrate.upgrade(database)
        finally:
            await database.close()

    def _mark(self, since: datetime) -> None:
        """What `uplift restore` does, until no upload is locked."""

        async def mark() -> bool:
            database = Database.connect(self._settings)
            try:
                restorer = Restorer(database, self._settings)
                return not (await restorer.mark(since, look_seconds=_LOOK_SECONDS)).locked
            finally:
                await database.close()

        while not asyncio.run(mark()):
            time.sleep(0.5)

    def _note(self) -> None:
        with psycopg.connect(self._server.url) as connection:
            rows = connection.execute("SELECT id::text FROM uploads").fetchall()
        kept = frozenset(id_ for (id_,) in rows)
        self.done.append(Restored(time.time(), kept, f"lost_{len(self.done)}"))

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.backup"

    def _url(self, database: str) -> str:
        return f"{self._server.url.rpartition('/')[0]}/{database}"

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(self._url("postgres"), autocommit=True)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(  # noqa: S603  PostgreSQL's own, with addresses of ours
            [str(find_programs(None) / program), *arguments], check=True, capture_output=True
        )
