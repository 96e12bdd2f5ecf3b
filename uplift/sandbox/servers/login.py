"""Who may call, by `SandboxConfig.login`. HAPI itself has none; what is put before it has."""

import base64
import binascii
import hmac

from starlette.responses import Response

from uplift.sandbox.accounts import Account
from uplift.sandbox.exchange import Exchange
from uplift.sandbox.responses import message, oauth_error, response
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
        case "client_credentials", "bearer":
            return sandbox.accounts.holder_of_access(given)
    return None


def token(sandbox: Sandbox, exchange: Exchange) -> Response:
    """`POST /oauth2/token`: an access token for client_credentials, by secret basic or post."""
    params, config = exchange.params, sandbox.config
    scheme, _, given = exchange.request.headers.get("authorization", "").partition(" ")
    if exchange.method != "POST":
        return message(405, "Method Not Allowed")
    in_form = (params.get("client_id"), params.get("client_secret"))
    if in_form != (config.client_id, config.client_secret) and not (
        scheme.lower() == "basic" and _is_client(sandbox, given)
    ):
        return oauth_error("invalid_client", "Client authentication failed", 401)
    if params.get("grant_type") != "client_credentials":
        return oauth_error("unsupported_grant_type", "Unknown or missing grant_type")
    pair = sandbox.accounts.issue_tokens(_client(sandbox).oneup_user_id)
    body = {
        "access_token": pair.access_token,
        "token_type": "Bearer",
        "expires_in": pair.expires_in,
    }
    return response(body, headers={"Cache-Control": "no-store"})


def _client(sandbox: Sandbox) -> Account:
    return sandbox.accounts.by_app_id(_CLIENT) or sandbox.accounts.create(_CLIENT)


def _is_client(sandbox: Sandbox, given: str) -> bool:
    expected = f"{sandbox.config.client_id}:{sandbox.config.client_secret}".encode()
    try:
        return hmac.compare_digest(base64.b64decode(given, validate=True), expected)
    except (binascii.Error, ValueError):
        return False
