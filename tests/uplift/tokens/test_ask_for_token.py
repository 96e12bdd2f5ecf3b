"""The requests by which a deployment asks for its token with something that it signs."""

import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import orjson
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from tests.uplift.destinations.remote import Connection, Remote, Request, serve
from tests.uplift.tokens.login_keys import (
    EMAIL,
    ec_private,
    pem,
    rsa_private,
    write_service_account,
)
from uplift.destinations.destination import PrivateKeyLogin, ServiceAccountLogin, TokenLogin
from uplift.destinations.http_client import open_http
from uplift.errors import LoginFailed
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.testing import SandboxServer
from uplift.tokens.ask_for_token import ask_for_token
from uplift.tokens.signing_keys import key_set, read_key

NOW = 1_790_000_000.9
SCOPE = "system/*.cruds"


class Server:
    """A token endpoint, and what the base says of it."""

    def __init__(self, **smart: Any) -> None:
        self.smart = smart

    async def __call__(self, connection: Connection) -> None:
        while True:
            request = await connection.read()
            body: dict[str, Any] = {"access_token": "token", "expires_in": 300}
            if "smart-configuration" in request.line:
                body = {"token_endpoint": f"{connection.remote.url}/found", **self.smart}
            await connection.response(200, orjson.dumps(body))


async def asked(remote: Remote, login: TokenLogin) -> dict[str, str]:
    """The form of the request for a token."""
    async with open_http(connections=1) as http:
        pair = await ask_for_token(http, login, f"{remote.url}/r4", now=NOW)
    assert (pair.access_token, pair.expires_in) == ("token", 300)
    return form_of(remote.requests[-1])


def form_of(request: Request) -> dict[str, str]:
    return {name: value for name, (value,) in parse_qs(request.body.decode()).items()}


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key.pem"
    file.write_bytes(pem(ec_private()))
    return file


def put(file: Path, content: bytes | None) -> None:
    """Change what a file holds; None removes it."""
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)


async def test_smart_backend_services_signs_who_asks(key_file: Path) -> None:
    async with serve(Server()) as remote:
        url = f"{remote.url}/token"
        login = PrivateKeyLogin(
            "uplift", key_file, jwks_url="https://u.example/jwks", token_url=url, scope=SCOPE
        )
        form, again = await asked(remote, login), await asked(remote, login)
    assert form["grant_type"] == "client_credentials"
    assert form["scope"] == SCOPE
    assert form["client_assertion_type"] == (
        "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    )
    assert remote.requests[0].header("Authorization") is None
    key = ECKey.import_key(ec_private())
    signed = jwt.decode(form["client_assertion"], key, ["ES384"])
    assert signed.header == {
        "alg": "ES384",
        "typ": "JWT",
        "kid": key.thumbprint(),
        "jku": "https://u.example/jwks",
    }
    jti = signed.claims.pop("jti")
    assert signed.claims == {"iss": "uplift", "sub": "uplift", "aud": url, "exp": int(NOW) + 240}
    assert jwt.decode(again["client_assertion"], key, ["ES384"]).claims["jti"] != jti


async def test_a_service_account_signs_who_asks_and_for_what(tmp_path: Path) -> None:
    async with serve(Server()) as remote:
        file = write_service_account(tmp_path / "sa.json", f"{remote.url}/token")
        form = await asked(remote, ServiceAccountLogin(file, SCOPE))
        elsewhere = await asked(remote, ServiceAccountLogin(file, SCOPE, f"{remote.url}/other"))
    assert form.keys() == {"grant_type", "assertion"}
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    key = RSAKey.import_key(rsa_private())
    signed = jwt.decode(form["assertion"], key, ["RS256"])
    assert signed.header == {"alg": "RS256", "typ": "JWT", "kid": "0123456789abcdef"}
    assert signed.claims.pop("jti")
    assert signed.claims == {
        "iss": EMAIL,
        "scope": SCOPE,
        "aud": f"{remote.url}/token",
        "iat": int(NOW),
        "exp": int(NOW) + 240,
    }
    other = jwt.decode(elsewhere["assertion"], key, ["RS256"])
    assert other.claims["aud"] == f"{remote.url}/other"
    assert remote.requests[-1].line.startswith("POST /other ")


async def test_without_a_token_url_the_base_names_it(key_file: Path) -> None:
    async with serve(Server()) as remote:
        form = await asked(remote, PrivateKeyLogin("uplift", key_file))
        signed = jwt.decode(form["client_assertion"], ECKey.import_key(ec_private()), ["ES384"])
        assert signed.claims["aud"] == f"{remote.url}/found"
        assert "scope" not in form
        assert [request.line.split()[1] for request in remote.requests] == [
            "/r4/.well-known/smart-configuration",
            "/found",
        ]


async def test_an_algorithm_that_the_server_does_not_take_is_not_tried(key_file: Path) -> None:
    taken = {"token_endpoint_auth_signing_alg_values_supported": ["RS384"]}
    async with serve(Server(**taken)) as remote:
        with pytest.raises(LoginFailed) as raised:
            await asked(remote, PrivateKeyLogin("uplift", key_file))
        put(key_file, pem(rsa_private()))
        await asked(remote, PrivateKeyLogin("uplift", key_file))
    assert raised.value.code == "algorithm_not_taken"


async def test_a_key_file_is_read_again_for_each_token(key_file: Path) -> None:
    async with serve(Server()) as remote:
        login = PrivateKeyLogin("uplift", key_file, token_url=f"{remote.url}/token")
        await asked(remote, login)
        put(key_file, pem(ec_private("second")))
        form = await asked(remote, login)
        jwt.decode(form["client_assertion"], ECKey.import_key(ec_private("second")), ["ES384"])
        put(key_file, None)
        with pytest.raises(LoginFailed) as raised:
            await asked(remote, login)
    assert raised.value.code == "key_file_unreadable"
    assert len(remote.requests) == 2, "without a key nothing is asked"


@pytest.mark.parametrize("ahead", [-600, 600])
async def test_a_wrong_clock_is_told_from_a_wrong_key(
    key_file: Path, tmp_path: Path, ahead: float
) -> None:
    jwks = tmp_path / "jwks.json"
    put(jwks, orjson.dumps(key_set([read_key(key_file)])))
    config = SandboxConfig(like="hapi", auth="private_key_jwt", jwks=jwks)
    with SandboxServer(config) as server:
        async with open_http(connections=1) as http:
            login = PrivateKeyLogin(config.client_id, key_file, scope=SCOPE)
            base = f"{server.url}/r4"
            assert (await ask_for_token(http, login, base, now=time.time())).access_token
            with pytest.raises(LoginFailed) as raised:
                await ask_for_token(http, login, base, now=time.time() + ahead)
    assert raised.value.code == "clock_skew"
