"""Tokens for users, on a real ledger and a simulated 1upHealth."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import psycopg.sql
import pytest
import redis.asyncio
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from tests import factories
from tests.uplift.delivery.delivering import deliver_only
from uplift.cli.local.embedded import EmbeddedPostgres
from uplift.destinations.http_client import open_http
from uplift.destinations.responses import Response, ResponseKind
from uplift.errors import NeedsAuthorization, TokenUnavailable
from uplift.ledger import grants, users
from uplift.ledger.grants import GrantRow
from uplift.ledger.token_pair import TokenPair
from uplift.lifecycle import Reason, State
from uplift.queues import UPLOADS
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings
from uplift.tokens.access import TokenAccess
from uplift.tokens.person import AccessToken, Person
from uplift.tokens.quota import Quota
from uplift.tokens.token_endpoint import TokenEndpoint
from uplift.wiring import Relay, open_relay

MakeAccess = Callable[..., TokenAccess]

TOKEN_API = {"api": "token"}
DOWN = {"kind": "status", "status": 503, "match": TOKEN_API}
SLOW = {"kind": "slow", "seconds": 0.3, "match": TOKEN_API}


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


@pytest.fixture
async def make_access(relay: Relay, settings: Settings) -> AsyncIterator[MakeAccess]:
    """Makes token accesses that share nothing but the ledger, as those of two processes."""
    opened = []
    assert settings.redis_url is not None
    counter = redis.asyncio.from_url(settings.redis_url.get_secret_value())

    def make(*, seconds: float = 5.0, refresh_seconds: float = 10.0) -> TokenAccess:
        http = open_http(connections=100)
        opened.append(http)
        tokens = TokenEndpoint(http, settings, Quota(counter, settings), seconds=seconds)
        return TokenAccess(
            relay.database, tokens, settings, ["oneup"], refresh_seconds=refresh_seconds
        )

    yield make
    for http in opened:
        await http.aclose()
    await counter.aclose()


@pytest.fixture
def access(make_access: MakeAccess) -> TokenAccess:
    """The token access of one process."""
    return make_access()


async def person_of(relay: Relay, name: str = "alice") -> Person:
    """The user whose token is wanted."""
    async with relay.database.transaction() as connection:
        user = await users.find_user(connection, name)
    assert user is not None
    return Person(user.id, name, user.key(relay.key_ring))


@pytest.fixture
async def alice(relay: Relay) -> Person:
    """A user whose grant comes from user management."""
    await factories.user(relay)
    return await person_of(relay)


@pytest.fixture
async def brought(relay: Relay, upstream: SandboxServer) -> Person:
    """A user whose grant the backend brought."""
    await bring(relay, upstream)
    return await person_of(relay)


async def bring(relay: Relay, upstream: SandboxServer, **others: Any) -> TokenPair:
    """A grant by consent, brought by the backend."""
    given = upstream.grant("alice")
    values = {key: given[key] for key in ("access_token", "refresh_token", "expires_in")}
    tokens = TokenPair(**(values | others))
    await relay.provisioner.bring_grant("alice", tokens)
    return tokens


async def grant_of(relay: Relay, person: Person) -> GrantRow:
    """The grant as the ledger has it."""
    async with relay.database.transaction() as connection:
        grant = await grants.get_grant(connection, person.user_id, person.key)
    assert grant is not None
    return grant


async def age(relay: Relay, *, left: float) -> None:
    """Make every token two hours old, with so many seconds left."""
    async with relay.database.transaction() as connection:
        await connection.execute(
            text(
                "UPDATE grants SET updated_at = now() - interval '2 hours',"
                " expires_at = now() + make_interval(secs => :left)"
            ),
            {"left": left},
        )


def asked(upstream: SandboxServer, api: str = "token") -> int:
    """How many requests 1upHealth responded to."""
    return len(upstream.requests(api=api))


@asynccontextmanager
async def nothing_asked(upstream: SandboxServer) -> AsyncIterator[None]:
    """1upHealth is asked for nothing within the block."""
    before = len(upstream.requests())
    yield
    assert upstream.requests()[before:] == []


async def being_asked(upstream: SandboxServer) -> None:
    """Wait until a request is at 1upHealth that one of its faults slows down."""
    async with asyncio.timeout(10):
        while not any(rule["fired"] for rule in upstream.fault_rules()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def outcomes(calls: list[Awaitable[AccessToken]]) -> list[AccessToken | BaseException]:
    """What each of these concurrent calls came to."""
    return await asyncio.gather(*calls, return_exceptions=True)


# --- which token ---------------------------------------------------------------------------------


async def test_a_good_token_is_handed_out_without_asking(
    relay: Relay, access: TokenAccess, alice: Person, upstream: SandboxServer
) -> None:
    grant = await grant_of(relay, alice)
    async with nothing_asked(upstream):
        for _ in range(5):
            token = await access.token(alice)
            assert (token.value, token.version) == (grant.tokens.access_token, grant.version)


@pytest.mark.parametrize("left", [599.0, 1.0, -1.0, -100_000.0])
async def test_a_token_near_its_end_or_past_it_is_refreshed(
    relay: Relay, access: TokenAccess, alice: Person, upstream: SandboxServer, left: float
) -> None:
    old = await grant_of(relay, alice)
    await age(relay, left=left)

    token = await access.token(alice)

    new = await grant_of(relay, alice)
    assert (token.value, token.version) == (new.tokens.access_token, new.version)
    assert new.version == old.version + 1
    assert new.tokens.access_token != old.tokens.access_token
    assert new.tokens.refresh_token != old.tokens.refresh_token
    assert new.tokens.expires_in > 7000
    async with nothing_asked(upstream):
        assert await access.token(alice) == token


async def test_a_token_that_is_not_near_its_end_is_not_refreshed(
    relay: Relay, access: TokenAccess, alice: Person, upstream: SandboxServer
) -> None:
    await age(relay, left=650)
    async with nothing_asked(upstream):
        await access.token(alice)


async def test_a_short_lived_token_is_not_refreshed_at_each_use(
    relay: Relay, make_access: MakeAccess, upstream: SandboxServer
) -> None:
    """Its whole life may be shorter than the margin before which tokens are refreshed."""
    tokens = await bring(relay, upstream, expires_in=300.0)
    alice = await person_of(relay)
    async with nothing_asked(upstream):
        for _ in range(3):
            assert (await make_access().token(alice)).value == tokens.access_token


async def test_a_refused_token_is_refreshed_once(
    access: TokenAccess, alice: Person, upstream: SandboxServer
) -> None:
    first = await access.token(alice)
    before = asked(upstream)

    second = await access.token(alice, refused=first.version)

    assert second.value != first.value
    assert second.version > first.version
    assert asked(upstream) == before + 1


async def test_a_token_refused_long_ago_does_not_end_the_newer_one(
    make_access: MakeAccess, alice: Person, upstream: SandboxServer
) -> None:
    ours, theirs = make_access(), make_access()
    old = await ours.token(alice)
    new = await theirs.token(alice, refused=old.version)
    async with nothing_asked(upstream):
        assert await ours.token(alice, refused=old.version) == new


async def test_a_refused_refresh_leads_to_a_new_code(
    relay: Relay, access: TokenAccess, alice: Person, upstream: SandboxServer
) -> None:
    await age(relay, left=-1)
    upstream.faults({"kind": "refuse_refresh"})
    before = asked(upstream, "user-management")

    token = await access.token(alice)

    assert token.value == (await grant_of(relay, alice)).tokens.access_token
    assert asked(upstream, "user-management") == before + 1


async def test_a_refresh_whose_response_was_lost_leads_to_a_new_code_in_the_end(
    relay: Relay, access: TokenAccess, alice: Person, upstream: SandboxServer
) -> None:
    await age(relay, left=-1)
    upstream.faults({"kind": "cut", "commit": True, "count": 1, "match": TOKEN_API})

    with pytest.raises(TokenUnavailable):
        await access.token(alice)

    assert (await access.token(alice)).value
    assert (await grant_of(relay, alice)).active


async def test_two_users_have_two_tokens(
    relay: Relay, access: TokenAccess, upstream: SandboxServer
) -> None:
    names = ["alice", "bob"]
    for name in names:
        await factories.user(relay, name)
    people = [await person_of(relay, name) for name in names]
    await age(relay, left=-1)
    # Both are asked for at once: one must not wait for the other.
    upstream.faults(SLOW)

    first, second = await asyncio.gather(*(access.token(person) for person in people))

    assert first.value != second.value
    assert first.value == (await grant_of(relay, people[0])).tokens.access_token
    assert second.value == (await grant_of(relay, people[1])).tokens.access_token


async def test_a_user_without_a_grant_needs_authorization(
    relay: Relay, access: TokenAccess, upstream: SandboxServer
) -> None:
    await factories.user_without_grant(relay)
    alice = await person_of(relay)
    async with nothing_asked(upstream):
        with pytest.raises(NeedsAuthorization):
            await access.token(alice)


# --- asking with a token -------------------------------------------------------------------------


class Destination:
    """Refuses the first tokens that it gets, as many as it is told, and notes all."""

    def __init__(self, *, refuses: int) -> None:
        self._refuses = refuses
        self.tokens: list[AccessToken] = []

    async def ask(self, token: AccessToken) -> Response:
        self.tokens.append(token)
        if len(self.tokens) <= self._refuses:
            return Response(ResponseKind.UNAUTHORIZED, "http_401", 401)
        return Response(ResponseKind.STORED, "http_201", 201)


async def test_an_accepted_token_is_used_once(access: TokenAccess, alice: Person) -> None:
    destination = Destination(refuses=0)

    response = await access.with_token(alice, destination.ask)

    assert response.kind is ResponseKind.STORED
    assert destination.tokens == [await access.token(alice)]


async def test_after_a_401_the_request_is_repeated_with_a_fresh_token(
    access: TokenAccess, alice: Person
) -> None:
    destination = Destination(refuses=1)

    response = await access.with_token(alice, destination.ask)

    assert response.kind is ResponseKind.STORED
    refused, fresh = destination.tokens
    assert fresh.version == refused.version + 1
    assert fresh.value != refused.value


async def test_a_second_401_is_returned(
    access: TokenAccess, alice: Person, upstream: SandboxServer
) -> None:
    destination = Destination(refuses=2)
    before = asked(upstream)

    response = await access.with_token(alice, destination.ask)

    assert response.kind is ResponseKind.UNAUTHORIZED
    assert len(destination.tokens) == 2
    assert asked(upstream) == before + 1


# --- brought grants ------------------------------------------------------------------------------


async def test_a_brought_grant_is_refreshed(
    relay: Relay, access: TokenAccess, brought: Person
) -> None:
    await age(relay, left=-1)

    token = await access.token(brought)

    grant = await grant_of(relay, brought)
    assert (token.value, grant.origin) == (grant.tokens.access_token, "backend")


async def test_a_brought_grant_whose_refresh_is_refused_needs_the_person(
    relay: Relay, access: TokenAccess, brought: Person, upstream: SandboxServer
) -> None:
    await age(relay, left=-1)
    upstream.faults({"kind": "refuse_refresh"})

    with pytest.raises(NeedsAuthorization):
        await access.token(brought)

    assert asked(upstream, "user-management") == 0
    assert not (await grant_of(relay, brought)).active


async def test_a_brought_token_without_a_refresh_token_serves_until_it_ends(
    relay: Relay, make_access: MakeAccess, upstream: SandboxServer
) -> None:
    tokens = await bring(relay, upstream, refresh_token=None)
    alice = await person_of(relay)
    async with nothing_asked(upstream):
        assert (await make_access().token(alice)).value == tokens.access_token
        await age(relay, left=-1)
        with pytest.raises(NeedsAuthorization):
            await make_access().token(alice)


async def test_a_brought_token_without_a_refresh_token_serves_to_its_last_second(
    relay: Relay, access: TokenAccess, upstream: SandboxServer
) -> None:
    """Near its end there is nothing to refresh it with, but it still works."""
    tokens = await bring(relay, upstream, refresh_token=None)
    await age(relay, left=60)

    assert (await access.token(await person_of(relay))).value == tokens.access_token


# --- a grant that is over ------------------------------------------------------------------------


async def test_an_ended_consent_parks_what_waits(
    relay: Relay, access: TokenAccess, alice: Person, upstream: SandboxServer
) -> None:
    waiting = [await factories.accepted(relay, id=name) for name in ("1", "2")]
    await factories.user(relay, "bob")
    others = await factories.accepted(relay, "bob", id="3")
    await age(relay, left=-1)
    upstream.faults({"kind": "end_consent", "match": {"user": "alice"}})

    with pytest.raises(NeedsAuthorization):
        await access.token(alice)

    for each in waiting:
        row = await factories.status(relay, each)
        assert (row.state, row.reason) == (State.PARKED, Reason.NEEDS_AUTHORIZATION)
    assert (await factories.status(relay, others)).state is State.QUEUED
    assert not (await grant_of(relay, alice)).active
    async with nothing_asked(upstream):
        with pytest.raises(NeedsAuthorization):
            await access.token(alice)


async def test_a_new_grant_releases_what_was_parked(
    relay: Relay, access: TokenAccess, alice: Person, upstream: SandboxServer
) -> None:
    waiting = await factories.accepted(relay)
    await age(relay, left=-1)
    upstream.faults({"kind": "end_consent", "match": {"user": "alice"}})
    with pytest.raises(NeedsAuthorization):
        await access.token(alice)

    tokens = await bring(relay, upstream)

    row = await factories.status(relay, waiting)
    assert (row.state, row.reason) == (State.QUEUED, Reason.RELEASED)
    assert (await access.token(alice)).value == tokens.access_token


async def test_a_stale_refusal_does_not_end_a_newer_grant(
    relay: Relay, access: TokenAccess, upstream: SandboxServer
) -> None:
    await bring(relay, upstream, refresh_token="dead")
    alice = await person_of(relay)
    waiting = await factories.accepted(relay)
    await age(relay, left=-1)
    upstream.faults(SLOW)

    refused = asyncio.create_task(access.token(alice))
    await being_asked(upstream)
    new = await bring(relay, upstream)
    with pytest.raises(TokenUnavailable) as raised:
        await refused

    assert raised.value.code == "the_grant_was_replaced"
    assert (await factories.status(relay, waiting)).state is State.QUEUED
    assert (await access.token(alice)).value == new.access_token


async def test_a_stale_refresh_does_not_replace_a_newer_grant(
    relay: Relay, access: TokenAccess, alice: Person, upstream: SandboxServer
) -> None:
    await age(relay, left=-1)
    upstream.faults(SLOW)

    late = asyncio.create_task(access.token(alice))
    await being_asked(upstream)
    new = await bring(relay, upstream)
    with pytest.raises(TokenUnavailable) as raised:
        await late

    assert raised.value.code == "the_grant_was_replaced"
    assert (await access.token(alice)).value == new.access_token


# --- passing trouble -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        DOWN,
        {"kind": "status", "status": 500, "match": TOKEN_API},
        {"kind": "too_many_requests", "match": TOKEN_API},
        {"kind": "html", "match": TOKEN_API},
        {"kind": "error_body", "match": TOKEN_API},
        {"kind": "cut", "match": TOKEN_API},
        {"kind": "reset", "match": TOKEN_API},
        {"kind": "half_answer", "match": TOKEN_API},
        {"kind": "stall", "match": TOKEN_API},
        {
            "kind": "status",
            "status": 401,
            "body": {"error": "invalid_client"},
            "match": TOKEN_API,
        },
    ],
    ids=lambda fault: f"{fault['kind']} {fault.get('status', '')}".strip(),
)
async def test_passing_trouble_parks_nobody(
    relay: Relay,
    make_access: MakeAccess,
    alice: Person,
    upstream: SandboxServer,
    fault: dict[str, Any],
) -> None:
    access = make_access(seconds=0.3)
    waiting = await factories.accepted(relay)
    await age(relay, left=-1)
    calls = asked(upstream, "user-management")
    upstream.faults(fault)

    with pytest.raises(TokenUnavailable):
        await access.token(alice)

    assert (await factories.status(relay, waiting)).state is State.QUEUED
    # No auth code for it either: 300 an hour serve everybody.
    assert asked(upstream, "user-management") == calls
    upstream.clear_faults()
    assert (await access.token(alice)).value


async def test_a_spent_quota_of_codes_parks_nobody(
    relay: Relay, access: TokenAccess, alice: Person, upstream: SandboxServer
) -> None:
    waiting = await factories.accepted(relay)
    await age(relay, left=-1)
    upstream.faults(
        {"kind": "refuse_refresh"},
        {"kind": "too_many_requests", "retry_after": 7, "match": {"api": "user-management"}},
    )

    with pytest.raises(TokenUnavailable) as raised:
        await access.token(alice)

    assert (raised.value.code, raised.value.retry_after) == ("http_429", 7)
    assert (await factories.status(relay, waiting)).state is State.QUEUED
    assert (await grant_of(relay, alice)).active


async def test_a_token_near_its_end_is_used_while_there_is_no_new_one(
    relay: Relay, access: TokenAccess, alice: Person, upstream: SandboxServer
) -> None:
    await age(relay, left=60)
    upstream.faults(DOWN)

    token = await access.token(alice)

    assert token.value == (await grant_of(relay, alice)).tokens.access_token


async def test_a_refused_token_is_not_used_while_there_is_no_new_one(
    access: TokenAccess, alice: Person, upstream: SandboxServer
) -> None:
    first = await access.token(alice)
    upstream.faults({**DOWN, "headers": {"Retry-After": "9"}})

    with pytest.raises(TokenUnavailable) as raised:
        await access.token(alice, refused=first.version)

    assert (raised.value.code, raised.value.retry_after) == ("http_503", 9)


# --- single flight -------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["near its end", "refused"])
async def test_fifty_callers_cost_one_refresh(
    relay: Relay, access: TokenAccess, alice: Person, upstream: SandboxServer, why: str
) -> None:
    refused = (await grant_of(relay, alice)).version if why == "refused" else None
    if why == "near its end":
        await age(relay, left=60)
    before = asked(upstream)

    tokens = await asyncio.gather(*(access.token(alice, refused=refused) for _ in range(50)))

    assert len(set(tokens)) == 1
    assert asked(upstream) == before + 1


@pytest.mark.parametrize("why", ["past its end", "refused"])
async def test_two_processes_never_refresh_at_once(
    relay: Relay,
    make_access: MakeAccess,
    alice: Person,
    upstream: SandboxServer,
    why: str,
) -> None:
    refused = (await grant_of(relay, alice)).version if why == "refused" else None
    if why == "past its end":
        await age(relay, left=-1)
    upstream.faults(SLOW)
    before = asked(upstream)
    processes = [make_access(), make_access()]

    found = await outcomes([processes[n % 2].token(alice, refused=refused) for n in range(50)])

    assert asked(upstream) == before + 1
    tokens = {each for each in found if isinstance(each, AccessToken)}
    codes = {each.code for each in found if isinstance(each, TokenUnavailable)}
    assert len(tokens) == 1
    assert codes <= {"another_is_refreshing"}
    assert sum(isinstance(each, AccessToken | TokenUnavailable) for each in found) == 50
    # And when it is done, all have it.
    for process in processes:
        assert await process.token(alice, refused=refused) in tokens


async def test_while_another_process_refreshes_a_token_that_works_is_used(
    relay: Relay, make_access: MakeAccess, alice: Person, upstream: SandboxServer
) -> None:
    old = await grant_of(relay, alice)
    await age(relay, left=60)
    upstream.faults(SLOW)
    before = asked(upstream)

    refreshing = asyncio.create_task(make_access().token(alice))
    await being_asked(upstream)
    meanwhile = await make_access().token(alice)

    assert meanwhile.value == old.tokens.access_token
    assert (await refreshing).value != old.tokens.access_token
    assert asked(upstream) == before + 1


@pytest.mark.parametrize(
    "fault", [{**DOWN, "headers": {"Retry-After": "9"}}, {"kind": "stall", "match": TOKEN_API}]
)
async def test_one_failure_is_the_result_of_all_who_waited_for_it(
    relay: Relay,
    make_access: MakeAccess,
    alice: Person,
    upstream: SandboxServer,
    fault: dict[str, Any],
) -> None:
    """Fifty waits for a stalled 1upHealth, one after the other, would outlast every lease."""
    access = make_access(seconds=0.5)
    await age(relay, left=-1)
    upstream.faults(SLOW, fault)
    before = asked(upstream)

    found = await outcomes([access.token(alice) for _ in range(50)])

    assert {type(each) for each in found} == {TokenUnavailable}
    assert len({(each.code, each.retry_after) for each in found}) == 1  # type: ignore[union-attr]
    assert asked(upstream) == before + 1
    upstream.clear_faults()
    assert (await access.token(alice)).value


async def test_one_refusal_is_the_result_of_all_who_waited_for_it(
    relay: Relay, access: TokenAccess, alice: Person, upstream: SandboxServer
) -> None:
    await age(relay, left=-1)
    upstream.faults({"kind": "end_consent"})
    before = len(upstream.requests())

    found = await outcomes([access.token(alice) for _ in range(50)])

    assert {type(each) for each in found} == {NeedsAuthorization}
    assert len(upstream.requests()) == before + 2  # a refresh, and a code


async def test_a_process_that_died_while_refreshing_delays_nobody_for_long(
    relay: Relay, access: TokenAccess, alice: Person
) -> None:
    version = (await grant_of(relay, alice)).version
    await age(relay, left=-1)
    async with relay.database.transaction() as connection:
        assert await grants.start_refresh(connection, alice.user_id, version, 0.3)

    with pytest.raises(TokenUnavailable) as raised:
        await access.token(alice)
    assert raised.value.code == "another_is_refreshing"
    # The mark is over: that ended the wait for the other process.
    assert (await access.token(alice)).version == version + 1


async def test_1uphealth_must_respond_while_the_mark_lasts(
    relay: Relay, make_access: MakeAccess, alice: Person, upstream: SandboxServer
) -> None:
    """Otherwise another process would send the same refresh token at the same time."""
    await age(relay, left=-1)
    upstream.faults({"kind": "stall", "seconds": 30, "match": TOKEN_API})
    access = make_access(seconds=20.0, refresh_seconds=0.5)
    started = time.monotonic()

    with pytest.raises(TokenUnavailable) as raised:
        await access.token(alice)

    assert raised.value.code == "no_answer"
    assert time.monotonic() - started < 15


async def test_a_cancelled_caller_does_not_lose_the_new_refresh_token(
    relay: Relay, access: TokenAccess, brought: Person, upstream: SandboxServer
) -> None:
    old = await grant_of(relay, brought)
    await age(relay, left=-1)
    upstream.faults({**SLOW, "commit_first": True})

    calling = asyncio.create_task(access.token(brought))
    await being_asked(upstream)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    async with asyncio.timeout(10):
        while (new := await grant_of(relay, brought)).version == old.version:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    assert new.active
    async with nothing_asked(upstream):
        assert (await access.token(brought)).value == new.tokens.access_token


@asynccontextmanager
async def no_database(postgres: EmbeddedPostgres) -> AsyncIterator[None]:
    """Within the block Postgres ends every connection to the ledger, and takes no new one."""
    server, _, name = postgres.url.rpartition("/")
    admin = await psycopg.AsyncConnection.connect(f"{server}/postgres", autocommit=True)
    async with admin:
        allow = psycopg.sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        ledger = psycopg.sql.Identifier(name)
        await admin.execute(allow.format(ledger, psycopg.sql.SQL("false")))
        try:
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
            )
            yield
        finally:
            await admin.execute(allow.format(ledger, psycopg.sql.SQL("true")))


async def logged(logs: list[Any], event: str) -> None:
    """Wait until the event is logged."""
    async with asyncio.timeout(10):
        while event not in [each["event"] for each in logs]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_database_that_is_away_for_a_moment_does_not_lose_the_new_refresh_token(
    relay: Relay,
    access: TokenAccess,
    brought: Person,
    upstream: SandboxServer,
    postgres: EmbeddedPostgres,
) -> None:
    old = await grant_of(relay, brought)
    await age(relay, left=-1)
    upstream.faults({**SLOW, "seconds": 1.0, "commit_first": True})

    calling = asyncio.create_task(access.token(brought))
    await being_asked(upstream)
    with capture_logs() as logs:
        async with no_database(postgres):
            await logged(logs, "new_tokens_not_saved_yet")
            assert not calling.done()
        token = await calling

    new = await grant_of(relay, brought)
    assert (token.value, token.version) == (new.tokens.access_token, old.version + 1)
    assert new.active


async def test_a_database_that_stays_away_is_an_error_in_the_end(
    relay: Relay,
    make_access: MakeAccess,
    brought: Person,
    upstream: SandboxServer,
    postgres: EmbeddedPostgres,
) -> None:
    await age(relay, left=-1)
    upstream.faults({**SLOW, "seconds": 0.6})

    calling = asyncio.create_task(make_access(refresh_seconds=2.0).token(brought))
    await being_asked(upstream)
    async with no_database(postgres):
        with pytest.raises(OperationalError), capture_logs() as logs:
            await calling

    events = [(each["event"], each["user"], each["error"]) for each in logs]
    who_and_why = (str(brought.user_id), "OperationalError")
    assert events[0] == ("new_tokens_not_saved_yet", *who_and_why)
    assert events[-1] == ("new_tokens_lost", *who_and_why)


async def test_closing_the_relay_does_not_lose_the_new_refresh_token(
    relay: Relay, settings: Settings, brought: Person, upstream: SandboxServer
) -> None:
    old = await grant_of(relay, brought)
    await factories.accepted(relay)
    await age(relay, left=-1)
    upstream.faults({**SLOW, "commit_first": True})

    async with open_relay(settings) as closing:
        delivering = asyncio.create_task(closing.deliverer.deliver(UPLOADS))
        await being_asked(upstream)
        delivering.cancel()
        await asyncio.gather(delivering, return_exceptions=True)

    new = await grant_of(relay, brought)
    assert (new.version, new.active) == (old.version + 1, True)


# --- fresh tokens that are refused too -----------------------------------------------------------


async def test_a_fresh_token_that_is_refused_too_is_not_refreshed_again_at_once(
    relay: Relay, upstream: SandboxServer
) -> None:
    """Uploads one after the other would each cost a refresh, and none of them would help."""
    await factories.user(relay)
    uploads = [await factories.accepted(relay, id=f"o{number}") for number in range(5)]
    upstream.faults({"kind": "status", "status": 401, "match": {"api": "fhir"}})
    before = asked(upstream)

    for each in uploads:
        await deliver_only(relay, each.upload.id)

    assert asked(upstream) == before + 1
    rows = [await factories.status(relay, each) for each in uploads]
    assert [(row.state, row.reason) for row in rows] == [
        (State.QUEUED, Reason.HELD),
        *[(State.QUEUED, Reason.NO_TOKEN)] * 4,
    ]


async def test_a_refused_fresh_token_says_when_the_next_is_asked_for(
    relay: Relay, make_access: MakeAccess, alice: Person, upstream: SandboxServer
) -> None:
    """Two processes do not refresh each other's tokens for ever either."""
    access, other = make_access(), make_access()
    first = await access.token(alice)
    second = await access.token(alice, refused=first.version)
    third = await other.token(alice, refused=second.version)

    async with nothing_asked(upstream):
        for process in (access, other):
            with pytest.raises(TokenUnavailable) as raised:
                await process.token(alice, refused=third.version)
            assert raised.value.code == "fresh_token_refused"
            assert 0 < (raised.value.retry_after or 0.0) <= 60
    # A token that is past its end is refreshed all the same.
    await age(relay, left=-1)
    assert (await access.token(alice, refused=third.version)).version > third.version


# --- what is never told --------------------------------------------------------------------------


async def test_tokens_show_in_no_repr_and_no_error(
    relay: Relay, make_access: MakeAccess, alice: Person, upstream: SandboxServer
) -> None:
    grant = await grant_of(relay, alice)
    token = await make_access().token(alice)
    hidden = [grant.tokens.access_token, grant.tokens.refresh_token or ""]
    assert not any(secret in f"{token!r} {grant!r} {token} {grant}" for secret in hidden)

    await age(relay, left=-1)
    upstream.faults({"kind": "end_consent"}, {**DOWN, "count": 1})
    access = make_access()
    for expected in (TokenUnavailable, NeedsAuthorization):
        with pytest.raises(expected) as raised:
            await access.token(alice)
        told = f"{raised.value!r} {raised.value} {vars(raised.value)}"
        assert not any(secret in told for secret in hidden)
        assert raised.value.__cause__ is None
