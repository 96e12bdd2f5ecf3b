"""Who holds a secret: found together, and never from memory."""

import asyncio

from sqlalchemy import event

from tests.keys import KEY_RING
from uplift.intake.authenticate import Authenticator
from uplift.ledger.credentials import Scope, add_api_key, revoke
from uplift.ledger.database import Database


async def test_each_of_many_who_ask_at_once_gets_their_own_credential(database: Database) -> None:
    async with database.transaction() as connection:
        keys = [
            await add_api_key(connection, KEY_RING, f"k{n}", frozenset({Scope.BACKEND}))
            for n in (1, 2)
        ]
    authenticator = Authenticator(database, KEY_RING)
    await authenticator.find("uplift_key_wrong")  # reads the credential key, which stays
    asked = []
    event.listen(
        database._engine.sync_engine, "before_cursor_execute", lambda *args: asked.append(args[2])
    )
    secrets = [keys[0][1], keys[1][1], "uplift_key_wrong", "", "\N{SNOWMAN}"] * 10
    found = await asyncio.gather(*map(authenticator.find, secrets))
    ids = [each.id if each else None for each in found]
    assert ids == [keys[0][0], keys[1][0], None, None, None] * 10
    assert len(asked) <= 2


async def test_a_revoked_credential_is_not_found_by_whoever_asks_after(database: Database) -> None:
    async with database.transaction() as connection:
        key_id, secret = await add_api_key(connection, KEY_RING, "k", frozenset({Scope.BACKEND}))
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
