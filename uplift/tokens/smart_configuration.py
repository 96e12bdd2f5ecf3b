"""Where a server gives tokens, as it says itself: `.well-known/smart-configuration`.

SMART App Launch 2.2, "Conformance".
"""

import asyncio
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx
import orjson

from uplift.destinations.contents import read_content
from uplift.destinations.responses import retry_after
from uplift.errors import LoginFailed, ResponseTooLarge, TokenUnavailable

_SECONDS = 10.0
_MAX_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class SmartConfiguration:
    """The token endpoint, and the algorithms of assertions that it takes; None if it names none."""

    token_url: str
    algorithms: frozenset[str] | None = None


async def read_smart_configuration(http: httpx.AsyncClient, base: str) -> SmartConfiguration:
    """What the server of that base says about its login.

    Raises LoginFailed if it does not say where tokens are, and TokenUnavailable if it does not
    answer.
    """
    url = f"{base}/.well-known/smart-configuration"
    try:
        async with (
            asyncio.timeout(_SECONDS),
            http.stream("GET", url, headers={"Accept": "application/json"}) as response,
        ):
            content = await read_content(response, _MAX_BYTES)
    except ResponseTooLarge:
        content = b""
    except (httpx.RequestError, aiohttp.ClientError, OSError, ValueError):
        # From None: the cause contains the URL.
        raise TokenUnavailable("no_answer") from None
    status = response.status_code
    if status in (408, 429) or status >= 500:
        raise TokenUnavailable(f"http_{status}", retry_after=retry_after(response.headers))
    return parse_smart_configuration(content if status == httpx.codes.OK else b"", base)


def parse_smart_configuration(content: bytes, base: str) -> SmartConfiguration:
    """What a response's body says. Raises LoginFailed if it names no token endpoint.

    An endpoint without TLS counts for none where the base has it: what logs in would cross the
    network in clear.
    """
    try:
        said: Any = orjson.loads(content)
    except orjson.JSONDecodeError:
        said = None
    url = said.get("token_endpoint") if isinstance(said, dict) else None
    if not isinstance(url, str) or not _may_be_asked(url, base):
        raise LoginFailed("no_token_endpoint")
    listed = said.get("token_endpoint_auth_signing_alg_values_supported")
    if not isinstance(listed, list) or not listed:
        return SmartConfiguration(url)
    return SmartConfiguration(url, frozenset(each for each in listed if isinstance(each, str)))


def _may_be_asked(url: str, base: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.scheme in {"https", urlsplit(base).scheme}
    except ValueError:
        return False
