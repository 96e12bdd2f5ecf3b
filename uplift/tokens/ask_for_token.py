"""One request for the deployment's token, as its login wants it.

client_credentials: RFC 6749, 4.4. private_key_jwt: SMART App Launch 2.2, "Backend Services".
jwt_bearer: RFC 7523, 2.1.
"""

import asyncio
import base64
from dataclasses import dataclass, field
from urllib.parse import quote

import httpx

from uplift.destinations.destination import (
    ClientCredentialsLogin,
    ClientStyle,
    PrivateKeyLogin,
    ServiceAccountLogin,
    TokenLogin,
)
from uplift.errors import LoginFailed, TokenError, TokenUnavailable, UnusableKey
from uplift.ledger.token_pair import TokenPair
from uplift.tokens.assertions import client_assertion, grant_assertion
from uplift.tokens.login_refusals import login_refusal
from uplift.tokens.service_account import read_service_account
from uplift.tokens.signing_keys import read_key
from uplift.tokens.smart_configuration import SmartConfiguration, read_smart_configuration
from uplift.tokens.token_request import post_form, token_pair

_SECONDS = 20.0
_CLIENT_CREDENTIALS = {"grant_type": "client_credentials"}
_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True, slots=True)
class _Form:
    url: str
    fields: dict[str, str] = field(repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    signed: bool = True


async def ask_for_token(
    http: httpx.AsyncClient, login: TokenLogin, base: str, *, now: float
) -> TokenPair:
    """A new token. `base` is that of the server; `now` is the time in seconds since 1970.

    The files of keys are read each time. Raises LoginFailed if somebody must change something,
    and TokenUnavailable if there is no answer.
    """
    try:
        form = await _form(http, login, base, now)
    except UnusableKey as error:
        raise LoginFailed(error.code) from None
    try:
        status, response, headers = await post_form(
            http, form.url, form.fields, form.headers, seconds=_SECONDS
        )
    except TokenError as error:
        raise TokenUnavailable(error.code) from None
    try:
        return token_pair(status, response, headers)
    except TokenError:
        raise login_refusal(status, response, headers, signed=form.signed, now=now) from None


async def _form(http: httpx.AsyncClient, login: TokenLogin, base: str, now: float) -> _Form:
    match login:
        case ClientCredentialsLogin():
            return _with_secret(login, (await _endpoint(http, login.token_url, base)).token_url)
        case PrivateKeyLogin():
            endpoint = await _endpoint(http, login.token_url, base)
            return await asyncio.to_thread(_with_private_key, login, endpoint, now)
        case ServiceAccountLogin():
            return await asyncio.to_thread(_of_service_account, login, now)


async def _endpoint(http: httpx.AsyncClient, token_url: str, base: str) -> SmartConfiguration:
    if token_url:
        return SmartConfiguration(token_url)
    return await read_smart_configuration(http, base)


def _with_secret(login: ClientCredentialsLogin, url: str) -> _Form:
    fields = _CLIENT_CREDENTIALS | ({"scope": login.scope} if login.scope else {})
    secret = login.secret.get_secret_value()
    if login.style is ClientStyle.POST:
        fields |= {"client_id": login.client_id, "client_secret": secret}
        return _Form(url, fields, signed=False)
    # RFC 6749, 2.3.1: both are form-encoded first.
    pair = f"{quote(login.client_id, safe='')}:{quote(secret, safe='')}"
    basic = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return _Form(url, fields, {"Authorization": basic}, signed=False)


def _with_private_key(login: PrivateKeyLogin, endpoint: SmartConfiguration, now: float) -> _Form:
    key = read_key(login.key_file)
    if endpoint.algorithms is not None and key.algorithm not in endpoint.algorithms:
        raise LoginFailed("algorithm_not_taken")
    url = endpoint.token_url
    assertion = client_assertion(login, key, url, now)
    fields = {"client_assertion_type": _ASSERTION_TYPE, "client_assertion": assertion}
    scope = {"scope": login.scope} if login.scope else {}
    return _Form(url, {**_CLIENT_CREDENTIALS, **fields, **scope})


def _of_service_account(login: ServiceAccountLogin, now: float) -> _Form:
    account = read_service_account(login.file)
    url = login.token_url or account.token_url
    assertion = grant_assertion(account, login.scope, url, now)
    return _Form(url, {"grant_type": _JWT_BEARER, "assertion": assertion})
