"""Destinations under the addresses that they have, and what is forgotten with another one.

An address is a destination's bases, tenant and mode. Under a known name, another address may be
another server, which has nothing of what was delivered: so nothing is sent there until a person
decides.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.audit import Action, Actor, note
from uplift.ledger.parameters import Rows

Addresses = Mapping[str, Mapping[str, Any]]
"""The addresses of destinations, by their names."""

_FIRST_RECORD = UUID(int=0)


@dataclass(frozen=True, slots=True)
class DestinationRow:
    """A destination that the ledger knows; how many users have it, and what is left to send."""

    name: str
    address: Mapping[str, Any]
    since: datetime
    users: int
    unfinished: int


_KNOWN = Rows("known", name="text", address="jsonb")

_NOTE = _KNOWN.statement("""
    INSERT INTO destinations (name, address) SELECT name, address FROM {known} AS known
    ORDER BY name ON CONFLICT DO NOTHING
""")
_CHANGED = _KNOWN.statement("""
    SELECT d.name FROM {known} AS known
    JOIN destinations AS d ON d.name = known.name AND d.address <> known.address
""")


async def find_changed(connection: AsyncConnection, addresses: Addresses) -> frozenset[str]:
    """Those of these destinations that the ledger knows under another address."""
    return frozenset(await connection.scalars(_CHANGED, _known(addresses)))


async def note_new(connection: AsyncConnection, addresses: Addresses) -> None:
    """Note those of these destinations that the ledger does not know."""
    await connection.execute(_NOTE, _known(addresses))


def _known(addresses: Addresses) -> dict[str, object]:
    return _KNOWN.parameter(
        {"name": name, "address": address} for name, address in addresses.items()
    )


async def read_addresses(connection: AsyncConnection) -> Addresses:
    """The addresses of all destinations that the ledger knows, also of those that no settings have
    any more."""
    rows = await connection.execute(text("SELECT name, address FROM destinations"))
    return {row.name: row.address for row in rows}


_LIST = text("""
    SELECT name, address, since,
        (SELECT count(*) FROM users WHERE destination = d.name AND erased_at IS NULL) AS users,
        (SELECT count(*) FROM uploads WHERE destination = d.name
            AND state IN ('parked', 'queued', 'sending')) AS unfinished
    FROM destinations AS d ORDER BY name
""")


async def list_destinations(connection: AsyncConnection) -> list[DestinationRow]:
    """All destinations that the ledger knows, by their names."""
    return [DestinationRow(**row._mapping) for row in await connection.execute(_LIST)]  # noqa: SLF001


_CHANGE = text("""
    INSERT INTO destinations (name, address) VALUES (:name, CAST(:address AS jsonb))
    ON CONFLICT (name) DO UPDATE SET address = excluded.address, since = now()
""")


async def change_address(
    connection: AsyncConnection, name: str, address: str, *, by: Actor
) -> None:
    """Note that a destination has this address from now on, as JSON: a person has decided so."""
    await connection.execute(_CHANGE, {"name": name, "address": address})
    await note(connection, by, Action.DESTINATION_CHANGED)


# By the primary key, since one destination may have nearly all of them.
_FORGET = text("""
    WITH walked AS (
        SELECT record_id FROM deliveries WHERE record_id > :after
        ORDER BY record_id LIMIT :limit
    ), gone AS (
        DELETE FROM deliveries AS d USING walked
        WHERE d.record_id = walked.record_id AND d.destination = :name
    )
    SELECT record_id FROM walked ORDER BY record_id DESC LIMIT 1
""")


async def forget_some(
    connection: AsyncConnection, name: str, *, after: UUID = _FIRST_RECORD, limit: int
) -> UUID | None:
    """Forget what was delivered to a destination, of some records; where to go on, None at the
    end."""
    last: UUID | None = await connection.scalar(
        _FORGET, {"name": name, "after": after, "limit": limit}
    )
    return last


_NEW_SYNC_TOKENS = text("""
    UPDATE users SET sync_token = gen_random_uuid()
    WHERE destination = ANY(CAST(:names AS text[])) AND erased_at IS NULL
""")


async def ask_for_all(connection: AsyncConnection, names: Collection[str]) -> int:
    """Give the users of these destinations new sync tokens; how many users."""
    return (await connection.execute(_NEW_SYNC_TOKENS, {"names": list(names)})).rowcount
