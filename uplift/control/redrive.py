"""Redrives dead letters, which then start from zero: one, those that match a filter, or all."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.control.deadlocks import retry_deadlocks
from uplift.dispatch import Dispatcher
from uplift.errors import Conflict, NotFound
from uplift.ledger import dead_letters
from uplift.ledger.audit import SYSTEM, Actor
from uplift.ledger.database import Database
from uplift.ledger.dead_letters import Left, Redriven
from uplift.ledger.filters import Filter
from uplift.ledger.pages import walk
from uplift.lifecycle import DEAD_LETTERS, UNFINISHED, State
from uplift.problem_types import ProblemType
from uplift.settings import Settings

_GROUP = 500  # uploads in one transaction

_WHY_NOT = {
    State.DELIVERED: "It is delivered: the destination has it, and there is nothing to send again.",
    State.CANCELLED: "It was cancelled, and its body is gone. Submit the record again.",
    State.SUPERSEDED: "A newer version of the record took its place, and its body is gone.",
}
_WHY_LEFT = {
    Left.NO_BODY: "Its body is not kept any more. Submit the record again.",
    Left.NEWER_MAYBE_SENT: (
        "A newer version of the record ended while it may be at the destination, and must not be"
        " overwritten. Redrive that one, or submit the record again."
    ),
    Left.NOT_DEAD: "It is changing at this moment. Read its status, and try again.",
}


@dataclass(slots=True)
class Tally:
    """How many uploads a redrive queued, superseded and left.

    `after` is where to go on, if there may be more.
    """

    queued: int = 0
    superseded: int = 0
    left: Counter[Left] = field(default_factory=Counter)
    after: UUID | None = None

    def add(self, redriven: Redriven) -> None:
        """Add a group."""
        self.queued += len(redriven.queued)
        self.superseded += len(redriven.superseded)
        self.left.update(redriven.left.values())


class Redriver:
    """Redrives. Without a dispatcher, the sweep dispatches within seconds."""

    def __init__(
        self, database: Database, settings: Settings, dispatcher: Dispatcher | None = None
    ) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._settle_seconds = settings.settle_seconds

    async def redrive(self, upload_id: UUID, *, by: Actor = SYSTEM) -> State | None:
        """Redrive one dead letter; the state it got, None if it was under way already.

        It is superseded if a newer version of its record was delivered or is under way. Raises
        NotFound if there is no such upload, Conflict if it cannot be redriven.
        """
        async with self._database.transaction() as connection:
            state = await dead_letters.get_state(connection, upload_id)
            redriven = await self._redrive(connection, [upload_id], by)
            if redriven.left and state in DEAD_LETTERS:
                state = await dead_letters.get_state(connection, upload_id)
        self._dispatch(redriven)
        if not redriven.left:
            return State.QUEUED if redriven.queued else State.SUPERSEDED
        if state is None:
            raise NotFound(ProblemType.NO_SUCH_UPLOAD, "There is no such upload.")
        if state in UNFINISHED:
            return None
        why = _WHY_NOT.get(state) or _WHY_LEFT[redriven.left[upload_id]]
        raise Conflict(ProblemType.NOT_REDRIVABLE, why)

    async def redrive_all(
        self,
        matching: Filter,
        *,
        by: Actor = SYSTEM,
        after: UUID | None = None,
        limit: int | None = None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Tally:
        """Redrive what matches, in groups, until there are `limit` or more uploads.

        An upload that becomes a dead letter meanwhile, or again, is not met a second time, so this
        ends. `progress` gets the size of each group.
        """
        tally, seen = Tally(after=after), 0

        async def redrive_some(after: UUID | None) -> Sequence[UUID]:
            ids, redriven = await self._redrive_some(matching, after, by)
            self._dispatch(redriven)
            tally.add(redriven)
            return ids

        if limit is not None and limit <= 0:
            return tally
        async for ids in walk(redrive_some, lambda id_: id_, size=_GROUP, after=after):
            progress(len(ids))
            seen += len(ids)
            tally.after = ids[-1] if len(ids) == _GROUP else None
            if limit is not None and seen >= limit:
                break
        return tally

    @retry_deadlocks
    async def _redrive_some(
        self, matching: Filter, after: UUID | None, by: Actor
    ) -> tuple[Sequence[UUID], Redriven]:
        async with self._database.transaction() as connection:
            ids = await dead_letters.find(connection, matching, after=after, limit=_GROUP)
            return ids, await self._redrive(connection, ids, by)

    async def count(self, matching: Filter) -> int:
        """How many uploads `redrive_all` would redrive now."""
        async with self._database.transaction() as connection:
            return await dead_letters.count(connection, matching)

    async def _redrive(
        self, connection: AsyncConnection, ids: Sequence[UUID], by: Actor
    ) -> Redriven:
        return await dead_letters.redrive(
            connection,
            ids,
            settle_seconds=self._settle_seconds,
            by=by,
        )

    def _dispatch(self, redriven: Redriven) -> None:
        if self._dispatcher is not None:
            # The sweep dispatches what finds no place in the dispatcher's queue.
            for queue, due in redriven.due.items():
                self._dispatcher.dispatch(queue, due)
