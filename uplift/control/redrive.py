"""Has dead letters begin anew: one, those that a filter finds, or all."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.dispatch import Dispatcher
from uplift.errors import Conflict, NotFound
from uplift.ledger import dead_letters
from uplift.ledger.audit import SYSTEM, Actor
from uplift.ledger.database import Database
from uplift.ledger.dead_letters import Left, Redriven
from uplift.ledger.filters import Filter
from uplift.lifecycle import DEAD_LETTERS, UNFINISHED, State
from uplift.settings import Settings

_GROUP = 500  # uploads in one transaction

_WHY_NOT = {
    State.DELIVERED: "It is delivered: 1upHealth has it, and there is nothing to send again.",
    State.CANCELLED: "It was cancelled, and its body is gone. Submit the record again.",
    State.SUPERSEDED: "A newer version of the record took its place, and its body is gone.",
}
_WHY_LEFT = {
    Left.NO_BODY: "Its body is not kept any more. Submit the record again.",
    Left.NEWER_MAYBE_SENT: (
        "A newer version of the record ended while it may be at 1upHealth, and must not be"
        " overwritten. Redrive that one, or submit the record again."
    ),
    Left.NOT_DEAD: "It changes at this moment. Ask for its status, and try again.",
}


@dataclass(slots=True)
class Tally:
    """What became of many uploads, in numbers.

    `after` is where to go on, if there may be more.
    """

    queued: int = 0
    superseded: int = 0
    left: Counter[Left] = field(default_factory=Counter)
    after: UUID | None = None

    def add(self, redriven: Redriven) -> None:
        """Count a group in."""
        self.queued += len(redriven.queued)
        self.superseded += len(redriven.superseded)
        self.left.update(redriven.left.values())


class Redriver:
    """Redrives. Without a bell, the sweep rings within seconds."""

    def __init__(
        self, database: Database, settings: Settings, dispatcher: Dispatcher | None = None
    ) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._settle_seconds = settings.settle_seconds
        self._redispatch_seconds = settings.redispatch_seconds

    async def redrive(self, upload_id: UUID, *, by: Actor = SYSTEM) -> State | None:
        """Have one dead letter begin anew; the state it got, None if it was on its way already.

        It is superseded if a newer version of its record was delivered or is on its way. Raises
        NotFound if there is no such upload, Conflict if it cannot begin anew.
        """
        async with self._database.transaction() as connection:
            state = await dead_letters.get_state(connection, upload_id)
            redriven = await self._redrive(connection, [upload_id], by)
            if redriven.left and state in DEAD_LETTERS:
                state = await dead_letters.get_state(connection, upload_id)
        self._key_ring(redriven)
        if not redriven.left:
            return State.QUEUED if redriven.queued else State.SUPERSEDED
        if state is None:
            raise NotFound("There is no such upload.")
        if state in UNFINISHED:
            return None
        raise Conflict(_WHY_NOT.get(state) or _WHY_LEFT[redriven.left[upload_id]])

    async def redrive_all(
        self,
        matching: Filter,
        *,
        by: Actor = SYSTEM,
        after: UUID | None = None,
        limit: int | None = None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Tally:
        """Redrive what matches, in groups; some `most` of it, if given.

        What dies meanwhile, or again, is not met a second time, so this ends. `progress` gets the
        size of each group.
        """
        tally, seen = Tally(after=after), 0
        while limit is None or seen < limit:
            async with self._database.transaction() as connection:
                ids = await dead_letters.find(connection, matching, after=tally.after, limit=_GROUP)
                redriven = await self._redrive(connection, ids, by)
            self._key_ring(redriven)
            tally.add(redriven)
            progress(len(ids))
            seen += len(ids)
            tally.after = ids[-1] if len(ids) == _GROUP else None
            if tally.after is None:
                break
        return tally

    async def count(self, matching: Filter) -> int:
        """How many uploads `redrive_all` would concern now."""
        async with self._database.transaction() as connection:
            return await dead_letters.count(connection, matching)

    async def _redrive(
        self, connection: AsyncConnection, ids: Sequence[UUID], by: Actor
    ) -> Redriven:
        return await dead_letters.redrive(
            connection,
            ids,
            settle_seconds=self._settle_seconds,
            redispatch_seconds=self._redispatch_seconds,
            by=by,
        )

    def _key_ring(self, redriven: Redriven) -> None:
        if self._dispatcher is not None:
            # The bell keeps to the queues' room; what it drops, the sweep rings for.
            for queue, due in redriven.due.items():
                self._dispatcher.dispatch(queue, due)
