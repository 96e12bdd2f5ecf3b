"""Pauses and resumes sending, for one user or for everybody. Uploads are accepted all the same."""

from uplift.ledger import pauses, users
from uplift.ledger.audit import SYSTEM, Actor
from uplift.ledger.database import Database
from uplift.ledger.pauses import PauseRow


class Pauser:
    """Pauses and resumes. Workers end what they send; the sweep dispatches the rest later."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def pause(self, app_user_id: str | None, *, by: Actor = SYSTEM) -> PauseRow:
        """Pause that user, or everybody. A pause that is there already goes on.

        Raises NotFound if there is no such user.
        """
        async with self._database.transaction() as connection:
            user_id = None
            if app_user_id is not None:
                user_id = (await users.require_user(connection, app_user_id, lock=True)).id
            return PauseRow(app_user_id, await pauses.pause(connection, user_id, by=by))

    async def resume(self, app_user_id: str | None, *, by: Actor = SYSTEM) -> bool:
        """End the pause of that user, or of everybody; False if there was none.

        Raises NotFound if there is no such user.
        """
        async with self._database.transaction() as connection:
            user_id = None
            if app_user_id is not None:
                user_id = (await users.require_user(connection, app_user_id)).id
            return await pauses.resume(connection, user_id, by=by)

    async def list(self) -> list[PauseRow]:
        """All pauses, the oldest first."""
        async with self._database.transaction() as connection:
            return await pauses.list_pauses(connection)
