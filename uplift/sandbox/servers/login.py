"""Who may call, by `SandboxConfig.login`. HAPI itself has none; what is put before it has."""

import base64
import binascii
import hmac
from typing import Any

from starlette.responses import Response

from uplift.sandbox.accounts import Account
from uplift.sandbox.exchange import Exchange
from uplift.sandbox.responses import message, oauth_error, response
from uplift.sandbox.servers.assertions import CLIENT_ALGORITHMS, NotAcceptedError
from uplift.sandbox.state import Sandbox

_CLIENT = "client"
"""The one account: the deployment's."""


def caller(sandbox: Sandbox, exchange: Exchange) -> Account | None:
    """The deployment, if the request may pass."""
    headers, config = exchange.request.headers, sandbox.config
    scheme, _, given = headers.get("authorization", "").partition(" ")
    match config.login, scheme.lower():
        case "none", _:
            return _client(sandbox)
        case "basic", "basic" if _is_client(sandbox, given):
            return _client(sandbox)
        case "bearer", "bearer" if hmac.compare_digest(given, config.client_secret):
            return _client(sandbox)
        case (("client_credentials" | "private_key_jwt" | "jwt_bearer"), "bearer"):
            return sandbox.accounts.holder_of_access(given)
    return None


def token(sandbox: Sandbox, exchange: Exchange) -> Response:
    """`POST /oauth2/token`: an access token for who logs in as `SandboxConfig.login` wants it."""
    if exchange.method != "POST":
        return message(405, "Method Not Allowed")
    try:
        _check(sandbox, exchange)
    except NotAcceptedError as why:
        return oauth_error(why.error, why.description, why.status)
    pair = sandbox.accounts.issue_tokens(_client(sandbox).oneup_user_id)
    body = {
        "access_token": pair.access_token,
        "token_type": "Bearer",
        "expires_in": pair.expires_in,
    }
    return response(body, headers={"Cache-Control": "no-store"})


def smart_configuration(sandbox: Sandbox, exchange: Exchange) -> Response:
    """`/{version}/.well-known/smart-configuration`, where SMART's logins are asked for."""
    if sandbox.config.login not in ("client_credentials", "private_key_jwt"):
        return message(404, "Not Found")
    said: dict[str, Any] = {
        "token_endpoint": _token_url(exchange),
        "grant_types_supported": ["client_credentials"],
        "scopes_supported": ["system/*.cruds"],
        "capabilities": ["client-confidential-symmetric"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
    }
    if sandbox.config.login == "private_key_jwt":
        said |= {
            "capabilities": ["client-confidential-asymmetric"],
            "token_endpoint_auth_methods_supported": ["private_key_jwt"],
            "token_endpoint_auth_signing_alg_values_supported": list(CLIENT_ALGORITHMS),
        }
    return response(said)


def _check(sandbox: Sandbox, exchange: Exchange) -> None:
    """Raise NotAcceptedError unless the client may have a token."""
    params, config = exchange.params, sandbox.config
    grant = "client_credentials"
    if config.login == "jwt_bearer":
        grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
    if config.login == "client_credentials":
        _check_secret(sandbox, exchange)
    if params.get("grant_type") != grant:
        raise NotAcceptedError("unsupported_grant_type", "Unknown or missing grant_type")
    url = _token_url(exchange)
    match config.login:
        case "client_credentials" if config.profile is not None and config.profile.scope:
            bases = [url.replace("oauth2/token", version) for version in config.profile.versions]
            taken = [config.profile.scope.replace("{base}", base) for base in bases]
            if params.get("scope") not in taken:
                raise NotAcceptedError("invalid_scope", f"The scope must be {' or '.join(taken)}")
        case "private_key_jwt":
            sandbox.assertions.check_client(params, config.client_id, config.jwks, url)
        case "jwt_bearer":
            sandbox.assertions.check_account(params, config.service_account, url)


def _check_secret(sandbox: Sandbox, exchange: Exchange) -> None:
    params, config = exchange.params, sandbox.config
    scheme, _, given = exchange.request.headers.get("authorization", "").partition(" ")
    in_form = (params.get("client_id"), params.get("client_secret"))
    if in_form != (config.client_id, config.client_secret) and not (
        scheme.lower() == "basic" and _is_client(sandbox, given)
    ):
        raise NotAcceptedError("invalid_client", "Client authentication failed", 401)


def _token_url(exchange: Exchange) -> str:
    """As the client named it: what is signed for another one is not taken."""
    host = exchange.request.headers.get("host", "localhost")
    return f"{exchange.request.scope['scheme']}://{host}/oauth2/token"


def _client(sandbox: Sandbox) -> Account:
    return sandbox.accounts.by_app_id(_CLIENT) or sandbox.accounts.create(_CLIENT)


def _is_client(sandbox: Sandbox, given: str) -> bool:
    expected = f"{sandbox.config.client_id}:{sandbox.config.client_secret}".encode()
    try:
        return hmac.compare_digest(base64.b64decode(given, validate=True), expected)
    except (binascii.Error, ValueError):
        return False
