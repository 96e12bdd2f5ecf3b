"""Secrets that are kept as hashes, and end when they should."""

import hashlib
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select, text
from uuid_utils.compat import uuid4

from tests.keys import KEY_RING
from tests.uplift.ledger import rows
from uplift.ledger import credentials
from uplift.ledger.credentials import BACKEND, CredentialRow, Scope
from uplift.ledger.database import Database
from uplift.ledger.tables import Credential
from uplift.ledger.users import UserRow
from uplift.sealing import KeyRing


async def add_key(database: Database, *scopes: Scope) -> tuple[UUID, str]:
    async with database.transaction() as connection:
        return await credentials.add_api_key(connection, KEY_RING, "backend 1", frozenset(scopes))


async def add_token(database: Database, user: UserRow, seconds: float = 60) -> str:
    async with database.transaction() as connection:
        return (await credentials.add_device_token(connection, KEY_RING, user.id, seconds))[0]


async def find(database: Database, secret: str) -> CredentialRow | None:
    async with database.transaction() as connection:
        return await credentials.find_credential(connection, KEY_RING, secret)


async def revoke(database: Database, credential_id: UUID) -> bool:
    async with database.transaction() as connection:
        return await credentials.revoke(connection, credential_id)


async def test_an_api_key_is_found_by_its_secret(database: Database) -> None:
    key_id, secret = await add_key(database, Scope.OPERATOR, Scope.SUBMIT)
    assert await find(database, secret) == CredentialRow(
        key_id, "backend 1", frozenset({"submit", "operator"}), None, None
    )


async def test_a_device_token_is_found_with_its_user(database: Database, alice: UserRow) -> None:
    found = await find(database, await add_token(database, alice))
    assert found is not None
    assert (found.user_id, found.app_user_id) == (alice.id, "alice")
    assert found.scopes == {"device"}


async def test_a_secret_is_kept_only_as_its_hash(database: Database, alice: UserRow) -> None:
    secrets = [(await add_key(database, Scope.SUBMIT))[1], await add_token(database, alice)]
    async with database.transaction() as connection:
        kept = str((await connection.execute(select(*Credential.__table__.c))).all())
        hashes = set(await connection.scalars(select(Credential.secret_hash)))
    assert hashes == {hashlib.sha256(secret.encode()).digest() for secret in secrets}
    for secret in secrets:
        assert secret not in kept
        # What is random in it, which may contain the same sign.
        assert secret.split("_", 2)[2] not in kept


async def test_no_two_secrets_are_alike_and_each_says_what_it_is(
    database: Database, alice: UserRow
) -> None:
    keys = {(await add_key(database, Scope.SUBMIT))[1] for _ in range(5)}
    tokens = {await add_token(database, alice) for _ in range(5)}
    assert len(keys | tokens) == 10
    assert all(key.startswith("uplift_key_") and len(key) >= 11 + 43 for key in keys)
    assert all(token.startswith("uplift_device_") and len(token) >= 14 + 43 for token in tokens)


async def test_a_wrong_secret_finds_nothing(database: Database) -> None:
    _, secret = await add_key(database, Scope.SUBMIT)
    for wrong in ("", secret[:-1], secret + "a", secret.upper(), "é", "\0"):
        assert await find(database, wrong) is None


async def test_a_revoked_credential_ends_at_once_and_only_once(database: Database) -> None:
    key_id, secret = await add_key(database, Scope.SUBMIT)
    other_id, other = await add_key(database, Scope.SUBMIT)
    assert await revoke(database, key_id) is True
    assert await find(database, secret) is None
    assert await revoke(database, key_id) is False
    assert await revoke(database, uuid4()) is False
    found = await find(database, other)
    assert found is not None
    assert found.id == other_id


async def test_a_write_does_not_bring_a_revoked_credential_back(database: Database) -> None:
    key_id, secret = await add_key(database, Scope.SUBMIT)
    await revoke(database, key_id)
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE credentials SET revoked_at = NULL"))
    assert await find(database, secret) is None


async def test_a_device_token_ends_with_its_time(database: Database, alice: UserRow) -> None:
    async with database.transaction() as connection:
        ends = (await credentials.add_device_token(connection, KEY_RING, alice.id, 90)).expires_at
        now = (await connection.execute(select(func.now()))).scalar_one()
    assert ends - now == timedelta(seconds=90)
    assert await find(database, await add_token(database, alice, -1)) is None


async def test_a_device_token_ends_with_its_user(database: Database, alice: UserRow) -> None:
    secret = await add_token(database, alice)
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE users SET erased_at = now(), wrapped_key = NULL"))
    assert await find(database, secret) is None


async def test_api_keys_are_listed_with_the_revoked_and_without_device_tokens(
    database: Database, alice: UserRow
) -> None:
    first, _ = await add_key(database, Scope.SUBMIT)
    second, _ = await add_key(database, Scope.OPERATOR)
    await add_token(database, alice)
    await revoke(database, first)
    async with database.transaction() as connection:
        listed = await credentials.list_api_keys(connection)
    assert [(row[0], row[1], row[2]) for row in listed] == [
        (first, "backend 1", ["submit"]),
        (second, "backend 1", ["operator"]),
    ]
    assert [row.revoked_at is None for row in listed] == [False, True]


async def test_an_api_key_may_end_by_itself(database: Database) -> None:
    found = []
    for seconds in (60.0, -1.0, None):
        async with database.transaction() as connection:
            _, secret = await credentials.add_api_key(
                connection, KEY_RING, "one", BACKEND, seconds=seconds
            )
        found.append(await find(database, secret) is not None)
    assert found == [True, False, True]


async def test_only_the_valid_device_tokens_of_the_user_are_listed(
    database: Database, alice: UserRow, key_ring: KeyRing
) -> None:
    bob = await rows.add_user(database, key_ring, "bob")
    async with database.transaction() as connection:
        for user, name, seconds in (
            (alice, "phone", 60.0),
            (alice, "old", -1.0),
            (alice, "lost", 60.0),
            (bob, "other", 60.0),
        ):
            made = await credentials.add_device_token(
                connection, KEY_RING, user.id, seconds, name=name
            )
            if name == "lost":
                await credentials.revoke(connection, made.id)
        listed = await credentials.list_device_tokens(connection, alice.id)
    assert [each.name for each in listed] == ["phone"]
