"""Does the token endpoint of each destination give the deployment a token? If not, why?

The doctor asks for one of its own. What the processes share stays as it is.
"""

import asyncio
import time

from uplift.destinations.configured import configured_destinations
from uplift.destinations.destination import (
    ClientCredentialsLogin,
    Destination,
    PrivateKeyLogin,
    ServiceAccountLogin,
    TokenLogin,
)
from uplift.destinations.http_client import open_http
from uplift.doctor.findings import Finding, fail, ok, warn
from uplift.errors import ConfigurationError, LoginFailed, TokenUnavailable
from uplift.settings import Settings
from uplift.tokens.ask_for_token import ask_for_token
from uplift.tokens.login_keys import signing_key

PART = "login"


async def ask(settings: Settings) -> list[Finding]:
    """Each destination that has a token endpoint."""
    try:
        destinations = configured_destinations(settings)
    except ConfigurationError:
        return []  # the settings' own part says it
    asked = [
        _ask(each, each.login)
        for each in destinations.values()
        if isinstance(each.login, TokenLogin)
    ]
    return list(await asyncio.gather(*asked))


async def _ask(destination: Destination, login: TokenLogin) -> Finding:
    name = destination.name
    try:
        kid = await asyncio.to_thread(_kid, login)
        async with open_http(
            connections=1, proxy=destination.proxy, certificate=destination.client_certificate
        ) as http:
            await ask_for_token(http, login, destination.first_base, now=time.time())
    except ConfigurationError as error:
        return fail(PART, f"{name}: {error}", "Correct it. Uploads are held meanwhile.")
    except LoginFailed as error:
        return judge_refusal(name, login, error.code, kid)
    except TokenUnavailable as error:
        return warn(
            PART,
            f"{name}: the token endpoint does not answer as it should ({error.code})",
            "Check token_url, and that this machine can reach it (DNS, firewall, proxy, TLS)."
            " Uploads wait meanwhile.",
        )
    return ok(PART, f"{name}: the token endpoint gives a token" + (f" (key {kid})" if kid else ""))


def _kid(login: TokenLogin) -> str:
    """The name of the key that signs; empty if nothing is signed."""
    key = signing_key(login)
    return key.kid if key is not None else ""


_WHAT = {
    "clock_skew": "what was signed counts as too old or too new: the server's clock and this"
    " machine's differ",
    "unknown_key": "the server does not accept the key",
    "invalid_client": "the server does not accept the client",
    "http_401": "the server does not accept the client",
    "invalid_grant": "the server does not accept what was signed",
    "invalid_scope": "the server does not give the scope",
    "unauthorized_client": "the server does not let this client log in so",
    "unsupported_grant_type": "the server does not let this client log in so",
    "algorithm_not_taken": "the server takes other algorithms than that of the key",
    "no_token_endpoint": "its .well-known/smart-configuration names no token endpoint, or one"
    " without TLS",
    "http_403": "something before the token endpoint forbids it",
    "http_404": "there is no token endpoint",
    "http_405": "there is no token endpoint",
}
_DO = {
    "clock_skew": "Set this machine's clock by NTP (`timedatectl`), or have the server's set.",
    "algorithm_not_taken": "Make a key of the other kind (`uplift destinations new-key FILE"
    " --algorithm`, ES384 or RS384), and register it.",
    "no_token_endpoint": "Set token_url to the token endpoint.",
    "http_403": "Ask the server's operator: a network rule, or a proxy in front of it.",
    "http_404": "Check token_url.",
    "http_405": "Check token_url.",
}


def judge_refusal(name: str, login: TokenLogin, code: str, kid: str = "") -> Finding:
    """Why a destination's token endpoint gave no token, and who must do what.

    `code` is that of the LoginFailed, `kid` names the key that signed.
    """
    what = _WHAT.get(code, "the token endpoint refuses")
    do = _DO.get(code) or _do(name, login, code, kid)
    return fail(PART, f"{name}: {what} ({code})", f"{do} Uploads are held meanwhile.")


def _do(name: str, login: TokenLogin, code: str, kid: str) -> str:
    match code:
        case "invalid_scope" if not login.scope:
            return "It may want one: set scope, such as system/*.cruds."
        case "invalid_scope":
            return f"Grant {login.scope!r} to the client there, or set scope to what it has."
        case "unauthorized_client" | "unsupported_grant_type":
            grant = "jwt-bearer" if isinstance(login, ServiceAccountLogin) else "client_credentials"
            return f"Allow it the grant {grant} there, or set another login."
        case "unknown_key" | "invalid_client" | "invalid_grant" | "http_401":
            return _do_about_client(name, login, kid)
    return "Ask the server's operator why, and check the login of the destination."


def _do_about_client(name: str, login: TokenLogin, kid: str) -> str:
    match login:
        case ClientCredentialsLogin():
            return "Check client_id, client_secret and client_style."
        case PrivateKeyLogin():
            return (
                f"Check client_id. Register there what `uplift destinations jwks {name}` prints:"
                f" the key {kid} signs. A server that reads it from an address may know the old"
                " one for some minutes. If token_url is set, it must be as the server names it."
            )
        case ServiceAccountLogin():
            return (
                f"The key {kid} was deleted in Google Cloud, or its account was deleted or"
                " disabled: make a new key for an account that is enabled."
            )
