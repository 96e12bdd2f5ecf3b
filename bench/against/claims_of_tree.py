"""Times claims by the code of the tree whose interpreter runs this file; see `claims`."""

import asyncio
import inspect
import json
import statistics
import sys
import time
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger import leases
from uplift.ledger.database import Database
from uplift.settings import Settings

try:
    from uplift.ledger.due import front
except ImportError:  # a tree without fair queueing
    front: Any = None  # type: ignore[no-redef]


_TERMS = leases.LeaseTerms(attempt_seconds=60.0, lease_seconds=120.0, give_up_seconds=3600.0)


class _RolledBackError(Exception):
    pass


async def _claim(connection: AsyncConnection, ids: list[UUID]) -> int:
    since = time.monotonic()
    if front is None:
        return len(await leases.claim(connection, ids, since=since, **_TERMS))
    # A tree without destinations has one queue for all.
    where = ("oneup",) if "destination" in inspect.signature(front).parameters else ()
    found = await front(connection, "uploads", *where, limit=len(ids))
    return len(await leases.lease(connection, found.due, since=since, **_TERMS))


async def _main(size: int, count: int) -> float:
    database = Database.connect(Settings())
    seconds = []
    try:
        async with database.transaction() as connection:
            found = await connection.scalars(
                text("SELECT id FROM uploads WHERE state = 'queued' LIMIT :limit"), {"limit": size}
            )
            ids = list(found)
        for _ in range(count + 5):
            try:
                async with database.transaction() as connection:
                    began = time.perf_counter()
                    claimed = await _claim(connection, ids)
                    seconds.append(time.perf_counter() - began)
                    if claimed != size:
                        raise AssertionError(f"{claimed} were claimed.")
                    raise _RolledBackError  # noqa: TRY301
            except _RolledBackError:
                pass
    finally:
        await database.close()
    # The first prepare statements.
    return statistics.median(seconds[5:]) * 1000


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_main(int(sys.argv[1]), int(sys.argv[2])))))
