"""Cancels uploads for their owner: now, or when it is known whether they were sent."""

from collections import Counter
from collections.abc import Callable, Sequence
from uuid import UUID

from uplift.control.deadlocks import retry_deadlocks
from uplift.errors import Conflict, NotFound
from uplift.ledger import cancelling
from uplift.ledger.audit import SYSTEM, Actor
from uplift.ledger.cancelling import Cancelled
from uplift.ledger.database import Database
from uplift.ledger.filters import Filter
from uplift.ledger.pages import walk
from uplift.problem_types import ProblemType

_GROUP = 500  # uploads in one transaction

_TOO_LATE = (
    "It has ended already, and is not sent again by itself. What was delivered cannot be taken back"
    " from the destination."
)


class Canceller:
    """Cancels uploads. To repeat it changes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def cancel(self, upload_id: UUID, *, by: Actor = SYSTEM) -> bool:
        """Cancel an upload; False if that is only requested, because the destination may have it.

        Raises NotFound if there is no such upload, Conflict if it ended in another way.
        """
        async with self._database.transaction() as connection:
            responses = await cancelling.cancel(connection, [upload_id], by=by)
        match responses.get(upload_id):
            case None:
                raise NotFound(ProblemType.NO_SUCH_UPLOAD, "There is no such upload.")
            case Cancelled.TOO_LATE:
                raise Conflict(ProblemType.NOT_CANCELLABLE, _TOO_LATE)
            case response:
                return response is Cancelled.DONE

    async def cancel_all(
        self,
        matching: Filter,
        *,
        by: Actor = SYSTEM,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Counter[Cancelled]:
        """Cancel what matches and has not ended, in groups; `progress` gets the size of each."""
        tally = Counter[Cancelled]()

        async def cancel_some(after: UUID | None) -> Sequence[UUID]:
            ids, results = await self._cancel_some(matching, after, by)
            tally.update(results.values())
            return ids

        async for ids in walk(cancel_some, lambda id_: id_, size=_GROUP):
            progress(len(ids))
        return tally

    @retry_deadlocks
    async def _cancel_some(
        self, matching: Filter, after: UUID | None, by: Actor
    ) -> tuple[Sequence[UUID], dict[UUID, Cancelled]]:
        async with self._database.transaction() as connection:
            ids = await cancelling.find(connection, matching, after=after, limit=_GROUP)
            return ids, await cancelling.cancel(connection, ids, by=by)

    async def count(self, matching: Filter) -> int:
        """How many uploads `cancel_all` would cancel now."""
        async with self._database.transaction() as connection:
            return await cancelling.count(connection, matching)
