"""Seals what was added to the audit trail, once a second. Only `uplift beat` does.

What the last second brought is not sealed yet: who owns the ledger can still change that unseen.
"""

from dataclasses import replace

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger import audit_seals
from uplift.ledger.audit_seals import FIRST_ID, NEW, RESTORED, Digest, Now, Seal
from uplift.ledger.database import Database
from uplift.ledger.deployment_keys import AUDIT, make_key
from uplift.metrics import audit_seal_number, audit_sealed_at
from uplift.sealing import KeyRing

_log = structlog.get_logger(__name__)

SEAL_SECONDS = 1.0
"""The pause between two seals."""

MAX_EVENTS = 20_000
"""In one seal, unless one transaction has more. To digest them takes some tenths of a second."""


class Sealer:
    """Adds seals. Several may run at once: one seals, the others do nothing."""

    def __init__(
        self, database: Database, key_ring: KeyRing, *, max_events: int = MAX_EVENTS
    ) -> None:
        self._database = database
        self._key_ring = key_ring
        self._max_events = max_events

    async def seal(self) -> float:
        """Seal what can be sealed now. Returns the seconds until the next time.

        Raises SealError if the key ring does not open the audit key.
        """
        async with self._database.transaction() as connection:
            if not await audit_seals.may_seal(connection):
                return SEAL_SECONDS
            key = (await make_key(connection, self._key_ring, AUDIT)).audit_key
            last = await audit_seals.last_seal(connection, key)
            now = await audit_seals.now(connection)
            if last is not None and _was_restored(last, now):
                await audit_seals.hold_the_trail(connection)
                seal = await self._first_after_restore(connection, last, now)
            else:
                found = await self._next(connection, last, now)
                if found is None:
                    audit_sealed_at.set(now.at.timestamp())
                    return SEAL_SECONDS
                seal = found
            seal = replace(seal, mac=audit_seals.mac_of(key, seal))
            await audit_seals.add_seal(connection, seal)
        audit_seal_number.set(seal.number)
        audit_sealed_at.set(now.at.timestamp())
        _log.info("audit_sealed", seal=seal.name, events=seal.events, begins=seal.begins)
        return 0.0 if seal.to_transaction < now.horizon else SEAL_SECONDS

    async def _next(self, connection: AsyncConnection, last: Seal | None, now: Now) -> Seal | None:
        """The seal after the last one; None if there is nothing to seal."""
        after_id, start = (FIRST_ID, 0) if last is None else (last.after_id, last.to_transaction)
        end = now.horizon
        events = await audit_seals.some_events(
            connection, after_id=after_id, start=start, end=end, limit=self._max_events
        )
        if len(events) == self._max_events:
            # Whole transactions only: more of the last one may come.
            end = events[-1].transaction_id
            events = [event for event in events if event.transaction_id < end]
            if not events:
                end += 1
                events = await audit_seals.some_events(
                    connection, after_id=after_id, start=start, end=end, limit=None
                )
        if not events:
            return None
        digest = Digest()
        digest.add(events)
        return _seal(last, now, digest, after_id=after_id, start=start, end=end)

    async def _first_after_restore(self, connection: AsyncConnection, last: Seal, now: Now) -> Seal:
        """It is over what was there and not sealed. The next one begins at the first transaction:
        its ids are of this server."""
        after_id = await audit_seals.last_id(connection)
        digest = Digest()
        async for event in audit_seals.stream_events(
            connection, after_id=last.after_id, last_id=after_id, start=last.to_transaction
        ):
            digest.add([event])
        seal = _seal(last, now, digest, after_id=after_id, start=last.to_transaction, end=0)
        return replace(seal, begins=RESTORED)


def _was_restored(last: Seal, now: Now) -> bool:
    return (
        last.server != now.server
        or last.to_transaction > now.horizon
        or (now.restored_at is not None and now.restored_at > last.at)
    )


def _seal(
    last: Seal | None, now: Now, digest: Digest, *, after_id: int, start: int, end: int
) -> Seal:
    return Seal(
        number=1 if last is None else last.number + 1,
        mac=b"",
        previous_mac=b"" if last is None else last.mac,
        at=now.at,
        begins=NEW if last is None else None,
        after_id=after_id,
        server=now.server,
        from_transaction=start,
        to_transaction=end,
        events=digest.events,
        digest=digest.value,
    )
