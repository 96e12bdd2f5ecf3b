"""A migrated ledger that is made once for a run; servers of their own start with copies of it.

To create and migrate one takes seconds, to copy it a tenth of one.
"""

import asyncio
import fcntl
import subprocess
from pathlib import Path

from pydantic import SecretStr

from uplift.cli.local.embedded import EmbeddedPostgres
from uplift.ledger import migrate
from uplift.ledger.database import Database
from uplift.settings import Settings

# Files of a past that nobody reads would be copied each time.
_SMALL = {"fsync": "off", "wal_recycle": "off", "min_wal_size": "32MB"}


class LedgerCopies:
    """The processes of one run share the original in `folder`: the first one makes it."""

    def __init__(self, folder: Path) -> None:
        self._original = folder / "ledger"
        self._lock = folder / "ledger.lock"

    def put(self, data_dir: Path) -> Path:
        """Have an embedded PostgreSQL or a System that starts in `data_dir` find a ledger there,
        migrated and empty. Returns the folder.
        """
        with self._lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self._original.exists():
                self._make()
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        parts = [self._original / name for name in ("postgres", "postgres.password")]
        # Unlike shutil, it keeps owners: root's server runs under another account.
        subprocess.run(["/bin/cp", "-a", *parts, data_dir], check=True)
        return data_dir

    def _make(self) -> None:
        unfinished = self._original.with_suffix(".new")
        with EmbeddedPostgres(unfinished, settings=_SMALL) as server:
            asyncio.run(_migrate(server.owner_url))
        unfinished.rename(self._original)


async def _migrate(url: str) -> None:
    database = Database.connect(Settings(database_url=SecretStr(url)))
    await migrate.upgrade(database)
    await database.close()
