"""Compares the audit trail with its seals: was anything changed, removed or added since?

It finds nothing wrong in what is not sealed yet, and cannot see that the last seals were removed
together with their events: for that, it is told the last seal that the log has.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger import audit_seals
from uplift.ledger.audit_seals import FIRST_ID, RESTORED, Digest, Seal
from uplift.ledger.database import Database
from uplift.ledger.deployment_keys import AUDIT, find_key
from uplift.sealing import KeyRing

_Say = Callable[[str], None]

_LAST_ID = 2**63 - 1

# All is seen as it is at one moment, however long it takes.
_PREPARE = (
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY",
    "SET LOCAL statement_timeout = 0",
    "SET LOCAL idle_in_transaction_session_timeout = 0",
)


@dataclass(slots=True)
class Verified:
    """What was compared. `problems` are sentences for a person; none if all is as it was."""

    seals: int = 0
    events: int = 0
    unsealed: int = 0
    problems: list[str] = field(default_factory=list)


async def verify_trail(database: Database, key_ring: KeyRing, *, last: str = "") -> Verified:
    """Compare all. `last` is a seal's name in the log: it, and so all before it, must be there.

    Raises SealError if the key ring does not open the audit key.
    """
    async with database.transaction(unlimited=True) as connection:
        for statement in _PREPARE:
            await connection.execute(text(statement))
        key = await find_key(connection, key_ring, AUDIT)
        walk = _Walk(connection, b"" if key is None else key.audit_key, last)
        await walk.all()
    return walk.found


class _Walk:
    """One walk through the seals, with the events beside them."""

    def __init__(self, connection: AsyncConnection, key: bytes, last: str) -> None:
        self._connection = connection
        self._key = key
        self._last = last
        self.found = Verified()

    async def all(self) -> None:
        """Walk through all."""
        restored = await audit_seals.series_after_restores(self._connection, self._key)
        say = self.found.problems.append
        bounds = iter([FIRST_ID, *(seal.after_id for seal in restored), _LAST_ID])
        after_id = next(bounds)
        series = _Series(self._connection, after_id, after_id := next(bounds))
        previous: Seal | None = None
        last_is_there = False
        async for seal in self._believed():
            _compare_chain(previous, seal, say)
            previous = seal
            last_is_there |= self._last in (seal.name, str(seal.number))
            digest = await series.take(seal, say)
            self.found.seals += 1
            self.found.events += digest.events
            _compare_events(seal, digest, say)
            if seal.begins == RESTORED:
                series = _Series(self._connection, after_id, after_id := next(bounds))
        self.found.unsealed = await series.left()
        if previous is None:
            say("There is no seal. Either `uplift beat` never ran, or somebody removed them all.")
        if self._last and not last_is_there:
            say(
                f"The seal {self._last} is not there: somebody removed the end of the trail, or the"
                " ledger was restored from a backup from before it."
            )

    async def _believed(self) -> AsyncIterator[Seal]:
        async for seal in audit_seals.stream_seals(self._connection):
            if audit_seals.is_believed(self._key, seal):
                yield seal
            else:
                self.found.problems.append(
                    f"Seal {seal.number} was changed, or Uplift did not make it."
                )


class _Series:
    """The events between two restores, in the order of their transactions."""

    def __init__(self, connection: AsyncConnection, after_id: int, last_id: int) -> None:
        self._events = audit_seals.stream_events(connection, after_id=after_id, last_id=last_id)
        self._next: Row[Any] | None = None

    async def take(self, seal: Seal, say: _Say) -> Digest:
        """The digest of the events that the seal is over."""
        digest = Digest()
        end = None if seal.begins == RESTORED else seal.to_transaction
        outside = 0
        while (event := await self._peek()) is not None:
            if end is not None and event.transaction_id >= end:
                break
            self._next = None
            if event.transaction_id < seal.from_transaction:
                outside += 1
            else:
                digest.add([event])
        if outside:
            say(f"{outside} event(s) before seal {seal.number} are under no seal.")
        return digest

    async def left(self) -> int:
        """How many are left."""
        count = 0
        while await self._peek() is not None:
            self._next = None
            count += 1
        return count

    async def _peek(self) -> Row[Any] | None:
        if self._next is None:
            self._next = await anext(self._events, None)
        return self._next


def _compare_chain(previous: Seal | None, seal: Seal, say: _Say) -> None:
    number, mac, end = (
        (0, b"", 0)
        if previous is None
        else (previous.number, previous.mac, previous.to_transaction)
    )
    if seal.number == number:
        say(f"Seal {seal.number} is there twice: somebody put back or copied a part of the trail.")
    elif seal.number != number + 1:
        say(f"The seals between {number} and {seal.number} are missing.")
    elif seal.previous_mac != mac or seal.from_transaction != end:
        say(f"Seal {seal.number} does not follow seal {number}: somebody replaced a part.")


def _compare_events(seal: Seal, digest: Digest, say: _Say) -> None:
    if digest.value == seal.digest:
        return
    difference = digest.events - seal.events
    if difference < 0:
        what = f"{-difference} event(s) are missing"
    elif difference > 0:
        what = f"{difference} event(s) were added"
    else:
        what = "an event was changed"
    say(
        f"Of the {seal.events} event(s) under seal {seal.number} of {seal.at:%Y-%m-%d %H:%M:%S},"
        f" {what}."
    )
