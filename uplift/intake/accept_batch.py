"""Accepts many resources of one user: in groups, each committed with what became of its lines."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

import structlog
from sqlalchemy.exc import OperationalError
from tenacity import RetryCallState, retry, retry_if_exception_type, stop_after_attempt, wait_fixed

from uplift import traces
from uplift.destinations.derived_ids import read_id_key
from uplift.destinations.destination import Destination
from uplift.dispatch import Dispatcher
from uplift.errors import Conflict, UnreadableUpload, UserBacklogFull, VersionNotTaken
from uplift.intake.back_pressure import BackPressure
from uplift.intake.labels import Labels
from uplift.intake.line_results import LineResults
from uplift.intake.sealed import sealed
from uplift.intake.submission import check_values, parse, run_unblocked
from uplift.intake.version_taken import check_version
from uplift.ledger import accepting, batches, users
from uplift.ledger.audit import SYSTEM, Actor
from uplift.ledger.batches import BatchRow, NewLine
from uplift.ledger.database import CommitUnknown, Database
from uplift.ledger.later_versions import Kept
from uplift.ledger.new_uploads import NewUpload
from uplift.ledger.users import UserRow
from uplift.metrics import submissions
from uplift.problem_types import ProblemType
from uplift.queues import BULK
from uplift.sealing import KeyRing, UserKey
from uplift.settings import Settings

_log = structlog.get_logger(__name__)

GROUP_BYTES = 1024 * 1024
"""A group ends when its lines have this size together. A longer line is a group of its own."""
_GROUP_LINES = 250
_STEP_BYTES = 16 * 1024  # they take half a millisecond


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome and state.outcome.exception()
    _log.warning("batch_group_retried", error=type(error).__name__)


# A restart of PostgreSQL, or a deadlock. If a group was committed and the answer was lost, it is
# found to be there already.
_retried = retry(
    retry=retry_if_exception_type(OperationalError),
    stop=stop_after_attempt(3),
    wait=wait_fixed(0.5),
    before_sleep=_log_retry,
    reraise=True,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a batch, or an entry of a Bundle, with its number from 1.

    `body` is a resource or an envelope around one. An entry that cannot be read at all has a
    `problem` and its type instead.
    """

    line: int
    body: bytes = b""
    problem_type: ProblemType | None = None
    problem: str | None = None


class BatchAcceptor:
    """Accepts batches of users."""

    def __init__(
        self,
        database: Database,
        key_ring: KeyRing,
        dispatcher: Dispatcher,
        pressure: BackPressure,
        destinations: Mapping[str, Destination],
        settings: Settings,
    ) -> None:
        self._database = database
        self._key_ring = key_ring
        self._dispatcher = dispatcher
        self._pressure = pressure
        self._destinations = destinations
        self._id_key = read_id_key(settings)
        self._max_lines = settings.max_batch_lines
        self._max_values = settings.max_json_values

    async def open(
        self, app_user_id: str, batch_id: UUID, labels: Labels, *, by: Actor = SYSTEM
    ) -> "OpenBatch":
        """Begin a batch of that user: from now on its status can be read.

        `labels` are for entries without labels of their own; the user of all entries is this one.
        Raises NotFound if there is no such user, Conflict if the id is taken, and BacklogFull if
        too much waits already.
        """
        self._pressure.check(app_user_id)
        async with self._database.transaction() as connection:
            user = await users.require_user(connection, app_user_id, lock=True)
            if not await batches.add_batch(connection, batch_id, user.id):
                raise Conflict(
                    ProblemType.BATCH_EXISTS,
                    "There is a batch with this id. Read what became of its lines, and send the"
                    " missing ones as a batch with an id of its own. Nothing is sent to the"
                    " destination twice.",
                )
        key = user.key(self._key_ring)
        labels = replace(labels, user=app_user_id)
        return OpenBatch(
            batch_id,
            user,
            key,
            labels,
            by,
            self._max_values,
            self._destinations,
            self._id_key,
        )

    async def add_entries(
        self,
        batch: "OpenBatch",
        entries: AsyncIterator[Sequence[Entry]],
        results: LineResults | None = None,
    ) -> BatchRow:
        """Commit entries as they come, in parts of any size, and close the batch; its row.

        What became of the lines is noted in `results`.

        An entry that cannot be read is a problem of its line only, and so is one that comes while
        too much of the user waits. When `entries` raises, because the connection broke, what came
        before is committed, the batch is marked as broken, and the error is raised again. The same
        is done with BacklogFull when too much waits to be sent. Raises NotFound if the user is
        erased meanwhile.
        """
        groups = _Groups(entries, self._max_lines)
        try:
            lines = await self._commit_groups(batch, groups, results or LineResults())
        except Exception:
            # If the ledger has failed, this fails too, and the batch stays open.
            with suppress(Exception):
                await self._close(batch, broken=True)
            raise
        return await self._close(batch, broken=groups.cut, lines=lines)

    async def _commit_groups(
        self, batch: "OpenBatch", groups: "_Groups", results: LineResults
    ) -> int:
        """Commit the groups in their order, each while the next is parsed and sealed; how many
        lines they have."""
        lines = 0
        committing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        committing.set_result(None)
        async with aclosing(groups.read()) as read_groups:
            try:
                async for group in read_groups:
                    try:
                        self._pressure.check(batch.user.app_user_id)
                    except UserBacklogFull as error:
                        group = [_refused(entry, error) for entry in group]
                    lines += len(group)
                    sealed_group = await _sealed(batch, group)
                    await committing
                    committing = asyncio.ensure_future(
                        self._commit_group(batch, sealed_group, results)
                    )
                    if sum(len(entry.body) for entry in group) > GROUP_BYTES:
                        await committing  # so that memory has one long line at a time
            finally:
                await committing
        return lines

    async def _commit_group(
        self, batch: "OpenBatch", group: "_SealedGroup", results: LineResults
    ) -> None:
        kept, group = await self._commit(batch, group)
        accepted = [each.id for each in kept if not each.duplicate]
        self._dispatcher.dispatch(BULK, accepted)
        if group.problems or not all(each.first for each in kept):
            results.note_others()
        else:
            results.note(list(group.new), accepted)
        for outcome, lines in (
            ("accepted", len(accepted)),
            ("duplicate", len(group.new) - len(accepted)),
            ("problem", len(group.problems)),
        ):
            submissions.labels("batch", outcome).inc(lines)

    @_retried
    async def _commit(
        self, batch: "OpenBatch", group: "_SealedGroup"
    ) -> tuple[list[Kept], "_SealedGroup"]:
        """Commit a group with its lines; what became of its uploads, and of the group."""
        async with self._database.transaction() as connection:
            destination = await users.require_destination_of(connection, batch.user.id)
            if destination != batch.user.destination:
                group = group.moved(destination, self._destinations)
            kept = await accepting.keep(connection, list(group.new.values()))
            lines = [
                NewLine(line=line, upload_id=each.id, duplicate=each.duplicate)
                for line, each in zip(group.new, kept, strict=True)
            ]
            await batches.add_lines(connection, batch.id, lines + group.problems)
            return kept, group

    async def _close(self, batch: "OpenBatch", *, broken: bool, lines: int = 0) -> BatchRow:
        async with self._database.transaction() as connection:
            await batches.close_batch(connection, batch.id, broken=broken)
            row = await batches.get_batch(connection, batch.id)
            lives = row is not None or await users.get_user(connection, batch.user.id)
        if lives and (row is None or row.lines < lines):
            # A standby without the last commits was promoted meanwhile: they had lines, or all.
            raise CommitUnknown(None, None, LookupError())
        if row is None:
            raise users.no_such_user()  # erased meanwhile
        _log.info(
            "batch_accepted",
            batch=str(batch.id),
            uploads=row.accepted,
            duplicates=row.duplicates,
            problems=row.problems,
        )
        return row


async def _sealed(batch: "OpenBatch", group: Sequence[Entry]) -> "_SealedGroup":
    """Seal a group in steps, between which the event loop goes on.

    In a thread, a group would compete for Python's lock with its predecessor's commit, which takes
    longer then. A large line takes up to a second, so it goes to a thread nevertheless.
    """
    sealed_group = _SealedGroup({}, [])
    for step in _steps(group):
        size = sum(len(entry.body) for entry in step)
        part = await run_unblocked(size, partial(batch.seal, step))
        sealed_group.new.update(part.new)
        sealed_group.problems.extend(part.problems)
        await asyncio.sleep(0)
    return sealed_group


def _steps(group: Sequence[Entry]) -> Iterator[list[Entry]]:
    step: list[Entry] = []
    size = 0
    for entry in group:
        if step and size + len(entry.body) > _STEP_BYTES:
            yield step
            step, size = [], 0
        step.append(entry)
        size += len(entry.body)
    yield step


@dataclass(frozen=True, slots=True)
class _SealedGroup:
    """A group that is ready to be committed: uploads by their line, and lines with a problem."""

    new: dict[int, NewUpload]
    problems: list[NewLine]

    def moved(self, destination: str, destinations: Mapping[str, Destination]) -> "_SealedGroup":
        """The group on its way to another destination: its user moved since it was sealed."""
        new: dict[int, NewUpload] = {}
        problems = list(self.problems)
        for line, each in self.new.items():
            try:
                check_version(destinations, destination, each.fhir_version)
            except VersionNotTaken as error:
                problems.append(
                    NewLine(line=line, problem_code=error.problem.code, problem=str(error))
                )
            else:
                new[line] = replace(each, destination=destination)
        return _SealedGroup(new, problems)


@dataclass(frozen=True, slots=True)
class OpenBatch:
    """A batch that takes entries, and what all of them have in common."""

    id: UUID
    user: UserRow
    key: UserKey
    labels: Labels
    by: Actor
    max_values: int
    destinations: Mapping[str, Destination]
    id_key: bytes | None

    def seal(self, group: Sequence[Entry]) -> _SealedGroup:
        """Parse and seal a group, one entry after the other, so that little memory is used."""
        new: dict[int, NewUpload] = {}
        problems: list[NewLine] = []
        for entry in group:
            kind, problem = entry.problem_type, entry.problem
            if kind is None:
                try:
                    new[entry.line] = self._sealed(entry.body)
                    continue
                except (UnreadableUpload, VersionNotTaken) as error:
                    kind, problem = error.problem, str(error)
            problems.append(NewLine(line=entry.line, problem_code=kind.code, problem=problem))
        return _SealedGroup(new, problems)

    def _sealed(self, body: bytes) -> NewUpload:
        check_values(body, self.max_values)
        submission = parse(body, self.labels)
        if submission.labels.user != self.labels.user:
            raise UnreadableUpload(
                ProblemType.BATCH_OF_OTHER_USER,
                "The envelope names another user than the batch. Send each user's records in a"
                " batch of their own.",
            )
        check_version(self.destinations, self.user.destination, submission.fhir_version)
        return sealed(
            submission,
            self.user,
            self.key,
            queue=BULK,
            id_key=self.id_key,
            by=self.by,
            batch_id=self.id,
            trace_parent=traces.current(),
        )


class _Groups:
    """Entries in groups of so many lines or bytes; `cut` when there were more than `limit`."""

    def __init__(self, parts: AsyncIterator[Sequence[Entry]], limit: int) -> None:
        self._parts = parts
        self._limit = limit
        self.cut = False

    async def read(self) -> AsyncGenerator[list[Entry], None]:
        """The groups; if the entries raise, what came before is a group."""
        group: list[Entry] = []
        size = count = 0
        try:
            async for part in self._parts:
                for entry in part[: self._limit - count]:
                    if group and size + len(entry.body) > GROUP_BYTES:
                        yield group
                        group, size = [], 0
                    group.append(entry)
                    size += len(entry.body)
                    if size >= GROUP_BYTES or len(group) >= _GROUP_LINES:
                        yield group
                        group, size = [], 0
                if len(part) > self._limit - count:
                    self.cut = True
                    group.append(_too_many(part[self._limit - count].line, self._limit))
                    break
                count += len(part)
        except Exception:
            if group:
                yield group
            raise
        if group:
            yield group


def _refused(entry: Entry, error: UserBacklogFull) -> Entry:
    if entry.problem_type is not None:
        return entry
    return Entry(entry.line, problem_type=error.problem, problem=str(error))


def _too_many(line: int, limit: int) -> Entry:
    return Entry(
        line,
        problem_type=ProblemType.BATCH_TOO_LONG,
        problem=f"A batch takes at most {limit} lines. This line and those after it were not read:"
        " send them in another batch.",
    )
