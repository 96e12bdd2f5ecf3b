"""User management and the token endpoint, against the simulated 1upHealth and a bare socket."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

import orjson
import pytest
from pydantic import SecretStr

from tests import factories
from tests.uplift.destinations.remote import Answering, Connection, Remote, serve
from uplift.destinations.http_client import open_http
from uplift.errors import ConfigurationError, TokenError, Trouble
from uplift.ledger.token_pair import TokenPair
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings
from uplift.tokens.obtain import exchange
from uplift.tokens.token_endpoint import Code, TokenEndpoint

SECRET = secrets.token_urlsafe(12)


@pytest.fixture(scope="module")
def usual() -> Iterator[SandboxServer]:
    """One simulated 1upHealth for most tests: stopping one takes longer than most of them."""
    with SandboxServer(SandboxConfig(client_secret=SECRET)) as server:
        yield server


@pytest.fixture
def config() -> SandboxConfig | None:
    """How the test wants 1upHealth to differ from the usual one, if at all."""
    return None


@pytest.fixture
def oneup(usual: SandboxServer, config: SandboxConfig | None) -> Iterator[SandboxServer]:
    """A simulated 1upHealth that knows nobody."""
    if config is None:
        usual.reset()
        yield usual
        return
    with SandboxServer(config) as server:
        yield server


def settings_for(oneup: SandboxServer, **others: Any) -> Settings:
    """Settings for that sandbox."""
    return Settings(
        **{
            "oneup_token_url": oneup.token_url,
            "oneup_users_url": oneup.users_url,
            "oneup_client_id": oneup.config.client_id,
            "oneup_client_secret": SecretStr(oneup.config.client_secret),
            **others,
        }
    )


@asynccontextmanager
async def opened(settings: Settings, *, seconds: float = 5.0) -> AsyncIterator[TokenEndpoint]:
    """A token client, as the relay opens it."""
    http = open_http(connections=5)
    try:
        yield TokenEndpoint(http, settings, factories.own_quota(settings), seconds=seconds)
    finally:
        await http.aclose()


@pytest.fixture
async def tokens(oneup: SandboxServer) -> AsyncIterator[TokenEndpoint]:
    """A client of the sandbox."""
    async with opened(settings_for(oneup)) as client:
        yield client


async def code_of(tokens: TokenEndpoint, name: str = "alice") -> Code:
    """A new user's code."""
    code = await tokens.create_user(name)
    assert code is not None
    return code


async def granted(tokens: TokenEndpoint, name: str = "alice") -> TokenPair:
    """A new user's tokens."""
    return await tokens.exchange_code((await code_of(tokens, name)).code)


# --- users and codes -----------------------------------------------------------------------------


async def test_a_new_user_comes_with_a_code_and_an_id(tokens: TokenEndpoint) -> None:
    code = await tokens.create_user("alice")

    assert code is not None
    assert code.oneup_user_id == "1001"
    assert (await tokens.exchange_code(code.code)).access_token


@pytest.mark.parametrize("config", [SandboxConfig(existing_user_status=s) for s in (200, 400)])
async def test_a_user_who_exists_is_no_error(tokens: TokenEndpoint) -> None:
    await tokens.create_user("alice")

    assert await tokens.create_user("alice") is None


@pytest.mark.parametrize("name", ["alice@example.com", "a b&c=d", "ü/漢", "a" * 200, "+1 555%20"])
async def test_a_name_arrives_as_it_is(
    tokens: TokenEndpoint, oneup: SandboxServer, name: str
) -> None:
    await tokens.create_user(name)

    assert await tokens.create_user(name) is None
    assert (await tokens.auth_code(name)).oneup_user_id == "1001"


async def test_an_existing_user_gets_a_new_code(tokens: TokenEndpoint) -> None:
    first = await code_of(tokens)
    second = await tokens.auth_code("alice")

    assert second.oneup_user_id == first.oneup_user_id
    assert second.code != first.code
    assert (await tokens.exchange_code(second.code)).access_token


@pytest.mark.parametrize("config", [SandboxConfig(unknown_user_status=s) for s in (400, 404)])
async def test_a_code_for_nobody_is_refused(tokens: TokenEndpoint) -> None:
    with pytest.raises(TokenError) as raised:
        await tokens.auth_code("nobody")

    assert raised.value.trouble is Trouble.REFUSED


async def test_a_code_for_a_user_who_withdrew_is_refused(
    tokens: TokenEndpoint, oneup: SandboxServer
) -> None:
    await granted(tokens)
    oneup.faults({"kind": "end_consent", "match": {"user": "alice"}})

    with pytest.raises(TokenError) as raised:
        await tokens.auth_code("alice")

    assert raised.value.trouble is Trouble.REFUSED


@pytest.mark.parametrize("config", [SandboxConfig(client_secret=SECRET, quota_calls=2)])
async def test_a_spent_quota_is_busy(tokens: TokenEndpoint) -> None:
    await tokens.create_user("alice")
    await tokens.auth_code("alice")

    for call in (tokens.create_user, tokens.auth_code):
        with pytest.raises(TokenError) as raised:
            await call("alice")
        assert raised.value.trouble is Trouble.BUSY


# --- tokens --------------------------------------------------------------------------------------


async def test_a_code_is_traded_once(tokens: TokenEndpoint) -> None:
    code = await code_of(tokens)
    granted = await tokens.exchange_code(code.code)

    assert granted.access_token != granted.refresh_token
    assert granted.expires_in == 7200
    with pytest.raises(TokenError) as raised:
        await tokens.exchange_code(code.code)
    assert raised.value.trouble is Trouble.REFUSED


@pytest.mark.parametrize("config", [SandboxConfig(client_secret=SECRET, code_delay_seconds=0.4)])
async def test_a_code_that_is_not_valid_yet_is_tried_again(
    tokens: TokenEndpoint, oneup: SandboxServer
) -> None:
    code = await code_of(tokens)
    with pytest.raises(TokenError):
        await tokens.exchange_code(code.code)

    assert (await exchange(tokens, code.code)).access_token
    assert [each["status"] for each in oneup.requests(api="token")] == [400, 400, 200]


async def test_a_code_that_never_becomes_valid_is_given_up(
    tokens: TokenEndpoint, oneup: SandboxServer
) -> None:
    with pytest.raises(TokenError) as raised:
        await exchange(tokens, "no-code")

    assert raised.value.trouble is Trouble.REFUSED
    assert len(oneup.requests(api="token")) == 4


async def test_a_code_is_not_tried_again_while_1uphealth_is_down(
    tokens: TokenEndpoint, oneup: SandboxServer
) -> None:
    code = await code_of(tokens)
    oneup.faults({"kind": "status", "status": 503, "match": {"api": "token"}})

    with pytest.raises(TokenError) as raised:
        await exchange(tokens, code.code)

    assert raised.value.trouble is Trouble.UNAVAILABLE
    assert len(oneup.requests(api="token")) == 1


async def test_a_refresh_gives_a_new_pair_and_ends_the_old_refresh_token(
    tokens: TokenEndpoint,
) -> None:
    first = await granted(tokens)
    assert first.refresh_token is not None
    second = await tokens.refresh(first.refresh_token)

    assert second.refresh_token is not None
    pairs = {first.access_token, first.refresh_token, second.access_token, second.refresh_token}
    assert len(pairs) == 4
    with pytest.raises(TokenError) as raised:
        await tokens.refresh(first.refresh_token)
    assert raised.value.trouble is Trouble.REFUSED
    assert (await tokens.refresh(second.refresh_token)).access_token


# --- which trouble a response means --------------------------------------------------------------


@pytest.mark.parametrize("call", ["create_user", "auth_code", "exchange_code", "refresh"])
@pytest.mark.parametrize(
    "wrong",
    [{"oneup_client_id": "another"}, {"oneup_client_secret": SecretStr("wrong")}],
    ids=["id", "secret"],
)
async def test_a_wrong_client_ends_nobodys_consent(
    oneup: SandboxServer, call: str, wrong: dict[str, Any]
) -> None:
    async with opened(settings_for(oneup, **wrong)) as tokens:
        with pytest.raises(TokenError) as raised:
            await getattr(tokens, call)("alice")

    assert (raised.value.trouble, raised.value.code) == (Trouble.UNAVAILABLE, "http_401")


def responding(status: int, body: Any, headers: dict[str, str] | None = None) -> Answering:
    """A server that always responds so."""
    content = body if isinstance(body, bytes) else orjson.dumps(body)

    async def response(connection: Connection) -> None:
        while True:
            await connection.read()
            await connection.response(status, content, headers)

    return response


def settings_of(remote: Remote) -> Settings:
    """Settings for that server."""
    return Settings(
        oneup_token_url=f"{remote.url}/token",
        oneup_users_url=f"{remote.url}/user",
        oneup_client_id="the-client",
        oneup_client_secret=SecretStr(SECRET),
    )


TROUBLES = [
    (400, {"error": "invalid_grant"}, Trouble.REFUSED),
    (401, {"error": "invalid_grant"}, Trouble.REFUSED),
    (200, {"error": "invalid_grant"}, Trouble.REFUSED),
    (400, {"success": False, "error": "this user does not exist"}, Trouble.REFUSED),
    (404, {"success": False, "error": "this user does not exist"}, Trouble.REFUSED),
    (400, {"success": False, "error": "this user is not active"}, Trouble.REFUSED),
    # The deployment's fault, or 1upHealth's: nobody's consent ends.
    (400, {"error": "invalid_client"}, Trouble.UNAVAILABLE),
    (401, {"error": "invalid_client"}, Trouble.UNAVAILABLE),
    (400, {"error": "invalid_request"}, Trouble.UNAVAILABLE),
    (400, {"error": "unauthorized_client"}, Trouble.UNAVAILABLE),
    (400, {"error": ["invalid_grant"]}, Trouble.UNAVAILABLE),
    (400, {"error": {"code": "invalid_grant"}}, Trouble.UNAVAILABLE),
    (400, {}, Trouble.UNAVAILABLE),
    (400, b"Bad Request", Trouble.UNAVAILABLE),
    (401, {"message": "Unauthorized"}, Trouble.UNAVAILABLE),
    (401, {"success": False, "error": "unknown client"}, Trouble.UNAVAILABLE),
    (403, {"message": "Forbidden"}, Trouble.UNAVAILABLE),
    (403, {"success": False, "error": "forbidden"}, Trouble.UNAVAILABLE),
    (404, b"<html>", Trouble.UNAVAILABLE),
    (405, None, Trouble.UNAVAILABLE),
    (408, None, Trouble.UNAVAILABLE),
    (302, None, Trouble.UNAVAILABLE),
    (500, {"error": "server_error"}, Trouble.UNAVAILABLE),
    (502, b"<html>Bad Gateway</html>", Trouble.UNAVAILABLE),
    (503, {"message": "Service Unavailable"}, Trouble.UNAVAILABLE),
    (503, {"success": False, "error": "down"}, Trouble.UNAVAILABLE),
    (200, b"<html>Log in</html>", Trouble.UNAVAILABLE),
    (200, [], Trouble.UNAVAILABLE),
    (200, None, Trouble.UNAVAILABLE),
    (200, b"", Trouble.UNAVAILABLE),
    (200, {"access_token": "", "code": ""}, Trouble.UNAVAILABLE),
    (200, {"access_token": 1, "code": 1}, Trouble.UNAVAILABLE),
    (200, {"access_token": None, "code": None}, Trouble.UNAVAILABLE),
    (429, {"message": "Too Many Requests"}, Trouble.BUSY),
    (429, {"error": "invalid_grant"}, Trouble.BUSY),
]


@pytest.mark.parametrize(
    ("status", "body", "trouble"), TROUBLES, ids=[f"{s} {b}" for s, b, _ in TROUBLES]
)
async def test_a_response_without_tokens_is_classified(
    status: int, body: Any, trouble: Trouble
) -> None:
    async with serve(responding(status, body)) as remote:
        for name in ("create_user", "auth_code", "exchange_code", "refresh"):
            async with opened(settings_of(remote)) as tokens:
                with pytest.raises(TokenError) as raised:
                    await getattr(tokens, name)("alice")
            assert (raised.value.trouble, raised.value.code) == (trouble, f"http_{status}")


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_handed_on(status: int) -> None:
    busy = responding(status, {}, {"Retry-After": "7"})
    async with serve(busy) as remote, opened(settings_of(remote)) as tokens:
        with pytest.raises(TokenError) as raised:
            await tokens.refresh("x")

    assert raised.value.retry_after == 7


@pytest.mark.parametrize(
    ("expires_in", "seconds"),
    [
        (7200, 7200.0),
        (7199, 7199.0),
        (3599, 3599.0),
        ("3600", 3600.0),
        (0.5, 1.0),
        (0, 1.0),
        (-5, 1.0),
        (10**30, 86_400.0),
        (None, 600.0),
        ("soon", 600.0),
        ("nan", 600.0),
        ("inf", 600.0),
        ([], 600.0),
    ],
)
async def test_the_life_of_a_token_is_read_whatever_it_is(expires_in: Any, seconds: float) -> None:
    body = {"access_token": "a", "refresh_token": "r", "expires_in": expires_in}
    if isinstance(expires_in, int) and expires_in > 2**63:
        content: Any = orjson.dumps({**body, "expires_in": 1.0}).replace(b"1.0", b"1e30")
    else:
        content = body
    async with serve(responding(200, content)) as remote, opened(settings_of(remote)) as tokens:
        assert await tokens.refresh("x") == TokenPair("a", "r", seconds)


@pytest.mark.parametrize("refresh", [None, "", 1])
async def test_there_may_be_no_refresh_token(refresh: Any) -> None:
    body = {"access_token": "a", "refresh_token": refresh, "expires_in": 60}
    async with serve(responding(200, body)) as remote, opened(settings_of(remote)) as tokens:
        assert await tokens.refresh("x") == TokenPair("a", None, 60.0)


@pytest.mark.parametrize(
    "kind", ["cut", "reset", "half_answer", "error_body", "html"], ids=lambda kind: kind
)
@pytest.mark.parametrize("api", ["token", "user-management"])
async def test_a_broken_response_is_unavailable(
    tokens: TokenEndpoint, oneup: SandboxServer, kind: str, api: str
) -> None:
    first = await granted(tokens)
    oneup.faults({"kind": kind, "match": {"api": api}})
    before = len(oneup.requests())

    call = tokens.refresh if api == "token" else tokens.auth_code
    with pytest.raises(TokenError) as raised:
        await call((first.refresh_token or "") if api == "token" else "alice")

    assert raised.value.trouble is Trouble.UNAVAILABLE
    # Sent once: a second use of a refresh token may count as its theft (RFC 9700, 4.14.2).
    assert len(oneup.requests()) == before + 1


async def no_http(connection: Connection) -> None:
    await connection.read()
    await connection.send(b"220 mail.example.com ESMTP\r\n\r\n")


async def not_gzip(connection: Connection) -> None:
    await connection.read()
    await connection.response(200, b"{}", {"Content-Encoding": "gzip"})


async def a_long_header(connection: Connection) -> None:
    await connection.read()
    await connection.response(200, b"{}", {"X-Long": "a" * 100_000})


async def a_wrong_length(connection: Connection) -> None:
    await connection.read()
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}")


async def trickle(connection: Connection) -> None:
    await connection.read()
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        await asyncio.sleep(0.01)
        await connection.send(b" ")


async def flood(connection: Connection) -> None:
    await connection.read()
    await connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        await connection.send(b" " * 100_000)


@pytest.mark.parametrize(
    "breaking",
    [no_http, not_gzip, a_long_header, a_wrong_length, flood],
    ids=lambda breaking: breaking.__name__,
)
async def test_something_that_is_no_response_is_unavailable(breaking: Answering) -> None:
    async with serve(breaking) as remote, opened(settings_of(remote)) as tokens:
        with pytest.raises(TokenError) as raised:
            await tokens.refresh("x")

    assert raised.value.trouble is Trouble.UNAVAILABLE
    assert len(remote.requests) == 1


async def test_the_wait_for_a_response_ends() -> None:
    async with serve(trickle) as remote, opened(settings_of(remote), seconds=0.3) as tokens:
        started = time.monotonic()
        with pytest.raises(TokenError) as raised:
            await tokens.refresh("x")

    assert (raised.value.trouble, raised.value.code) == (Trouble.UNAVAILABLE, "no_answer")
    assert time.monotonic() - started < 20  # the trickle has no end


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "", "mailto:x@example.com"])
async def test_an_address_where_nobody_responds_is_unavailable(url: str) -> None:
    settings = Settings(oneup_token_url=url, oneup_users_url=url)
    async with opened(settings) as tokens:
        for call in (tokens.create_user, tokens.refresh):
            with pytest.raises(TokenError) as raised:
                await call("alice")
            assert raised.value.trouble is Trouble.UNAVAILABLE


# --- what is sent, and what is never told --------------------------------------------------------


async def test_requests_are_what_1uphealth_documents() -> None:
    async with serve(responding(500, {})) as remote, opened(settings_of(remote)) as tokens:
        for call in (tokens.create_user, tokens.auth_code, tokens.exchange_code, tokens.refresh):
            with pytest.raises(TokenError):
                await call("the value")

    create, auth_code, code, refresh = remote.requests
    assert create.line == "POST /user HTTP/1.1"
    assert auth_code.line == "POST /user/auth-code HTTP/1.1"
    for request in (create, auth_code):
        assert parse_qs(request.body.decode()) == {"app_user_id": ["the value"]}
        assert request.header("client_id") == "the-client"
        assert request.header("client_secret") == SECRET
    client = {"client_id": ["the-client"], "client_secret": [SECRET]}
    assert code.line == refresh.line == "POST /token HTTP/1.1"
    assert parse_qs(code.body.decode()) == {
        **client,
        "grant_type": ["authorization_code"],
        "code": ["the value"],
    }
    assert parse_qs(refresh.body.decode()) == {
        **client,
        "grant_type": ["refresh_token"],
        "refresh_token": ["the value"],
    }
    for request in remote.requests:
        assert request.header("Content-Type") == "application/x-www-form-urlencoded"
        assert request.header("Accept") == "application/json"
        assert request.header("Authorization") is None


async def test_cookies_of_one_user_are_not_sent_for_another() -> None:
    body = {"access_token": "a"}
    with_cookie = responding(200, body, {"Set-Cookie": "session=canary; Path=/"})
    async with serve(with_cookie) as remote, opened(settings_of(remote)) as tokens:
        await tokens.refresh("x")
        await tokens.refresh("y")

    assert [request.header("Cookie") for request in remote.requests] == [None, None]


async def test_a_redirect_takes_no_secret_elsewhere() -> None:
    async with serve(responding(200, {"access_token": "a"})) as elsewhere:
        moved = responding(307, None, {"Location": f"{elsewhere.url}/token"})
        async with serve(moved) as remote, opened(settings_of(remote)) as tokens:
            with pytest.raises(TokenError):
                await tokens.refresh("x")

    assert elsewhere.connections == 0


def test_secrets_show_in_no_repr() -> None:
    assert "canary" not in repr(TokenPair("canary-a", "canary-r", 60.0))
    assert "canary" not in repr(Code("canary", "1"))


@pytest.mark.parametrize(
    "breaking",
    [
        responding(400, {"error": "canary"}),
        responding(400, {"error": "invalid_grant", "error_description": "canary"}),
        responding(200, b"canary"),
        responding(429, b"canary"),
        no_http,
        not_gzip,
    ],
)
async def test_secrets_are_in_no_error(breaking: Answering) -> None:
    async with serve(breaking) as remote, opened(settings_of(remote)) as tokens:
        for call in (tokens.create_user, tokens.auth_code, tokens.exchange_code, tokens.refresh):
            with pytest.raises(TokenError) as raised:
                await call("canary-of-ours")
            error = raised.value
            told = f"{error!r} {error} {vars(error)}"
            assert "canary" not in told
            assert SECRET not in told
            # A logged traceback shows the cause too, whose text may hold the request.
            assert error.__cause__ is None
            assert error.__suppress_context__ or error.__context__ is None


@pytest.mark.parametrize("value", ["secret\n", "geheimnis-ü", "\0"])
@pytest.mark.parametrize("name", ["oneup_client_id", "oneup_client_secret"])
async def test_credentials_that_no_header_can_carry_are_a_wrong_setting(
    name: str, value: str
) -> None:
    wrong = Settings(**{name: value})  # type: ignore[arg-type]
    quota = factories.own_quota(wrong)
    http = open_http(connections=1)
    try:
        with pytest.raises(ConfigurationError, match=f"UPLIFT_{name.upper()}") as raised:
            TokenEndpoint(http, wrong, quota)
    finally:
        await http.aclose()
    assert value not in str(raised.value)
