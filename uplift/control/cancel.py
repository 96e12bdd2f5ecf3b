"""Withdraws uploads, for their owner: at once, or once it is known whether 1upHealth has them."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from uuid import UUID

from sqlalchemy.exc import OperationalError

from uplift.errors import Conflict, NotFound
from uplift.ledger import cancelling
from uplift.ledger.audit import SYSTEM, Actor
from uplift.ledger.cancelling import Cancelled
from uplift.ledger.database import Database, is_away
from uplift.ledger.filters import Filter

_GROUP = 500  # uploads in one transaction
# A worker that records may hold one of them, and wait for another (a deadlock).
_TRIES = 3
_RETRY_SECONDS = 0.2

_TOO_LATE = (
    "It has ended already, and nothing of it is sent by itself any more; what was delivered cannot"
    " be taken back from 1upHealth."
)


class Canceller:
    """Cancels uploads. Repeat at will."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def cancel(self, upload_id: UUID, *, by: Actor = SYSTEM) -> bool:
        """Cancel an upload; False if it is only asked for, because 1upHealth may have it.

        Raises NotFound if there is no such upload, Conflict if it ended otherwise.
        """
        async with self._database.transaction() as connection:
            responses = await cancelling.cancel(connection, [upload_id], by=by)
        match responses.get(upload_id):
            case None:
                raise NotFound("There is no such upload.")
            case Cancelled.TOO_LATE:
                raise Conflict(_TOO_LATE)
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
        answered = Counter[Cancelled]()
        after: UUID | None = None
        while True:
            ids, responses = await self._cancel_some(matching, after, by)
            answered.update(responses.values())
            progress(len(ids))
            if len(ids) < _GROUP:
                return answered
            after = ids[-1]

    async def _cancel_some(
        self, matching: Filter, after: UUID | None, by: Actor
    ) -> tuple[Sequence[UUID], dict[UUID, Cancelled]]:
        for left in reversed(range(_TRIES)):
            try:
                async with self._database.transaction() as connection:
                    ids = await cancelling.find(connection, matching, after=after, limit=_GROUP)
                    responses = await cancelling.cancel(connection, ids, by=by)
                break
            except OperationalError as error:
                if not left or is_away(error):
                    raise
            await asyncio.sleep(_RETRY_SECONDS)
        return ids, responses

    async def count(self, matching: Filter) -> int:
        """How many uploads `cancel_all` would concern now."""
        async with self._database.transaction() as connection:
            return await cancelling.count(connection, matching)
