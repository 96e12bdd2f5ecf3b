"""What is signed is verified: who signed it, for whom, until when, and that it comes once.

SMART App Launch 2.2, "Client Authentication: Asymmetric"; RFC 7523, 3; Google, "Using OAuth 2.0 for
Server to Server Applications".
"""

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, GuestProtocol, Key, RSAKey

CLIENT_ALGORITHMS = ("RS384", "ES384")
_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_CLIENT_SECONDS = 300
_ACCOUNT_SECONDS = 3600
# Google forgives a clock that is a little ahead.
_AHEAD_SECONDS = 60


class NotAcceptedError(Exception):
    """What the token endpoint answers: an error of RFC 6749, 5.2, with its description."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.error, self.description, self.status = error, description, status


class Assertions:
    """Verifies assertions, and remembers the `jti` of each until it ends."""

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}

    def check_client(
        self, form: Mapping[str, str], client_id: str, jwks: Path | None, url: str
    ) -> None:
        """Take a client_credentials request with an assertion, or raise NotAcceptedError."""
        if form.get("client_assertion_type") != _TYPE or "client_assertion" not in form:
            raise NotAcceptedError("invalid_request", "A client_assertion of type jwt-bearer")
        try:
            claims = _signed(form["client_assertion"], _client_keys(jwks), CLIENT_ALGORITHMS)
            _require(claims.get("iss") == claims.get("sub") == client_id, "Unknown client_id")
            self._check(claims, url, _CLIENT_SECONDS)
        except _Wrong as wrong:
            raise NotAcceptedError("invalid_client", str(wrong), 401) from None
        scope = form.get("scope", "")
        if not scope or not all(each.startswith("system/") for each in scope.split()):
            raise NotAcceptedError("invalid_scope", "The scope must be of the kind system/")

    def check_account(self, form: Mapping[str, str], file: Path | None, url: str) -> None:
        """Take a request with a grant assertion of a service account, or raise NotAcceptedError."""
        try:
            email, keys = _account(file)
            claims = _signed(form.get("assertion", ""), keys, ("RS256",))
            _require(claims.get("iss") == email, "Invalid grant: account not found")
            self._check(claims, url, _ACCOUNT_SECONDS)
            issued = claims.get("iat")
            in_time = isinstance(issued, int) and issued - _AHEAD_SECONDS <= time.time()
            _require(in_time, "Check your iat and exp values in the JWT claim")
        except _Wrong as wrong:
            raise NotAcceptedError("invalid_grant", str(wrong)) from None
        scope = claims.get("scope")
        if not isinstance(scope, str) or not scope:
            raise NotAcceptedError("invalid_scope", "Empty or missing scope not allowed.")
        if not all(each.startswith("https://www.googleapis.com/auth/") for each in scope.split()):
            raise NotAcceptedError("invalid_scope", "Some requested scopes were invalid.")

    def _check(self, claims: dict[str, Any], url: str, seconds: float) -> None:
        now = time.time()
        ends: Any = claims.get("exp")
        jti: Any = claims.get("jti")
        _require(claims.get("aud") in (url, [url]), f"aud must be {url}")
        _require(isinstance(ends, int) and ends > now, "exp is missing, or has passed")
        _require(ends <= now + seconds, f"exp must be within {seconds:.0f} seconds")
        self._seen = {name: until for name, until in self._seen.items() if until > now}
        _require(isinstance(jti, str) and jti != "", "jti is missing")
        _require(jti not in self._seen, "jti was used before")
        self._seen[jti] = ends


class _Wrong(Exception):
    """What is wrong with an assertion."""


def _require(holds: object, what: str) -> None:
    if not holds:
        raise _Wrong(what)


def _signed(assertion: str, keys: Mapping[str, Key], algorithms: tuple[str, ...]) -> dict[str, Any]:
    def by_kid(signed: GuestProtocol) -> Key:
        header = signed.headers()
        _require(header.get("typ") == "JWT", "typ must be JWT")
        _require(header.get("kid") in keys, "Unknown kid")
        return keys[header["kid"]]

    try:
        return jwt.decode(assertion, by_kid, algorithms).claims
    except (JoseError, ValueError):
        raise _Wrong("The assertion is malformed, or its signature does not verify") from None


def _client_keys(jwks: Path | None) -> dict[str, Key]:
    if jwks is None:
        return {}
    keys: dict[str, Key] = {}
    for each in orjson.loads(jwks.read_bytes())["keys"]:
        keys[each["kid"]] = (RSAKey if each["kty"] == "RSA" else ECKey).import_key(each)
    return keys


def _account(file: Path | None) -> tuple[str, dict[str, Key]]:
    if file is None:
        raise _Wrong("Invalid grant: account not found")
    account = orjson.loads(file.read_bytes())
    key = RSAKey.import_key(account["private_key"])
    return account["client_email"], {account["private_key_id"]: key}


def write_account(file: Path, token_url: str) -> None:
    """Write a service account's file as Google's console gives one, unless it is there."""
    key = RSAKey.generate_key(2048)
    account = {
        "type": "service_account",
        "project_id": "sandbox",
        "private_key_id": key.thumbprint(),
        "private_key": key.as_pem(private=True).decode(),
        "client_email": "uplift@sandbox.iam.gserviceaccount.com",
        "token_uri": token_url,
    }
    with suppress(FileExistsError):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(opened, "wb") as stream:
            stream.write(orjson.dumps(account, option=orjson.OPT_INDENT_2))
