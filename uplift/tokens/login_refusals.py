"""Why a token endpoint gave the deployment no token. Pure.

Of the response's text nothing is kept: it may quote what was sent. It is only searched for a few
words, since servers say `invalid_client` of a wrong id, an unknown key and a wrong clock alike.
"""

import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from uplift.destinations.responses import retry_after
from uplift.errors import LoginFailed, TokenUnavailable

# RFC 6749, 5.2.
_ERRORS = frozenset(
    {
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "unauthorized_client",
        "unsupported_grant_type",
    }
)
_LATER = frozenset({"server_error", "temporarily_unavailable", "slow_down"})
_TRY_AGAIN = frozenset({408, 425, 429})
# An assertion is good for four minutes, and some servers allow no more than five.
_MAX_SKEW_SECONDS = 45.0
# Not "expired", which is said of clients and secrets too.
_OF_TIME = re.compile(
    r"\b(exp|iat|nbf|not yet valid|in the future|timeframe|clock)\b", re.IGNORECASE
)
_OF_KEY = re.compile(r"\b(kid|jwks?|jku|key ?id|keys?|signature)\b", re.IGNORECASE)


def login_refusal(
    status: int,
    response: dict[str, Any],
    headers: httpx.Headers,
    *,
    signed: bool,
    now: float,
) -> TokenUnavailable:
    """The error for a response without a token. `signed`: an assertion was sent. `now`: when, in
    seconds since 1970, by the clock that dated it.

    A LoginFailed if somebody must change something. Its code is `clock_skew`, `unknown_key`, an
    error of RFC 6749, or the status.
    """
    code = f"http_{status}"
    error = response.get("error")
    passes = status < 300 or status >= 500 or status in _TRY_AGAIN or error in _LATER
    if passes:
        return TokenUnavailable(code, retry_after=retry_after(headers))
    if signed and error in ("invalid_client", "invalid_grant", "invalid_request"):
        said = str(response.get("error_description", ""))
        if abs(_skew(headers, now)) > _MAX_SKEW_SECONDS or _OF_TIME.search(said):
            return LoginFailed("clock_skew")
        if _OF_KEY.search(said):
            return LoginFailed("unknown_key")
    return LoginFailed(error if error in _ERRORS else code)


def _skew(headers: httpx.Headers, now: float) -> float:
    """How many seconds the server's clock is ahead; 0 if it does not say its time."""
    try:
        at = parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, OverflowError):
        return 0.0
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now
