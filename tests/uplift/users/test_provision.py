"""Users are created: here, at 1upHealth, with a grant that works."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr

from tests import factories
from tests.uplift.delivery.delivering import deliver_only
from uplift.destinations.http_client import open_http
from uplift.errors import Conflict, UpstreamUnavailable
from uplift.ledger import grants, users
from uplift.ledger.grants import GrantRow
from uplift.ledger.token_pair import TokenPair
from uplift.lifecycle import State
from uplift.problem_types import ProblemType
from uplift.queues import UPLOADS
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings
from uplift.tokens.token_endpoint import TokenEndpoint
from uplift.users.provision import Provisioner
from uplift.wiring import Relay


@pytest.fixture(scope="module")
def oneup() -> Iterator[SandboxServer]:
    """One simulated 1upHealth for all tests here: stopping one takes longer than most of them."""
    with SandboxServer(SandboxConfig(client_secret=secrets.token_urlsafe(8))) as server:
        yield server


@pytest.fixture
def upstream(oneup: SandboxServer) -> SandboxServer:
    """That 1upHealth, which knows nobody."""
    oneup.reset()
    return oneup


async def grant_of(relay: Relay, name: str = "alice") -> GrantRow | None:
    """The user's grant as the ledger has it."""
    async with relay.database.transaction() as connection:
        user = await users.find_user(connection, name)
        assert user is not None
        return await grants.get_grant(connection, user.id, user.key(relay.key_ring))


async def end_grant(relay: Relay, name: str = "alice") -> None:
    """What an attempt does that finds the user's grant dead."""
    async with relay.database.transaction() as connection:
        user = await users.find_user(connection, name)
        grant = (
            await grants.get_grant(connection, user.id, user.key(relay.key_ring)) if user else None
        )
        assert user is not None
        assert grant is not None
        assert await grants.end_grant(connection, user.id, grant.version)


def asked(upstream: SandboxServer) -> list[str]:
    """The paths that 1upHealth was asked for."""
    return [each["path"].rpartition("/")[2] for each in upstream.requests()]


async def test_a_new_user_is_created_at_1uphealth_and_gets_a_grant(
    relay: Relay, upstream: SandboxServer
) -> None:
    user, made = await relay.provisioner.provision("alice")

    assert made
    assert (user.app_user_id, user.grant_state) == ("alice", "active")
    assert user.oneup_user_id == "1001"
    grant = await grant_of(relay)
    assert grant is not None
    assert (grant.active, grant.origin) == (True, "user_management")
    assert grant.tokens.refresh_token
    assert grant.tokens.expires_in == pytest.approx(7200, abs=60)


async def test_the_grant_opens_1uphealth(relay: Relay, upstream: SandboxServer) -> None:
    await relay.provisioner.provision("alice")
    accepted = await factories.accepted(relay)
    await relay.deliverer.deliver(UPLOADS)

    assert (await factories.status(relay, accepted)).state is State.DELIVERED
    assert [each["user"] for each in upstream.requests(api="fhir")] == ["1001"]


async def test_a_user_who_is_at_1uphealth_already_is_adopted(
    relay: Relay, upstream: SandboxServer
) -> None:
    known = upstream.grant("alice")

    user, made = await relay.provisioner.provision("alice")

    assert made
    assert user.oneup_user_id == str(known["oneup_user_id"])
    assert asked(upstream)[:2] == ["user", "auth-code"]


async def test_provisioning_again_changes_nothing(relay: Relay, upstream: SandboxServer) -> None:
    first, _ = await relay.provisioner.provision("alice")
    old = await grant_of(relay)
    before = asked(upstream)

    second, made = await relay.provisioner.provision("alice")

    assert not made
    assert second == first
    new = await grant_of(relay)
    assert old is not None
    assert new is not None
    assert (new.version, new.updated_at) == (old.version, old.updated_at)
    assert asked(upstream) == before


async def test_concurrent_provisioning_makes_one_user(
    relay: Relay, upstream: SandboxServer
) -> None:
    found = await asyncio.gather(*(relay.provisioner.provision("alice") for _ in range(5)))

    assert len({user.id for user, _ in found}) == 1
    assert {user.oneup_user_id for user, _ in found} == {"1001"}
    grant = await grant_of(relay)
    assert grant is not None
    assert grant.active


async def test_a_user_whose_grant_is_over_gets_a_new_one_and_what_was_parked_goes_on(
    relay: Relay, upstream: SandboxServer
) -> None:
    first, _ = await relay.provisioner.provision("alice")
    await end_grant(relay)
    accepted = await factories.accepted(relay)
    await relay.deliverer.deliver(UPLOADS)
    assert (await factories.status(relay, accepted)).state is State.PARKED

    second, made = await relay.provisioner.provision("alice")

    assert made
    assert (second.id, second.grant_state) == (first.id, "active")
    assert (await factories.status(relay, accepted)).state is State.QUEUED


@pytest.mark.parametrize("api", ["user-management", "token"])
async def test_a_reached_limit_is_an_error_with_the_time_to_wait(
    relay: Relay, upstream: SandboxServer, api: str
) -> None:
    upstream.faults({"kind": "too_many_requests", "retry_after": 7, "match": {"api": api}})

    with pytest.raises(UpstreamUnavailable, match="limit") as raised:
        await relay.provisioner.provision("alice")

    assert raised.value.retry_after == 7


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 503},
        {"kind": "reset"},
        {"kind": "cut", "commit": True},
        {"kind": "html"},
    ],
    ids=lambda fault: " ".join(str(value) for value in fault.values()),
)
@pytest.mark.parametrize("path", ["*/user", "*/auth-code", "*/token"])
async def test_what_fails_midway_is_continued_by_the_next_call(
    relay: Relay, upstream: SandboxServer, fault: dict[str, object], path: str
) -> None:
    if path == "*/auth-code":
        upstream.grant("alice")
    upstream.faults({**fault, "match": {"path": path}})
    with pytest.raises(UpstreamUnavailable, match="1upHealth gave no tokens"):
        await relay.provisioner.provision("alice")
    assert await grant_of(relay) is None
    upstream.clear_faults()

    user, made = await relay.provisioner.provision("alice")

    assert made
    assert (user.oneup_user_id, user.grant_state) == ("1001", "active")


async def test_a_person_whose_consent_has_ended_has_to_authorise_again(
    relay: Relay, upstream: SandboxServer
) -> None:
    upstream.grant("alice")
    upstream.faults({"kind": "end_consent", "match": {"user": "alice"}})

    with pytest.raises(Conflict, match="app user id") as raised:
        await relay.provisioner.provision("alice")

    assert raised.value.problem is ProblemType.NEEDS_AUTHORIZATION


async def test_a_new_code_that_1uphealth_refuses_is_asked_for_again_later(
    relay: Relay, upstream: SandboxServer
) -> None:
    body = '{"error": "invalid_grant"}'
    upstream.faults({"kind": "status", "status": 400, "body": body, "match": {"api": "token"}})

    with pytest.raises(UpstreamUnavailable, match="its own new code"):
        await relay.provisioner.provision("alice")


@asynccontextmanager
async def with_wrong_secret(relay: Relay, settings: Settings) -> AsyncIterator[Provisioner]:
    """A provisioner whose deployment has the wrong client secret."""
    wrong = settings.model_copy(update={"oneup_client_secret": SecretStr("canary-secret")})
    http = open_http(connections=1)
    try:
        tokens = TokenEndpoint(http, wrong, factories.own_quota(wrong))
        yield Provisioner(relay.database, relay.key_ring, tokens, relay.keys, relay.destinations)
    finally:
        await http.aclose()


async def test_the_error_of_a_wrong_client_names_the_settings_and_not_their_values(
    relay: Relay, settings: Settings, upstream: SandboxServer
) -> None:
    async with with_wrong_secret(relay, settings) as provisioner:
        with pytest.raises(UpstreamUnavailable, match="UPLIFT_ONEUP_USERS_URL") as raised:
            await provisioner.provision("alice")

    assert "canary-secret" not in f"{raised.value!r} {raised.value}"
    assert "alice" not in str(raised.value)
    assert raised.value.__cause__ is None


async def test_a_brought_grant_makes_a_user_and_asks_nobody(
    relay: Relay, upstream: SandboxServer
) -> None:
    user = await relay.provisioner.bring_grant("alice", TokenPair("access", "refresh", 100.0))

    assert (user.app_user_id, user.grant_state, user.oneup_user_id) == ("alice", "active", None)
    grant = await grant_of(relay)
    assert grant is not None
    assert grant.origin == "backend"
    assert (grant.tokens.access_token, grant.tokens.refresh_token) == ("access", "refresh")
    assert grant.tokens.expires_in == pytest.approx(100, abs=60)
    assert asked(upstream) == []


async def test_a_brought_grant_replaces_the_one_there_was(
    relay: Relay, upstream: SandboxServer
) -> None:
    first, _ = await relay.provisioner.provision("alice")
    old = await grant_of(relay)

    user = await relay.provisioner.bring_grant("alice", TokenPair("access", None, 100.0))

    new = await grant_of(relay)
    assert old is not None
    assert new is not None
    assert (user.id, user.oneup_user_id) == (first.id, first.oneup_user_id)
    assert (new.tokens.access_token, new.tokens.refresh_token) == ("access", None)
    assert new.version == old.version + 1


async def test_a_brought_grant_releases_what_was_parked(
    relay: Relay, upstream: SandboxServer
) -> None:
    await relay.provisioner.provision("alice")
    await end_grant(relay)
    accepted = await factories.accepted(relay)
    await relay.deliverer.deliver(UPLOADS)
    assert (await factories.status(relay, accepted)).state is State.PARKED

    given = upstream.grant("alice")
    await relay.provisioner.bring_grant(
        "alice", TokenPair(given["access_token"], given["refresh_token"], 7200.0)
    )
    assert (await factories.status(relay, accepted)).state is State.QUEUED
    await deliver_only(relay, accepted.upload.id)

    assert (await factories.status(relay, accepted)).state is State.DELIVERED


async def test_a_brought_grant_is_not_replaced_by_provisioning(
    relay: Relay, upstream: SandboxServer
) -> None:
    await relay.provisioner.bring_grant("alice", TokenPair("access", None, 100.0))

    _, made = await relay.provisioner.provision("alice")

    assert not made
    assert asked(upstream) == []
