"""Whoever writes the ledger without a master key forges no credential."""

import asyncio
import hashlib

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from structlog.testing import capture_logs
from uuid_utils.compat import uuid4

from tests.keys import KEY_RING
from tests.uplift.ledger import rows
from uplift.intake.authenticate import Authenticator
from uplift.ledger import credentials, deployment_keys
from uplift.ledger.credentials import BACKEND
from uplift.ledger.database import Database
from uplift.ledger.users import UserRow
from uplift.maintenance.rotate_keys import Rotator
from uplift.sealing import KeyRing

FORGED = "uplift_key_forged"


async def make(database: Database, user: UserRow) -> tuple[str, str]:
    """An API key and a device token."""
    async with database.transaction() as connection:
        _, key = await credentials.add_api_key(connection, KEY_RING, "backend", BACKEND)
        token = await credentials.add_device_token(connection, KEY_RING, user.id, 600)
    return key, token.secret


async def is_valid(database: Database, *secrets: str) -> list[bool]:
    async with database.transaction() as connection:
        return [
            await credentials.find_credential(connection, KEY_RING, secret) is not None
            for secret in secrets
        ]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE credentials SET scopes = scopes || '{operator}'",
        (
            "UPDATE credentials SET expires_at = expires_at + interval '1 us'"
            " WHERE kind = 'device_token'"
        ),
        "UPDATE credentials SET user_id = :bob WHERE kind = 'device_token'",
        "UPDATE credentials SET secret_hash = :hash WHERE kind = 'api_key'",
        "UPDATE credentials SET id = :id WHERE kind = 'api_key'",
        "UPDATE credentials SET name = 'other' WHERE kind = 'api_key'",
        (
            "UPDATE credentials SET kind = 'api_key', user_id = NULL, expires_at = NULL"
            " WHERE kind = 'device_token'"
        ),
        "UPDATE credentials SET mac = ''",
        (
            "INSERT INTO credentials (id, kind, name, secret_hash, scopes, mac)"
            " SELECT :id, kind, name, :hash, scopes, mac FROM credentials WHERE kind = 'api_key'"
        ),
        "UPDATE credentials AS a SET mac = b.mac FROM credentials AS b WHERE a.id <> b.id",
    ],
)
async def test_a_row_that_somebody_wrote_is_not_believed(
    database: Database, alice: UserRow, change: str
) -> None:
    bob = await rows.add_user(database, KEY_RING, "bob")
    key, token = await make(database, alice)
    assert await is_valid(database, key, token) == [True, True]
    async with database.transaction() as connection:
        hash_ = hashlib.sha256(FORGED.encode()).digest()
        values = {"bob": bob.id, "hash": hash_, "id": uuid4()}
        used = {name: value for name, value in values.items() if f":{name}" in change}
        changed = (await connection.execute(text(change), used)).rowcount
    still = await is_valid(database, key, token, FORGED)
    assert still.count(True) == 2 - (0 if change.startswith("INSERT") else changed)
    assert not still[2]
    async with database.transaction() as connection:
        forged = await credentials.forged_credentials(connection, KEY_RING, limit=10)
    assert len(forged) == changed


async def test_another_deployment_key_cannot_be_put_in(database: Database, alice: UserRow) -> None:
    key, _ = await make(database, alice)
    async with database.transaction() as connection:
        await connection.execute(
            text("UPDATE deployment_keys SET wrapped_key = users.wrapped_key FROM users")
        )
    async with database.transaction() as connection:
        with pytest.raises(Exception, match="does not open"):
            await credentials.find_credential(connection, KEY_RING, key)


async def test_a_forged_row_is_counted_each_time_and_logged_once(
    database: Database, alice: UserRow
) -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value("uplift_credentials_not_believed_total") or 0.0

    key, _ = await make(database, alice)
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE credentials SET scopes = '{operator}'"))
    authenticator = Authenticator(database, KEY_RING, now=lambda: 100.0)
    before = counted()
    with capture_logs() as logs:
        for _ in range(3):
            assert await authenticator.find(key) is None
    assert counted() - before == 3
    assert [each["event"] for each in logs] == ["credential_not_believed"]


async def test_rotating_and_destroying_master_keys_touches_no_credential(
    database: Database, alice: UserRow, master_keys: str
) -> None:
    secrets = await make(database, alice)
    new = KeyRing.new_entry("new")
    assert (await Rotator(database, KeyRing.parse(f"{new},{master_keys}")).rotate()).complete
    authenticator = Authenticator(database, KeyRing.parse(new))
    assert [await authenticator.find(secret) is not None for secret in secrets] == [True, True]
    async with database.transaction() as connection:
        wrapped = await deployment_keys.wrapped_keys(connection)
        assert {each.master_id for each in wrapped.values()} == {"new"}
        await connection.execute(text("TRUNCATE users, credentials, deployment_keys CASCADE"))


async def test_of_many_who_make_the_credential_key_one_wins(database: Database) -> None:
    async def made() -> bytes:
        async with database.transaction() as connection:
            return await credentials.credential_key(connection, KEY_RING)

    assert len(set(await asyncio.gather(*[made() for _ in range(6)]))) == 1


async def test_a_row_without_a_mac_cannot_be_written(database: Database, alice: UserRow) -> None:
    await make(database, alice)
    with pytest.raises(IntegrityError):
        async with database.transaction() as connection:
            await connection.execute(text("UPDATE credentials SET mac = NULL"))
