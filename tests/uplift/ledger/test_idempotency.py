"""Idempotency keys in the ledger: claimed once, for a day, by one caller."""

import asyncio
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.factories import new_id
from tests.keys import KEY_RING
from uplift.ledger import idempotency
from uplift.ledger.credentials import BACKEND, add_api_key
from uplift.ledger.database import Database
from uplift.ledger.idempotency import CallersKey


@pytest.fixture
async def callers(database: Database) -> list[UUID]:
    async with database.transaction() as connection:
        return [(await add_api_key(connection, KEY_RING, name, BACKEND))[0] for name in "ab"]


async def claim(database: Database, key: CallersKey, upload_id: UUID, **more: Any) -> bool:
    async with database.transaction() as connection:
        return await idempotency.claim(connection, key, b"digest", upload_id, **more)


async def age(database: Database, by: str) -> None:
    async with database.transaction() as connection:
        await connection.execute(
            text("UPDATE idempotency_keys SET expires_at = expires_at - CAST(:by AS interval)"),
            {"by": by},
        )


async def test_a_key_is_claimed_once_by_each_caller(
    database: Database, callers: list[UUID]
) -> None:
    first, other = (CallersKey(caller, "k") for caller in callers)
    upload_id = new_id()
    assert await claim(database, first, upload_id)
    assert not await claim(database, first, new_id())
    assert await claim(database, other, new_id())
    assert await claim(database, CallersKey(callers[0], "K"), new_id())
    async with database.transaction() as connection:
        known = await idempotency.find(connection, first)
        assert await idempotency.find(connection, CallersKey(callers[0], "none")) is None
    assert known is not None
    assert (known.request_digest, known.upload_id) == (b"digest", upload_id)


async def test_a_key_may_be_claimed_again_after_a_day_and_not_before(
    database: Database, callers: list[UUID]
) -> None:
    key = CallersKey(callers[0], "k")
    assert await claim(database, key, new_id())
    await age(database, "23 hours 59 minutes")
    assert not await claim(database, key, new_id())
    await age(database, "1 minute")
    assert await claim(database, key, new_id())
    assert not await claim(database, key, new_id())


async def test_whoever_has_the_same_key_waits_for_the_transaction_that_claimed_it(
    database: Database, callers: list[UUID]
) -> None:
    key = CallersKey(callers[0], "k")
    twins = []
    for fails in (True, False):
        with suppress(ZeroDivisionError):
            async with database.transaction() as connection:
                assert await idempotency.claim(connection, key, b"digest", new_id())
                twins.append(asyncio.create_task(claim(database, key, new_id())))
                assert not (await asyncio.wait(twins, timeout=0.1))[0]
                _ = 1 / (not fails)
        # Where the first came to nothing, the key is the twin's.
        assert await twins.pop() is fails
        async with database.transaction() as connection:
            await connection.execute(text("DELETE FROM idempotency_keys"))


async def test_a_caller_whose_credential_is_gone_claims_nothing(database: Database) -> None:
    assert not await claim(database, CallersKey(new_id(), "k"), new_id())


async def test_expired_keys_are_purged_and_no_others(
    database: Database, callers: list[UUID]
) -> None:
    for number in range(5):
        await claim(database, CallersKey(callers[0], f"old {number}"), new_id())
    await age(database, "1 day")
    await claim(database, CallersKey(callers[0], "new"), new_id())
    removed = []
    for _ in range(3):
        async with database.transaction() as connection:
            removed.append(await idempotency.purge_expired(connection, limit=3))
    assert removed == [3, 2, 0]
    async with database.transaction() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM idempotency_keys")) == 1
