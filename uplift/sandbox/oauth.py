"""The token endpoint and user management."""

from typing import Any

from starlette.responses import Response

from uplift.sandbox.accounts import Account, InvalidGrantError, TokenPair
from uplift.sandbox.exchange import Exchange
from uplift.sandbox.responses import message, not_successful, oauth_error, response
from uplift.sandbox.state import Sandbox


def token(sandbox: Sandbox, exchange: Exchange) -> Response:
    """`POST /oauth2/token`: a code or a refresh token for a pair of tokens."""
    if exchange.method != "POST":
        return message(405, "Method Not Allowed")
    params, config = exchange.params, sandbox.config
    if (params.get("client_id"), params.get("client_secret")) != (
        config.client_id,
        config.client_secret,
    ):
        return oauth_error("invalid_client", "Client authentication failed", 401)
    ended = sandbox.faults.consent_ended(exchange)
    try:
        match params.get("grant_type"):
            case "authorization_code" if not ended:
                pair = sandbox.accounts.exchange_code(params.get("code", ""))
            case "refresh_token" if not (ended or sandbox.faults.refresh_refused(exchange)):
                pair = sandbox.accounts.refresh(params.get("refresh_token", ""))
            case "authorization_code" | "refresh_token":
                return _invalid_grant()
            case _:
                return oauth_error("unsupported_grant_type", "Unknown or missing grant_type")
    except InvalidGrantError:
        return _invalid_grant()
    return response(token_body(pair), headers={"Cache-Control": "no-store"})


def _invalid_grant() -> Response:
    return oauth_error("invalid_grant", "The code or refresh token is invalid or expired")


def token_body(pair: TokenPair) -> dict[str, Any]:
    """The documented response of the token endpoint."""
    return {
        "refresh_token": pair.refresh_token,
        "token_type": "Bearer",
        "access_token": pair.access_token,
        "expires_in": pair.expires_in,
        "scope": "user/*.*",
    }


def holder_of_grant(sandbox: Sandbox, exchange: Exchange) -> Account | None:
    """Whose code or refresh token a token request carries."""
    params = exchange.params
    return sandbox.accounts.holder_of_refresh(
        params.get("refresh_token", "")
    ) or sandbox.accounts.holder_of_code(params.get("code", ""))


def named_user(sandbox: Sandbox, exchange: Exchange) -> Account | None:
    """Whom a user-management request names."""
    params = exchange.params
    if "oneup_user_id" in params:
        return sandbox.accounts.by_oneup_id(params["oneup_user_id"])
    return sandbox.accounts.by_app_id(params.get("app_user_id", ""))


def user(sandbox: Sandbox, exchange: Exchange) -> Response:
    """`/user-management/v1/user`: POST creates, GET lists, PUT updates."""
    if (refused := _refuse_call(sandbox, exchange)) is not None:
        return refused
    match exchange.method:
        case "POST":
            return _create(sandbox, exchange)
        case "GET":
            return _list(sandbox, exchange)
        case "PUT":
            return _update(sandbox, exchange)
        case _:
            return message(405, "Method Not Allowed")


def auth_code(sandbox: Sandbox, exchange: Exchange) -> Response:
    """`POST /user-management/v1/user/auth-code`: a new code for a user who exists."""
    if (refused := _refuse_call(sandbox, exchange)) is not None:
        return refused
    if exchange.method != "POST":
        return message(405, "Method Not Allowed")
    if exchange.account is None:
        return not_successful(sandbox.config.unknown_user_status, "this user does not exist")
    if not exchange.account.active or sandbox.faults.consent_ended(exchange):
        return not_successful(400, "this user is not active")
    return _with_code(sandbox, exchange.account)


def _refuse_call(sandbox: Sandbox, exchange: Exchange) -> Response | None:
    headers, config = exchange.request.headers, sandbox.config
    own = (config.client_id, config.client_secret)
    # In headers as the newest page says, in the query or the form as the older ones do.
    if own not in (
        (sent.get("client_id"), sent.get("client_secret")) for sent in (headers, exchange.params)
    ):
        return message(401, "Unauthorized")
    if not sandbox.accounts.spend_call():
        return message(429, "Too Many Requests")
    return None


def _create(sandbox: Sandbox, exchange: Exchange) -> Response:
    app_user_id = exchange.params.get("app_user_id")
    if not app_user_id:
        return not_successful(400, "app_user_id is required")
    if exchange.account is not None:
        return not_successful(sandbox.config.existing_user_status, "this user already exists")
    return _with_code(sandbox, sandbox.accounts.create(app_user_id), status=201)


def _list(sandbox: Sandbox, exchange: Exchange) -> Response:
    asked = {"app_user_id", "oneup_user_id"} & exchange.params.keys()
    found = [exchange.account] if asked else sandbox.accounts.list_users()
    return response({"success": True, "entry": [_body(one) for one in found if one is not None]})


def _update(sandbox: Sandbox, exchange: Exchange) -> Response:
    account = exchange.account
    if account is None:
        return not_successful(sandbox.config.unknown_user_status, "this user does not exist")
    if "active" in exchange.params:
        active = exchange.params["active"].lower() == "true"
        sandbox.accounts.activate(account, active=active)
    return response({"success": True, **_body(account)})


def _with_code(sandbox: Sandbox, account: Account, status: int = 200) -> Response:
    code = sandbox.accounts.issue_code(account)
    return response({"success": True, "code": code, **_body(account)}, status)


def _body(account: Account) -> dict[str, Any]:
    return {
        "oneup_user_id": int(account.oneup_user_id),
        "app_user_id": account.app_user_id,
        "active": account.active,
    }
