"""A key ring that does not open the ledger's data keys is an error at start, and writes nothing."""

import re

import pytest
import redis.asyncio
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from tests import factories
from uplift.destinations.configured import configured_destinations
from uplift.destinations.http_client import open_http
from uplift.errors import ConfigurationError
from uplift.key_check import KeyCheck, compare, key_use
from uplift.ledger import users
from uplift.ledger.database import Database
from uplift.ledger.user_keys import KeyRow
from uplift.ledger.users import key_context
from uplift.sealing import KeyRing, UserKey
from uplift.settings import Settings
from uplift.tokens.quota import Quota
from uplift.tokens.token_endpoint import TokenEndpoint
from uplift.users.provision import Provisioner
from uplift.wiring import check_ledger, open_relay

pytestmark = pytest.mark.usefixtures("no_users_left")

A, B, OTHER_A = KeyRing.new_entry("a"), KeyRing.new_entry("b"), KeyRing.new_entry("a")


def sample(key_ring: KeyRing) -> KeyRow:
    user_id = factories.new_id()
    return KeyRow(user_id, key_ring.wrap(UserKey.generate(), key_context(user_id)))


_OF_A, _OF_B = sample(KeyRing.parse(A)), sample(KeyRing.parse(B))


@pytest.mark.parametrize(
    ("key_ring", "users_by_id", "samples", "said"),
    [
        pytest.param(A, {}, {}, None, id="nobody-yet"),
        pytest.param(A, {"a": 2}, {"a": [_OF_A, _OF_A]}, None, id="all-under-the-key-in-use"),
        pytest.param(f"{B},{A}", {"a": 2}, {"a": [_OF_A]}, None, id="all-under-a-former-key"),
        pytest.param(
            B, {"a": 2, "b": 1}, {"b": [_OF_B]}, "not hold the master key 'a'.*2 user", id="missing"
        ),
        pytest.param(
            OTHER_A, {"a": 3}, {"a": [_OF_A]}, "another key under the id 'a'.*3 user", id="another"
        ),
        pytest.param(A, {"": 1}, {}, "not hold the master key ''", id="a-row-without-an-id"),
    ],
)
def test_a_key_ring_is_judged_by_ids_and_samples(
    key_ring: str, users_by_id: dict[str, int], samples: dict[str, list[KeyRow]], said: str | None
) -> None:
    problem = compare(KeyRing.parse(key_ring), users_by_id, samples).problem

    assert (problem is None) == (said is None)
    assert said is None or re.search(said, problem or "")


def test_a_key_of_another_among_the_newest_alone_is_found() -> None:
    """Two processes may have begun on an empty ledger with two keys of one id."""
    mixed = {"a": [_OF_A, sample(KeyRing.parse(OTHER_A))]}
    assert compare(KeyRing.parse(A), {"a": 2}, mixed).different == {"a"}
    assert compare(KeyRing.parse(OTHER_A), {"a": 2}, mixed).different == {"a"}


def with_keys(settings: Settings, keys: str) -> Settings:
    return settings.model_copy(update={"master_keys": SecretStr(keys)})


@pytest.fixture
async def alice(database: Database, settings: Settings) -> None:
    """A user under the key a."""
    async with open_relay(with_keys(settings, A)) as relay:
        await factories.user_without_grant(relay)


async def rows(database: Database) -> list[object]:
    async with database.transaction() as connection:
        return [tuple(row) for row in await connection.execute(text("SELECT * FROM users"))]


@pytest.mark.parametrize("keys", [B, OTHER_A, f"{B},{OTHER_A}"], ids=["missing", "other", "both"])
async def test_a_relay_does_not_open_with_keys_that_do_not_fit(
    alice: None, database: Database, settings: Settings, keys: str
) -> None:
    before = await rows(database)

    with pytest.raises(ConfigurationError, match=r"'a'.*1 user.*back") as caught:
        async with open_relay(with_keys(settings, keys)):
            pass
    with pytest.raises(ConfigurationError, match="'a'"):
        await check_ledger(with_keys(settings, keys))

    for entry in keys.split(","):
        assert entry.partition(":")[2] not in str(caught.value)
    assert await rows(database) == before


@pytest.mark.parametrize("keys", [A, f"{B},{A}", f"{A},{B}"], ids=["alone", "promoted", "behind"])
async def test_it_opens_with_any_key_ring_that_has_the_key(
    alice: None, settings: Settings, keys: str
) -> None:
    async with open_relay(with_keys(settings, keys)) as relay:
        await relay.keys.ensure()


async def test_an_erased_users_key_is_missed_by_nobody(
    alice: None, database: Database, settings: Settings
) -> None:
    async with database.transaction() as connection:
        await connection.execute(
            text("UPDATE users SET wrapped_key = NULL, app_user_id = NULL, erased_at = now()")
        )
    async with open_relay(with_keys(settings, B)) as relay:
        await relay.keys.ensure()


async def test_of_each_key_the_oldest_and_the_newest_user_are_opened(database: Database) -> None:
    async with database.transaction() as connection:
        for name, keys in (("first", OTHER_A), ("second", A), ("last", A)):
            await users.add_user(connection, name, KeyRing.parse(keys))
        use = await key_use(connection, KeyRing.parse(f"{A},{B}"))
    assert use.users == {"a": 3}
    assert not use.missing
    assert use.different == {"a"}


async def test_postgres_away_at_start_stops_nothing_and_no_key_is_wrapped_unchecked(
    alice: None, database: Database, settings: Settings
) -> None:
    """The key ring is wrong, and nobody knew at start. The first who wants to write finds it."""
    nowhere = Database.connect(
        settings.model_copy(update={"database_url": SecretStr("postgresql://127.0.0.1:1/none")})
    )
    unchecked = KeyCheck(nowhere, KeyRing.parse(OTHER_A))
    await unchecked.at_start()
    with pytest.raises(SQLAlchemyError):
        await unchecked.ensure()
    await nowhere.close()

    # The same process later, when PostgreSQL is back.
    back = KeyCheck(database, KeyRing.parse(OTHER_A))
    before = await rows(database)
    async with (
        open_http(connections=1) as http,
        redis.asyncio.from_url("redis://127.0.0.1:1") as counter,
    ):
        endpoint = TokenEndpoint(http, settings, Quota(counter, settings))
        provisioner = Provisioner(
            database, KeyRing.parse(OTHER_A), endpoint, back, configured_destinations(settings)
        )
        with pytest.raises(ConfigurationError, match="'a'"):
            await provisioner.provision("bob")
    assert await rows(database) == before


async def test_a_key_ring_that_fitted_is_checked_again_only_on_request(
    alice: None, database: Database
) -> None:
    now = 1000.0
    check = KeyCheck(database, KeyRing.parse(A), now=lambda: now)
    await check.ensure()
    async with database.transaction() as connection:
        await users.add_user(connection, "bob", KeyRing.parse(B))

    await check.ensure()
    now += 59
    await check.ensure(fresh=True)  # the last check was less than a minute ago
    now += 2
    await check.ensure()
    with pytest.raises(ConfigurationError, match="'b'"):
        await check.ensure(fresh=True)
    with pytest.raises(ConfigurationError, match="'b'"):
        await check.ensure()
