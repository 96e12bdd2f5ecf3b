"""Grants: sealed, versioned, and refreshed by one at a time."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import select, text

from tests.uplift.ledger import rows
from uplift.errors import SealError
from uplift.ledger import grants
from uplift.ledger.database import Database
from uplift.ledger.grants import GrantRow
from uplift.ledger.tables import Grant
from uplift.ledger.token_pair import TokenPair
from uplift.ledger.users import UserRow
from uplift.sealing import KeyRing, UserKey

FIRST = TokenPair("canary-access", "canary-refresh", 7200.0)
SECOND = TokenPair("second-access", None, 60.0)


@pytest.fixture
def key(alice: UserRow, key_ring: KeyRing) -> UserKey:
    return alice.key(key_ring)


async def put(
    database: Database, user: UserRow, key: UserKey, tokens: TokenPair = FIRST, **more: Any
) -> int | None:
    async with database.transaction() as connection:
        return await grants.put_grant(
            connection, user.id, key, tokens, more.pop("origin", "backend"), **more
        )


async def get(database: Database, user: UserRow, key: UserKey) -> GrantRow:
    async with database.transaction() as connection:
        grant = await grants.get_grant(connection, user.id, key)
    assert grant is not None
    return grant


async def start(database: Database, user: UserRow, version: int, seconds: float = 30) -> bool:
    async with database.transaction() as connection:
        return await grants.start_refresh(connection, user.id, version, seconds)


async def end(database: Database, user: UserRow, version: int) -> bool:
    async with database.transaction() as connection:
        return await grants.end_grant(connection, user.id, version)


async def test_a_user_without_a_grant_has_none(
    database: Database, alice: UserRow, key: UserKey
) -> None:
    async with database.transaction() as connection:
        assert await grants.get_grant(connection, alice.id, key) is None


async def test_a_grant_is_read_back_as_it_was_put(
    database: Database, alice: UserRow, key: UserKey
) -> None:
    assert await put(database, alice, key, origin="user_management") == 1
    grant = await get(database, alice, key)
    assert (grant.active, grant.origin, grant.version) == (True, "user_management", 1)
    assert (grant.tokens.access_token, grant.tokens.refresh_token) == (
        "canary-access",
        "canary-refresh",
    )
    assert 7190 < grant.tokens.expires_in <= 7200


async def test_a_grant_may_have_no_refresh_token_and_be_over(
    database: Database, alice: UserRow, key: UserKey
) -> None:
    await put(database, alice, key, TokenPair("a", None, -5.0))
    tokens = (await get(database, alice, key)).tokens
    assert tokens.refresh_token is None
    assert tokens.expires_in <= -5


async def test_tokens_are_sealed_for_their_user_alone(
    database: Database, alice: UserRow, key: UserKey, key_ring: KeyRing
) -> None:
    bob = await rows.add_user(database, key_ring, "bob")
    await put(database, alice, key)
    await put(database, bob, bob.key(key_ring))
    async with database.transaction() as connection:
        kept = (await connection.execute(select(*Grant.__table__.c))).all()
        assert b"canary" not in b"".join(bytes(row.sealed_tokens) for row in kept)
        assert "canary" not in str(kept)
        await connection.execute(
            text(
                "UPDATE grants SET sealed_tokens ="
                " (SELECT sealed_tokens FROM grants WHERE user_id = :alice)"
            ),
            {"alice": alice.id},
        )
    with pytest.raises(SealError):
        await get(database, bob, bob.key(key_ring))
    with pytest.raises(SealError):
        await get(database, bob, key)


async def test_tokens_do_not_show_in_repr(database: Database, alice: UserRow, key: UserKey) -> None:
    await put(database, alice, key)
    grant = await get(database, alice, key)
    assert "canary" not in repr(grant) + repr(grant.tokens) + repr([grant])


async def test_every_new_pair_of_tokens_is_a_new_version(
    database: Database, alice: UserRow, key: UserKey
) -> None:
    versions = [await put(database, alice, key) for _ in range(3)]
    assert versions == [1, 2, 3]


async def test_new_tokens_in_place_of_a_version_are_kept_only_if_it_still_is_that_version(
    database: Database, alice: UserRow, key: UserKey
) -> None:
    await put(database, alice, key)
    assert await put(database, alice, key, SECOND, instead_of=1) == 2
    assert await put(database, alice, key, FIRST, instead_of=1) is None
    assert (await get(database, alice, key)).tokens.access_token == "second-access"


async def test_new_tokens_in_place_of_a_version_that_never_was_are_not_kept(
    database: Database, alice: UserRow, key: UserKey
) -> None:
    assert await put(database, alice, key, instead_of=1) is None
    async with database.transaction() as connection:
        assert await grants.get_grant(connection, alice.id, key) is None


async def test_of_two_that_replace_one_version_at_once_one_wins(
    database: Database, alice: UserRow, key: UserKey
) -> None:
    await put(database, alice, key)
    put_in = await asyncio.gather(
        *(put(database, alice, key, SECOND, instead_of=1) for _ in range(5))
    )
    assert sorted(put_in, key=str) == [2, None, None, None, None]


async def test_one_at_a_time_refreshes_a_version(
    database: Database, alice: UserRow, key: UserKey
) -> None:
    await put(database, alice, key)
    started = await asyncio.gather(*(start(database, alice, 1) for _ in range(6)))
    assert sorted(started) == [False] * 5 + [True]


async def test_a_version_that_is_no_longer_there_is_not_refreshed(
    database: Database, alice: UserRow, key: UserKey
) -> None:
    assert not await start(database, alice, 1)
    await put(database, alice, key)
    await put(database, alice, key)
    assert not await start(database, alice, 1)


async def test_a_refresh_that_was_never_finished_can_be_started_again_after_its_time(
    database: Database, alice: UserRow, key: UserKey
) -> None:
    await put(database, alice, key)
    assert await start(database, alice, 1, seconds=0.0)
    assert await start(database, alice, 1, seconds=60.0)
    assert not await start(database, alice, 1)


async def test_a_refresh_that_failed_lets_another_try(
    database: Database, alice: UserRow, key: UserKey
) -> None:
    await put(database, alice, key)
    assert await start(database, alice, 1)
    async with database.transaction() as connection:
        await grants.end_refresh(connection, alice.id, 1)
    assert await start(database, alice, 1)


async def test_a_late_failure_does_not_end_the_refresh_of_a_newer_version(
    database: Database, alice: UserRow, key: UserKey
) -> None:
    await put(database, alice, key)
    await put(database, alice, key)
    assert await start(database, alice, 2)
    async with database.transaction() as connection:
        await grants.end_refresh(connection, alice.id, 1)
    assert not await start(database, alice, 2)


async def test_new_tokens_end_a_refresh(database: Database, alice: UserRow, key: UserKey) -> None:
    await put(database, alice, key)
    assert await start(database, alice, 1)
    await put(database, alice, key, instead_of=1)
    assert await start(database, alice, 2)


async def test_a_dead_grant_waits_for_its_user(
    database: Database, alice: UserRow, key: UserKey
) -> None:
    await put(database, alice, key)
    assert await end(database, alice, 1)
    assert not (await get(database, alice, key)).active
    await put(database, alice, key)
    assert (await get(database, alice, key)).active


async def test_a_grant_that_is_newer_than_the_one_that_was_tried_lives_on(
    database: Database, alice: UserRow, key: UserKey
) -> None:
    await put(database, alice, key)
    await put(database, alice, key)
    assert not await end(database, alice, 1)
    assert (await get(database, alice, key)).active


async def test_tokens_replace_only_their_own_users_grant(
    database: Database, alice: UserRow, key: UserKey, key_ring: KeyRing
) -> None:
    bob = await rows.add_user(database, key_ring, "bob")
    await put(database, alice, key)
    await put(database, bob, bob.key(key_ring))
    assert await put(database, alice, key, SECOND, instead_of=1) == 2
    assert (await get(database, bob, bob.key(key_ring))).version == 1
