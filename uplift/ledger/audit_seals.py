"""Seals over the audit trail: what is sealed cannot be changed, removed or added to unseen.

A seal is over the events of all transactions from one id to another, which have all ended: no event
of them comes later. Its MAC is over the digest of these events and over the seal before it, by the
deployment's audit key. Who can write the ledger, but has no master key, can make no seal.

Ids of transactions mean nothing on another server. So a ledger that was restored begins a new
series: its first seal is over what was there and was not sealed, and the others over what has a
greater id.
"""

import hashlib
import hmac
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

NEW = "new"
RESTORED = "restored"

FIRST_ID = -(2**63)
"""Before every id."""

# Of 1000 false seals that somebody added, the database sends this many at once.
_PAGE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """A seal as the ledger has it. `server` is PostgreSQL's own name for its data."""

    number: int
    mac: bytes
    previous_mac: bytes
    at: datetime
    begins: str | None
    after_id: int
    server: str
    from_transaction: int
    to_transaction: int
    events: int
    digest: bytes

    @property
    def name(self) -> str:
        """How the log names it, and `uplift audit verify --last` takes it."""
        return f"{self.number}:{self.mac.hex()}"


def mac_of(key: bytes, seal: Seal) -> bytes:
    """The MAC that a seal must have: over all else that it says."""
    said = [
        seal.number,
        seal.previous_mac.hex(),
        seal.at.astimezone(UTC).isoformat(),
        seal.begins,
        seal.after_id,
        seal.server,
        seal.from_transaction,
        seal.to_transaction,
        seal.events,
        seal.digest.hex(),
    ]
    return hmac.digest(key, orjson.dumps(said), "sha256")


def is_believed(key: bytes, seal: Seal) -> bool:
    """Whether the audit key made it, and nobody changed it."""
    return hmac.compare_digest(mac_of(key, seal), seal.mac)


class Digest:
    """The digest of events, added in the order of their transactions and ids."""

    def __init__(self) -> None:
        self.events = 0
        self._hash = hashlib.sha256()

    def add(self, events: Iterable[Row[Any]]) -> None:
        """Add events. Each has all that its row has."""
        for event in events:
            self._hash.update(orjson.dumps(tuple(event)) + b"\n")
            self.events += 1

    @property
    def value(self) -> bytes:
        """The digest of what was added."""
        return self._hash.digest()


@dataclass(frozen=True, slots=True)
class Now:
    """`horizon`: the transactions below it have ended, and what they wrote is seen."""

    horizon: int
    at: datetime
    server: str
    restored_at: datetime | None


_NOW = text("""
    SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS horizon, now() AS at,
        (SELECT system_identifier::text FROM pg_control_system()) AS server,
        (SELECT max(at) FROM restores) AS restored_at
""")


async def now(connection: AsyncConnection) -> Now:
    """What is so in this moment, by the database."""
    return Now(**(await connection.execute(_NOW)).one()._asdict())


async def may_seal(connection: AsyncConnection) -> bool:
    """Whether this transaction alone may seal."""
    return bool(
        await connection.scalar(
            text("SELECT pg_try_advisory_xact_lock(hashtextextended('audit_seals', 0))")
        )
    )


async def hold_the_trail(connection: AsyncConnection) -> None:
    """Wait for those who add events now, and let others wait until this transaction ends.

    Raises SQLAlchemy's OperationalError after a second.
    """
    await connection.execute(text("SELECT hold_the_audit_trail()"))


_EVENTS = """
    SELECT transaction_id::text::bigint AS transaction_id, id, at, actor, action, pseudonym,
        upload_id, credential_id
    FROM audit_events
    WHERE id > :after_id AND transaction_id >= CAST(CAST(:start AS text) AS xid8)
"""
_ORDER = " ORDER BY audit_events.transaction_id, id"
_SOME = text(
    _EVENTS + " AND transaction_id < CAST(CAST(:end AS text) AS xid8)" + _ORDER + " LIMIT :limit"
)
_UP_TO_ID = text(_EVENTS + " AND id <= :last_id" + _ORDER)
_LAST_ID = text("SELECT coalesce(max(id), :first) FROM audit_events")


async def some_events(
    connection: AsyncConnection, *, after_id: int, start: int, end: int, limit: int | None
) -> list[Row[Any]]:
    """The first events of the transactions from `start` to before `end`."""
    found = await connection.execute(
        _SOME, {"after_id": after_id, "start": str(start), "end": str(end), "limit": limit}
    )
    return list(found)


async def stream_events(
    connection: AsyncConnection, *, after_id: int, last_id: int, start: int = 0
) -> AsyncIterator[Row[Any]]:
    """The events between two ids, in the order of their transactions."""
    rows = await connection.stream(
        _UP_TO_ID, {"after_id": after_id, "last_id": last_id, "start": str(start)}
    )
    async for row in rows:
        yield row


async def last_id(connection: AsyncConnection) -> int:
    """The greatest id of an event."""
    return int(await connection.scalar(_LAST_ID, {"first": FIRST_ID}) or 0)


_SEALS = """
    SELECT number, mac, previous_mac, at, begins, after_id, server,
        from_transaction::text::bigint AS from_transaction,
        to_transaction::text::bigint AS to_transaction, events, digest
    FROM audit_seals
"""
_LATEST = text(_SEALS + " ORDER BY number DESC, mac OFFSET :skip LIMIT :limit")
_ALL = text(_SEALS + " ORDER BY number, mac")
_SERIES = text(_SEALS + f" WHERE begins = '{RESTORED}' ORDER BY number, mac")


def _read(row: Row[Any]) -> Seal:
    found = row._asdict()
    for name in ("mac", "previous_mac", "digest"):
        found[name] = bytes(found[name])
    return Seal(**found)


async def last_seal(connection: AsyncConnection, key: bytes) -> Seal | None:
    """The last seal that the key made; what else somebody added is passed over."""
    skip = 0
    while rows := list(await connection.execute(_LATEST, {"skip": skip, "limit": _PAGE})):
        for seal in map(_read, rows):
            if is_believed(key, seal):
                return seal
        skip += _PAGE
    return None


async def series_after_restores(connection: AsyncConnection, key: bytes) -> list[Seal]:
    """The first seal of each series that began with a restore, of those that the key made."""
    seals = map(_read, await connection.execute(_SERIES))
    return [seal for seal in seals if is_believed(key, seal)]


async def stream_seals(connection: AsyncConnection) -> AsyncIterator[Seal]:
    """All seals by their numbers, the false ones too."""
    rows = await connection.stream(_ALL)
    async for row in rows:
        yield _read(row)


_INSERT = text("""
    INSERT INTO audit_seals (number, mac, previous_mac, at, begins, after_id, server,
        from_transaction, to_transaction, events, digest)
    VALUES (:number, :mac, :previous_mac, :at, :begins, :after_id, :server,
        CAST(CAST(:from_transaction AS text) AS xid8), CAST(CAST(:to_transaction AS text) AS xid8),
        :events, :digest)
""")


async def add_seal(connection: AsyncConnection, seal: Seal) -> None:
    """Add a seal."""
    values = {each.name: getattr(seal, each.name) for each in fields(seal)}
    for name in ("from_transaction", "to_transaction"):
        values[name] = str(values[name])
    await connection.execute(_INSERT, values)
