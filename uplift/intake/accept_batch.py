"""Takes many resources of one user in: group by group, each committed with its lines' outcomes."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from uuid import UUID

import structlog
from sqlalchemy.exc import OperationalError

from uplift.dispatch import Dispatcher
from uplift.errors import Conflict, NotFound, UnreadableUpload
from uplift.intake.accept import NO_SUCH_USER, sealed
from uplift.intake.back_pressure import BackPressure
from uplift.intake.submission import Labels, read
from uplift.ledger import accepting, batches, users
from uplift.ledger.accepting import NewUpload
from uplift.ledger.audit import SYSTEM, Actor
from uplift.ledger.batches import BatchRow, NewLine
from uplift.ledger.database import Database
from uplift.ledger.users import UserRow
from uplift.metrics import submissions
from uplift.queues import BULK
from uplift.sealing import KeyRing, UserKey
from uplift.settings import Settings

_log = structlog.get_logger(__name__)

GROUP_BYTES = 1024 * 1024
"""Lines are held until they are this much together; a longer one makes a group by itself."""
_GROUP_LINES = 250
_COMMIT_TRIES = 3
_RETRY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a batch, or the entry of a Bundle, by its number from 1.

    `body` is a resource or an envelope around one. What cannot be read at all has a `problem` and
    its HTTP status in its place.
    """

    line: int
    body: bytes = b""
    problem_status: int | None = None
    problem: str | None = None


class BatchAcceptor:
    """Keeps batches of users."""

    def __init__(
        self,
        database: Database,
        key_ring: KeyRing,
        dispatcher: Dispatcher,
        pressure: BackPressure,
        settings: Settings,
    ) -> None:
        self._database = database
        self._key_ring = key_ring
        self._dispatcher = dispatcher
        self._pressure = pressure
        self._redispatch_seconds = settings.redispatch_seconds
        self._max_lines = settings.max_batch_lines

    async def open(
        self, app_user_id: str, batch_id: UUID, labels: Labels, *, by: Actor = SYSTEM
    ) -> "OpenBatch":
        """Begin a batch of that user: from now on it can be asked for.

        What `labels` say holds for entries that do not say it themselves; their user is this one.
        Raises NotFound if there is no such user, Conflict if the id is taken, and BacklogFull if
        too much waits already.
        """
        self._pressure.check()
        async with self._database.transaction() as connection:
            user = await users.find_user(connection, app_user_id, lock=True)
            if user is None:
                raise NotFound(NO_SUCH_USER)
            if not await batches.add_batch(connection, batch_id, user.id):
                raise Conflict(
                    "There is a batch with this id. Ask what became of its lines, and send those"
                    " that are missing as a batch with an id of its own; nothing is sent on twice."
                )
        key = user.key(self._key_ring)
        return OpenBatch(batch_id, user, key, replace(labels, user=app_user_id), by)

    async def take(self, batch: "OpenBatch", entries: AsyncIterator[Entry]) -> BatchRow:
        """Commit entries as they come, and say what became of the batch.

        An entry that cannot be read is that line's problem, and costs no other. When `entries`
        raises, because the connection broke, what came before is committed all the same, the batch
        is marked as broken, and the error goes on. So too when too much waits to be sent, with
        BacklogFull. Raises NotFound if the user is erased meanwhile.
        """
        groups = _Groups(entries, self._max_lines)
        try:
            await self._take_groups(batch, groups)
        except Exception:
            # It may be the ledger that failed; then the batch says only that it was not closed.
            with suppress(Exception):
                await self._close(batch, broken=True)
            raise
        return await self._close(batch, broken=groups.cut)

    async def _take_groups(self, batch: "OpenBatch", groups: "_Groups") -> None:
        """Commit the groups in their order, each while the next is read and sealed."""
        committing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        committing.set_result(None)
        async with aclosing(groups.read()) as read_groups:
            try:
                async for group in read_groups:
                    self._pressure.check()
                    # Some milliseconds a group, and up to a second for a large line: not on the
                    # loop that all requests share.
                    taken = await asyncio.to_thread(batch.seal, group)
                    await committing
                    committing = asyncio.ensure_future(self._commit_group(batch, taken))
                    if sum(len(entry.body) for entry in group) > GROUP_BYTES:
                        await committing  # a long line is not held beside others
            finally:
                await committing

    async def _commit_group(self, batch: "OpenBatch", taken: "_Taken") -> None:
        for left in reversed(range(_COMMIT_TRIES)):
            try:
                dispatched = await self._commit(batch, taken)
                break
            except OperationalError as error:
                # A restart or a deadlock. What was committed without our hearing of it is found
                # to be there already.
                if not left:
                    raise
                _log.warning("batch_group_retried", error=type(error).__name__)
                await asyncio.sleep(_RETRY_SECONDS)
        self._dispatcher.dispatch(BULK, dispatched)
        for outcome, lines in (
            ("accepted", len(dispatched)),
            ("duplicate", len(taken.new) - len(dispatched)),
            ("problem", len(taken.problems)),
        ):
            submissions.labels("batch", outcome).inc(lines)

    async def _commit(self, batch: "OpenBatch", taken: "_Taken") -> list[UUID]:
        """Commit a group with its lines; the uploads to ring for."""
        async with self._database.transaction() as connection:
            if await users.get_user(connection, batch.user.id, lock=True) is None:
                raise NotFound(NO_SUCH_USER)
            kept = await accepting.put_in(
                connection, list(taken.new.values()), redispatch_seconds=self._redispatch_seconds
            )
            lines = [
                NewLine(line=line, upload_id=upload_id, duplicate=duplicate)
                for line, (upload_id, duplicate) in zip(taken.new, kept, strict=True)
            ]
            await batches.add_lines(connection, batch.id, lines + taken.problems)
            return [upload_id for upload_id, duplicate in kept if not duplicate]

    async def _close(self, batch: "OpenBatch", *, broken: bool) -> BatchRow:
        async with self._database.transaction() as connection:
            await batches.close_batch(connection, batch.id, broken=broken)
            row = await batches.get_batch(connection, batch.id)
        if row is None:
            raise NotFound(NO_SUCH_USER)  # erased meanwhile
        _log.info(
            "batch_accepted",
            batch=str(batch.id),
            uploads=row.accepted,
            duplicates=row.duplicates,
            problems=row.problems,
        )
        return row


@dataclass(frozen=True, slots=True)
class _Taken:
    """A group, ready to be committed: uploads by their line, and the lines that are none."""

    new: dict[int, NewUpload]
    problems: list[NewLine]


@dataclass(frozen=True, slots=True)
class OpenBatch:
    """A batch that can take entries: what all of them have in common."""

    id: UUID
    user: UserRow
    key: UserKey
    labels: Labels
    by: Actor

    def seal(self, group: Sequence[Entry]) -> _Taken:
        """Read and seal a group, one entry after the other, so that little is held at once."""
        taken = _Taken({}, [])
        for entry in group:
            status, problem = entry.problem_status, entry.problem
            if problem is None:
                try:
                    taken.new[entry.line] = self._sealed(entry.body)
                    continue
                except UnreadableUpload as error:
                    status, problem = 400, str(error)
            taken.problems.append(NewLine(line=entry.line, problem_status=status, problem=problem))
        return taken

    def _sealed(self, body: bytes) -> NewUpload:
        submission = read(body, self.labels)
        if submission.labels.user != self.labels.user:
            raise UnreadableUpload(
                "The envelope names another user than the batch. Send each user's records in a"
                " batch of their own."
            )
        return sealed(submission, self.user.id, self.key, queue=BULK, by=self.by, batch_id=self.id)


class _Groups:
    """Entries in groups of so many lines or bytes; `cut` once there were too many of them."""

    def __init__(self, entries: AsyncIterator[Entry], limit: int) -> None:
        self._entries = entries
        self._limit = limit
        self.cut = False

    async def read(self) -> AsyncGenerator[list[Entry], None]:
        """The groups; one that an error cuts short comes before the error."""
        group: list[Entry] = []
        size = count = 0
        try:
            async for entry in self._entries:
                count += 1
                if count > self._limit:
                    self.cut = True
                    group.append(_too_many(entry.line, self._limit))
                    break
                if group and size + len(entry.body) > GROUP_BYTES:
                    yield group
                    group, size = [], 0
                group.append(entry)
                size += len(entry.body)
                if size >= GROUP_BYTES or len(group) >= _GROUP_LINES:
                    yield group
                    group, size = [], 0
        except Exception:
            if group:
                yield group
            raise
        if group:
            yield group


def _too_many(line: int, limit: int) -> Entry:
    return Entry(
        line,
        problem_status=413,
        problem=f"A batch takes at most {limit} lines. This one and those after it were not read:"
        " send them in another batch.",
    )
