"""Who holds a secret: found together, and never from memory."""

import asyncio
from datetime import datetime

from bench.sent_statements import sent_by
from tests.keys import KEY_RING
from uplift.intake.authenticate import Authenticator
from uplift.ledger.credentials import BACKEND, add_api_key, list_api_keys, revoke
from uplift.ledger.database import Database


async def test_each_of_many_who_ask_at_once_gets_their_own_credential(database: Database) -> None:
    async with database.transaction() as connection:
        keys = [await add_api_key(connection, KEY_RING, f"k{n}", BACKEND) for n in (1, 2)]
    authenticator = Authenticator(database, KEY_RING)
    for _, key in keys:  # reads the credential key, which stays, and notes the use
        await authenticator.find(key)
    secrets = [keys[0][1], keys[1][1], "uplift_key_wrong", "", "\N{SNOWMAN}"] * 10
    with sent_by() as asked:
        found = await asyncio.gather(*map(authenticator.find, secrets))
    ids = [each.id if each else None for each in found]
    assert ids == [keys[0][0], keys[1][0], None, None, None] * 10
    assert 1 <= len(asked) <= 2


async def test_the_last_use_of_a_key_is_noted_once_a_minute(database: Database) -> None:
    now = 0.0
    async with database.transaction() as connection:
        key_id, secret = await add_api_key(connection, KEY_RING, "k", BACKEND)
    authenticator = Authenticator(database, KEY_RING, now=lambda: now)

    async def last_used() -> datetime | None:
        await authenticator.find(secret)
        async with database.transaction() as connection:
            (key,) = await list_api_keys(connection)
        assert key.id == key_id
        return key.last_used_at

    first = await last_used()
    assert first is not None
    now = 59.0
    assert await last_used() == first
    now = 60.0
    again = await last_used()
    assert again is not None
    assert again > first


async def test_a_revoked_credential_is_not_found_by_whoever_asks_after(database: Database) -> None:
    async with database.transaction() as connection:
        key_id, secret = await add_api_key(connection, KEY_RING, "k", BACKEND)
    authenticator = Authenticator(database, KEY_RING)
    stop = asyncio.Event()

    async def ask() -> None:
        while not stop.is_set():
            await authenticator.find(secret)

    busy = [asyncio.create_task(ask()) for _ in range(4)]
    assert await authenticator.find(secret) is not None
    async with database.transaction() as connection:
        await revoke(connection, key_id)
    assert await authenticator.find(secret) is None
    stop.set()
    await asyncio.gather(*busy)
