"""What a server says about its login, and what is made of it."""

import orjson
import pytest

from tests.uplift.destinations.remote import Connection, serve
from uplift.destinations.http_client import open_http
from uplift.errors import LoginFailed, TokenUnavailable
from uplift.tokens.smart_configuration import (
    SmartConfiguration,
    parse_smart_configuration,
    read_smart_configuration,
)

BASE = "https://fhir.example.org/r4"


def test_it_names_the_token_endpoint_and_the_algorithms() -> None:
    said = {
        "token_endpoint": "https://login.example.org/token",
        "token_endpoint_auth_signing_alg_values_supported": ["RS384", "ES384", 1],
    }
    assert parse_smart_configuration(orjson.dumps(said), BASE) == SmartConfiguration(
        "https://login.example.org/token", frozenset({"RS384", "ES384"})
    )


@pytest.mark.parametrize("algorithms", [None, [], "RS384"])
def test_it_may_name_no_algorithms(algorithms: object) -> None:
    said = {
        "token_endpoint": "https://login.example.org/token",
        "token_endpoint_auth_signing_alg_values_supported": algorithms,
    }
    assert parse_smart_configuration(orjson.dumps(said), BASE).algorithms is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"token_endpoint": 1}',
        b'{"token_endpoint": "/token"}',
        b'{"token_endpoint": "https://"}',
        b'{"token_endpoint": "file:///etc/passwd"}',
        b'{"token_endpoint": "https://[::1"}',
        # It would send the login in clear.
        b'{"token_endpoint": "http://login.example.org/token"}',
    ],
)
def test_without_an_endpoint_somebody_must_set_one(content: bytes) -> None:
    with pytest.raises(LoginFailed) as raised:
        parse_smart_configuration(content, BASE)
    assert raised.value.code == "no_token_endpoint"


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, LoginFailed), (401, LoginFailed), (302, LoginFailed), (503, TokenUnavailable)],
)
async def test_a_status_says_whether_to_wait(status: int, error: type[TokenUnavailable]) -> None:
    async def answering(connection: Connection) -> None:
        await connection.read()
        await connection.response(status, b'{"token_endpoint": "http://127.0.0.1/token"}')

    async with serve(answering) as remote, open_http(connections=1) as http:
        with pytest.raises(TokenUnavailable) as raised:
            await read_smart_configuration(http, f"{remote.url}/r4")
    assert type(raised.value) is error
    (request,) = remote.requests
    assert request.line == "GET /r4/.well-known/smart-configuration HTTP/1.1"


async def test_a_server_that_does_not_answer_is_asked_later() -> None:
    async def answering(connection: Connection) -> None:
        await connection.read()
        connection.reset()

    async with serve(answering) as remote, open_http(connections=1) as http:
        with pytest.raises(TokenUnavailable) as raised:
            await read_smart_configuration(http, remote.url)
    assert raised.value.code == "no_answer"
