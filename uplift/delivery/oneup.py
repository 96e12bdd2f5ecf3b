"""Delivers an upload to 1upHealth: by POST, so what may have arrived is looked up first."""

import structlog

from uplift.delivery.calls import Calls
from uplift.delivery.lookup import LookUps
from uplift.delivery.results import (
    Cancelled,
    LastStep,
    NotFound,
    Opened,
    PastDeadline,
    Sent,
)
from uplift.destinations.requests import Create, Update
from uplift.destinations.responses import ANOTHER_ID, Response, ResponseKind, of_assigned_id

_log = structlog.get_logger(__name__)


class OneUpDelivery:
    """Delivers uploads to destinations where sending one again may store it twice."""

    def __init__(self, calls: Calls, *, keeps_ids: bool) -> None:
        self._calls = calls
        self._look_ups = LookUps(calls, keeps_ids=keeps_ids)

    async def look_up(self, opened: Opened) -> tuple[LastStep | None, bool]:
        """What ends an attempt before it sends, None if nothing does; and whether the look-up could
        tell that it is not there.

        Raises what `Calls` raises.
        """
        looked_up = await self._look_ups.look_up(opened)
        if isinstance(looked_up, NotFound):
            return None, looked_up.can_tell
        return looked_up, True

    async def deliver(self, opened: Opened) -> Sent | Cancelled | PastDeadline:
        """Send it, unless its end has come.  Raises what `Calls` raises."""
        # A cancelled upload is only looked up.
        if opened.claim.cancel_requested:
            return Cancelled()
        if opened.claim.past_deadline:
            return PastDeadline()
        return await self._send(opened)

    async def _send(self, opened: Opened) -> Sent:
        target = opened.delivered_id
        response = await self._calls.write(opened, Update(target) if target else Create())
        if response.kind is ResponseKind.ABSENT and target is not None:
            # The target of the update is gone. If a look-up says so too, create it again.
            found = await self._calls.look_up(opened, target)
            if found.kind is ResponseKind.ABSENT:
                response = await self._calls.write(opened, Create())
                target = None
        if response.code == ANOTHER_ID and target is None:
            response = await self._at_assigned_id(opened, response)
        return Sent(response)

    async def _at_assigned_id(self, opened: Opened, response: Response) -> Response:
        """Look up the id that a create was answered with, although ids are said to be kept.

        If the setting is wrong, our content is there. It is not under our id, so each attempt
        would create it once more.
        """
        assigned = response.receipt.id if response.receipt is not None else None
        if assigned is None:
            return response
        try:
            found = await self._calls.look_up(opened, assigned)
        except Exception as error:  # noqa: BLE001  the write has its response, whatever this has
            _log.warning("assigned_id_not_looked_up", error=type(error).__name__)
            return response
        return of_assigned_id(response, found, opened.body)
