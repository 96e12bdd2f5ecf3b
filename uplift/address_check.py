"""Checks whether each destination has the address that the ledger knows, at start and later.

A changed address may be another server, which has nothing of what was delivered. To go on would
lose every record: what the first server has would count as delivered. So a process sends nothing
to such a destination until a person decides, with `uplift destinations moved`.
"""

import asyncio
import time
from collections.abc import Callable, Mapping

import orjson
import structlog
from sqlalchemy.exc import SQLAlchemyError

from uplift.destinations.destination import Destination
from uplift.ledger import destinations as known_destinations
from uplift.ledger.database import Database
from uplift.metrics import destination_address_changed

_log = structlog.get_logger(__name__)

_START_SECONDS = 10.0
# A person's decision takes effect after so long, in every process.
_FRESH_SECONDS = 5.0


class AddressCheck:
    """Compares this process's destinations with the ledger's. `now` is a clock in seconds."""

    def __init__(
        self,
        database: Database,
        destinations: Mapping[str, Destination],
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._addresses = {name: orjson.loads(each.address) for name, each in destinations.items()}
        self._now = now
        self._changed: frozenset[str] = frozenset()
        self._checked_at: float | None = None
        self._lock = asyncio.Lock()

    async def at_start(self) -> None:
        """Check now if the ledger responds. Otherwise the first who sends checks."""
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self.usable()
        except (SQLAlchemyError, TimeoutError, OSError) as error:
            _log.warning("addresses_not_checked_yet", error=type(error).__name__)

    async def usable(self) -> list[str]:
        """The destinations to which this process may send, by their names.

        Asks the ledger every few seconds. Raises SQLAlchemy's errors if it does not respond.
        """
        async with self._lock:
            if self._checked_at is None or self._now() - self._checked_at >= _FRESH_SECONDS:
                await self._check()
        return sorted(self._addresses.keys() - self._changed)

    async def _check(self) -> None:
        async with self._database.transaction() as connection:
            changed = await known_destinations.find_changed(connection, self._addresses)
            await known_destinations.note_new(connection, self._addresses)
        for name in sorted(changed - self._changed):
            _log.error("destination_address_changed", destination=name)
        for name in self._addresses:
            destination_address_changed.labels(name).set(name in changed)
        self._changed = changed
        self._checked_at = self._now()
