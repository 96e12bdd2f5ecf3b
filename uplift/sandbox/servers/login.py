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
_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


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
        case (("client_credentials" | "jwt_bearer"), "bearer"):
            return sandbox.accounts.holder_of_access(given)
    return None


def token(sandbox: Sandbox, exchange: Exchange) -> Response:
    """`POST /oauth2/token`: an access token for client_credentials, by secret basic or post; or for
    an assertion of the service account.
    """
    params, config = exchange.params, sandbox.config
    scheme, _, given = exchange.request.headers.get("authorization", "").partition(" ")
    if exchange.method != "POST":
        return message(405, "Method Not Allowed")
    if config.login == "jwt_bearer":
        return _for_assertion(sandbox, params)
    in_form = (params.get("client_id"), params.get("client_secret"))
    if in_form != (config.client_id, config.client_secret) and not (
        scheme.lower() == "basic" and _is_client(sandbox, given)
    ):
        return oauth_error("invalid_client", "Client authentication failed", 401)
    if params.get("grant_type") != "client_credentials":
        return oauth_error("unsupported_grant_type", "Unknown or missing grant_type")
    return _given(sandbox)


def smart_configuration(_: Sandbox, exchange: Exchange) -> Response:
    """`/{version}/.well-known/smart-configuration`: where the token endpoint is.

    https://hl7.org/fhir/smart-app-launch/STU2.2/conformance.html
    """
    root = exchange.base.rpartition("/")[0]
    return response(
        {
            "token_endpoint": f"{root}/oauth2/token",
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "grant_types_supported": ["client_credentials"],
            "capabilities": ["client-confidential-symmetric"],
        }
    )


def _for_assertion(sandbox: Sandbox, params: dict[str, str]) -> Response:
    if params.get("grant_type") != _JWT_BEARER:
        return oauth_error("unsupported_grant_type", "Invalid grant_type")
    account = sandbox.service_account
    if account is None or not account.signed(params.get("assertion", "")):
        return oauth_error("invalid_grant", "Invalid JWT Signature.")
    return _given(sandbox)


def _given(sandbox: Sandbox) -> Response:
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
