"""Lets requests wait for uploads to change: all requests of a process share one query a tick."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from uuid import UUID

import structlog

from uplift.errors import NotFound
from uplift.ledger import uploads
from uplift.ledger.database import Database
from uplift.ledger.uploads import UploadRow
from uplift.problem_types import ProblemType

_log = structlog.get_logger(__name__)

_TICK_SECONDS = 0.25


class LongPoll:
    """Waits for changes. Long polls are many, changes are few: they share one SELECT a tick."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: defaultdict[UUID, set[asyncio.Event]] = defaultdict(set)
        self._revisions: dict[UUID, int | None] = {}  # None: it is removed
        self._task: asyncio.Task[None] | None = None
        self._released = False

    async def wait(
        self, row: UploadRow, until: Callable[[UploadRow], bool], seconds: float
    ) -> UploadRow:
        """The upload as soon as `until` is true of it, or as it is after so many seconds.

        Raises NotFound as soon as it is removed.
        """
        changed = asyncio.Event()
        self._waiting[row.id].add(changed)
        if self._revisions.setdefault(row.id, row.revision) != row.revision:
            changed.set()  # another request has seen it change since this row was read
        if self._task is None:
            self._task = asyncio.create_task(self._poll(), name="long poll")
        try:
            async with asyncio.timeout(seconds):
                while not (until(row) or self._released):
                    await changed.wait()
                    changed.clear()
                    row = await self._read(row)
        except TimeoutError:
            row = await self._read(row)
        finally:
            self._waiting[row.id].discard(changed)
            if not self._waiting[row.id]:
                del self._waiting[row.id]
                self._revisions.pop(row.id, None)
        return row

    def release(self) -> None:
        """End all waits, now and later, with the upload as it is: the process will stop."""
        self._released = True
        for waiting in self._waiting.values():
            for changed in waiting:
                changed.set()

    async def close(self) -> None:
        """Stop polling; who still waits gets the upload at its time-out."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self, row: UploadRow) -> UploadRow:
        async with self._database.transaction() as connection:
            found = (await uploads.get_uploads(connection, [row.id])).get(row.id)
        if found is None:
            raise NotFound(ProblemType.NO_SUCH_UPLOAD, "There is no such upload.")
        return found

    async def _poll(self) -> None:
        while self._waiting:
            await asyncio.sleep(_TICK_SECONDS)
            ids = list(self._waiting)
            try:
                async with self._database.transaction() as connection:
                    revisions = await uploads.get_revisions(connection, ids)
            except Exception as error:  # noqa: BLE001  a database that is away comes back
                _log.warning("long_poll_failed", error=type(error).__name__)
                continue
            for id_ in ids:
                if id_ in self._waiting and self._revisions.get(id_) != revisions.get(id_):
                    self._revisions[id_] = revisions.get(id_)
                    for changed in self._waiting.get(id_, ()):
                        changed.set()
        self._task = None
