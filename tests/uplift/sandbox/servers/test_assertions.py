"""What a sandbox takes of what is signed: everything is verified, and nothing works twice."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from tests.uplift.tokens.login_keys import EMAIL, ec_private, rsa_private, write_service_account
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.testing import SandboxServer

Form = dict[str, str]
Change = dict[str, Any]
CLIENT = "sandbox-client"
KEY = ECKey.import_key(ec_private())
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@pytest.fixture(scope="module")
def jwks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "jwks.json"
    file.write_text(json.dumps({"keys": [{**KEY.as_dict(private=False), "kid": "ours"}]}))
    return file


@pytest.fixture(scope="module")
def smart(jwks: Path) -> Iterator[SandboxServer]:
    with SandboxServer(SandboxConfig(like="hapi", auth="private_key_jwt", jwks=jwks)) as server:
        yield server


@pytest.fixture(scope="module")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxServer]:
    file = write_service_account(tmp_path_factory.mktemp("keys") / "sa.json", "http://unused")
    config = SandboxConfig(like="hapi", auth="jwt_bearer", service_account=file)
    with SandboxServer(config) as server:
        yield server


def at_now(claims: Change) -> Change:
    """The claims with their times from now on, in seconds."""
    now = int(time.time())
    times = {name: now + claims[name] for name in ("exp", "iat") if claims.get(name) is not None}
    return claims | times


def without_nothing(values: Change) -> Change:
    return {name: value for name, value in values.items() if value is not None}


def client_form(url: str, *, header: Change, claims: Change, form: Change, key: Any = KEY) -> Form:
    """A request of SMART Backend Services, with these changes; None leaves something out."""
    head = {"alg": "ES384", "typ": "JWT", "kid": "ours", **header}
    said = {
        "iss": CLIENT,
        "sub": CLIENT,
        "aud": url,
        "exp": int(time.time()) + 200,
        "jti": str(uuid.uuid4()),
        **at_now(claims),
    }
    signed = jwt.encode(
        without_nothing(head), without_nothing(said), key, ["ES384", "RS384", "RS256", "HS256"]
    )
    whole = {
        "grant_type": "client_credentials",
        "client_assertion_type": _ASSERTION_TYPE,
        "client_assertion": signed,
        "scope": "system/*.cruds",
        **form,
    }
    return without_nothing(whole)


def account_form(url: str, *, header: Change, claims: Change, form: Change) -> Form:
    head = {"alg": "RS256", "typ": "JWT", "kid": "0123456789abcdef", **header}
    now = int(time.time())
    said = {
        "iss": EMAIL,
        "scope": "https://www.googleapis.com/auth/cloud-healthcare",
        "aud": url,
        "iat": now,
        "exp": now + 3000,
        "jti": str(uuid.uuid4()),
        **at_now(claims),
    }
    key = RSAKey.import_key(rsa_private())
    signed = jwt.encode(without_nothing(head), without_nothing(said), key, ["RS256", "RS384"])
    return without_nothing({"grant_type": _GRANT_TYPE, "assertion": signed, **form})


def ask(sandbox: SandboxServer, form: Form) -> tuple[int, str]:
    """The status, and the error if there is one."""
    answer = httpx.post(sandbox.token_url, data=form, trust_env=False)
    return answer.status_code, answer.json().get("error", "")


@pytest.mark.parametrize("make", [client_form, account_form])
def test_what_is_signed_right_gets_a_token_once(
    smart: SandboxServer, google: SandboxServer, make: Callable[..., Form]
) -> None:
    sandbox = smart if make is client_form else google
    form = make(sandbox.token_url, header={}, claims={}, form={})
    answer = httpx.post(sandbox.token_url, data=form, trust_env=False)
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    assert httpx.get(f"{sandbox.url}/r4/Patient", headers=headers, trust_env=False).is_success
    assert httpx.get(f"{sandbox.url}/r4/Patient", trust_env=False).status_code == 401
    again = httpx.post(sandbox.token_url, data=form, trust_env=False)
    assert again.json()["error_description"] == "jti was used before"


@pytest.mark.parametrize(
    ("changed", "refusal"),
    [
        ({"header": {"kid": "another"}}, (401, "invalid_client")),
        ({"header": {"kid": None}}, (401, "invalid_client")),
        ({"header": {"typ": "at+jwt"}}, (401, "invalid_client")),
        ({"claims": {"iss": "another"}}, (401, "invalid_client")),
        ({"claims": {"sub": "another"}}, (401, "invalid_client")),
        ({"claims": {"aud": "http://elsewhere/oauth2/token"}}, (401, "invalid_client")),
        ({"claims": {"aud": None}}, (401, "invalid_client")),
        ({"claims": {"exp": -1}}, (401, "invalid_client")),
        ({"claims": {"exp": 900}}, (401, "invalid_client")),
        ({"claims": {"exp": None}}, (401, "invalid_client")),
        ({"claims": {"jti": None}}, (401, "invalid_client")),
        ({"form": {"client_assertion": "a.b.c"}}, (401, "invalid_client")),
        ({"form": {"client_assertion": None}}, (400, "invalid_request")),
        ({"form": {"client_assertion_type": "another"}}, (400, "invalid_request")),
        ({"form": {"grant_type": "password"}}, (400, "unsupported_grant_type")),
        ({"form": {"scope": None}}, (400, "invalid_scope")),
        ({"form": {"scope": "user/*.read"}}, (400, "invalid_scope")),
    ],
)
def test_what_a_client_signs_is_verified(
    smart: SandboxServer, changed: dict[str, Change], refusal: tuple[int, str]
) -> None:
    parts: dict[str, Change] = {"header": {}, "claims": {}, "form": {}, **changed}
    assert ask(smart, client_form(smart.token_url, **parts)) == refusal


def test_another_key_under_a_known_name_is_refused(smart: SandboxServer) -> None:
    parts: dict[str, Change] = {"header": {}, "claims": {}, "form": {}}
    other = ECKey.import_key(ec_private("second"))
    refused = (401, "invalid_client")
    assert ask(smart, client_form(smart.token_url, key=other, **parts)) == refused
    parts["header"] = {"alg": "RS256"}
    rsa = RSAKey.import_key(rsa_private())
    assert ask(smart, client_form(smart.token_url, key=rsa, **parts)) == refused


@pytest.mark.parametrize(
    ("changed", "refusal"),
    [
        ({"header": {"kid": "another"}}, (400, "invalid_grant")),
        ({"header": {"alg": "RS384"}}, (400, "invalid_grant")),
        ({"claims": {"iss": "another@example.org"}}, (400, "invalid_grant")),
        ({"claims": {"aud": "http://elsewhere"}}, (400, "invalid_grant")),
        ({"claims": {"iat": 900}}, (400, "invalid_grant")),
        ({"claims": {"iat": None}}, (400, "invalid_grant")),
        ({"claims": {"exp": 4000}}, (400, "invalid_grant")),
        ({"claims": {"scope": None}}, (400, "invalid_scope")),
        ({"claims": {"scope": "system/*.cruds"}}, (400, "invalid_scope")),
        ({"form": {"grant_type": "client_credentials"}}, (400, "unsupported_grant_type")),
        ({"form": {"assertion": None}}, (400, "invalid_grant")),
    ],
)
def test_what_a_service_account_signs_is_verified(
    google: SandboxServer, changed: dict[str, Change], refusal: tuple[int, str]
) -> None:
    parts: dict[str, Change] = {"header": {}, "claims": {}, "form": {}, **changed}
    assert ask(google, account_form(google.token_url, **parts)) == refusal


def test_smarts_logins_are_described_at_the_base(
    smart: SandboxServer, google: SandboxServer
) -> None:
    where = "/r4/.well-known/smart-configuration"
    said = httpx.get(f"{smart.url}{where}", trust_env=False).json()
    assert said["token_endpoint"] == smart.token_url
    assert said["token_endpoint_auth_signing_alg_values_supported"] == ["RS384", "ES384"]
    assert httpx.get(f"{google.url}{where}", trust_env=False).status_code == 404
