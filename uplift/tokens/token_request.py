"""One request to a token endpoint, and what its response means: RFC 6749, 5."""

import asyncio
import math
from collections.abc import Mapping
from typing import Any

import aiohttp
import httpx
import orjson

from uplift.destinations.contents import read_content
from uplift.destinations.responses import retry_after
from uplift.errors import ResponseTooLarge, TokenError, Trouble
from uplift.ledger.token_pair import TokenPair

_MAX_RESPONSE_BYTES = 64 * 1024


async def post_form(
    http: httpx.AsyncClient,
    url: str,
    form: Mapping[str, str],
    headers: Mapping[str, str],
    *,
    seconds: float,
) -> tuple[int, dict[str, Any], httpx.Headers]:
    """The status of a form's response, its JSON object, empty if it has none, and its headers.

    Raises TokenError if there is no response in so many seconds.
    """
    try:
        # httpx's own time-outs are for each step: a response that trickles would never end.
        async with (
            asyncio.timeout(seconds),
            http.stream(
                "POST", url, data=dict(form), headers={"Accept": "application/json", **headers}
            ) as response,
        ):
            content = await read_content(response, _MAX_RESPONSE_BYTES)
    except ResponseTooLarge:
        content = b""  # the status still tells
    except (httpx.RequestError, aiohttp.ClientError, OSError, ValueError):
        # From None: the cause contains the URL, and its request contains the secrets.
        raise TokenError(Trouble.UNAVAILABLE, "no_answer") from None
    try:
        parsed = orjson.loads(content)
    except orjson.JSONDecodeError:
        parsed = None
    return response.status_code, parsed if isinstance(parsed, dict) else {}, response.headers


def token_pair(status: int, response: dict[str, Any], headers: httpx.Headers) -> TokenPair:
    """The tokens of a response. Raises TokenError if it has none."""
    access, refresh = response.get("access_token"), response.get("refresh_token")
    if status == 200 and isinstance(access, str) and access:
        return TokenPair(
            access,
            refresh if isinstance(refresh, str) and refresh else None,
            _seconds(response.get("expires_in")),
        )
    raise trouble(status, response, headers)


def trouble(status: int, response: dict[str, Any], headers: httpx.Headers) -> TokenError:
    """Why a response has no tokens."""
    code = f"http_{status}"
    if status == 429:
        return TokenError(Trouble.BUSY, code, retry_after=retry_after(headers))
    error = response.get("error")
    # RFC 6749, 5.2: invalid_grant means that this code or refresh token is over. invalid_client
    # means that the deployment is wrong: it must end nobody's consent. User management says
    # success: false if it refuses the user; for a wrong address or client it says other things.
    if error == "invalid_grant" or (response.get("success") is False and status in {400, 404}):
        return TokenError(Trouble.REFUSED, code)
    return TokenError(Trouble.UNAVAILABLE, code, retry_after=retry_after(headers))


def _seconds(expires_in: Any) -> float:
    # 7200, 7199 and 3599 are documented. If the value is missing or odd, the token ends soon.
    try:
        seconds = float(expires_in)
    except (TypeError, ValueError):
        return 600.0
    return min(max(seconds, 1.0), 24 * 3600.0) if math.isfinite(seconds) else 600.0
