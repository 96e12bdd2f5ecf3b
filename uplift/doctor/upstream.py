"""Does 1upHealth respond, and does it know the application?

The doctor tries the credentials at the token endpoint, with a refresh token that nobody has. By
RFC 6749, 5.2, `invalid_client` means that the client is wrong, and `invalid_grant` that the token
is: then the client is known. This changes no user's tokens. It is not a user-management call: each
of those would count against the quota.
"""

import asyncio
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp
import httpx
import orjson

from uplift.destinations.contents import read_content
from uplift.destinations.http_client import open_http
from uplift.doctor.configuration import with_oneup
from uplift.doctor.findings import Finding, fail, ok, warn
from uplift.errors import ResponseTooLarge
from uplift.settings import Settings

PART = "1upHealth"

_SECONDS = 10.0
_MAX_RESPONSE_BYTES = 64 * 1024
_NOBODYS_TOKEN = "uplift-doctor-asks-whether-the-client-is-known"  # noqa: S105


@dataclass(frozen=True, slots=True)
class Reply:
    """A status code, and the OAuth error code if there was one."""

    status: int
    error: str | None = None


async def ask(settings: Settings) -> list[Finding]:
    """The token endpoint, and the FHIR API's public capability statement.

    Nothing if no destination is 1upHealth.
    """
    if not with_oneup(settings):
        return []
    form = {
        "grant_type": "refresh_token",
        "refresh_token": _NOBODYS_TOKEN,
        "client_id": settings.oneup_client_id,
        "client_secret": settings.oneup_client_secret.get_secret_value(),
    }
    async with open_http(connections=2) as http:
        token = await _reply(http, "POST", settings.oneup_token_url, form)
        fhir = await _reply(http, "GET", f"{settings.oneup_fhir_url}/r4/metadata", None)
    return [
        judge_token(token, _host(settings.oneup_token_url)),
        judge_fhir(fhir, _host(settings.oneup_fhir_url)),
    ]


async def _reply(
    http: httpx.AsyncClient, method: str, url: str, form: dict[str, str] | None
) -> Reply | None:
    content = b""
    try:
        async with (
            asyncio.timeout(_SECONDS),
            http.stream(method, url, data=form, headers={"Accept": "application/json"}) as response,
        ):
            if form is not None:
                content = await read_content(response, _MAX_RESPONSE_BYTES)
    except ResponseTooLarge:
        content = b""  # the status still tells
    except (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, OSError, ValueError):
        # Not the error: its text contains the address, and its request contains the secret.
        return None
    try:
        parsed = orjson.loads(content)
    except orjson.JSONDecodeError:
        parsed = None
    error = parsed.get("error") if isinstance(parsed, dict) else None
    return Reply(response.status_code, error if isinstance(error, str) else None)


def judge_token(reply: Reply | None, host: str) -> Finding:
    """What the response to an invented refresh token means for the address and the client."""
    match reply:
        case None:
            return fail(PART, f"the token endpoint at {host} does not respond", _AWAY)
        case Reply(error="invalid_grant"):
            return ok(PART, f"the token endpoint at {host} knows the client")
        case Reply(error="invalid_client" | "unauthorized_client") | Reply(status=401):
            return fail(
                PART,
                f"the token endpoint at {host} does not accept the client",
                "Check UPLIFT_ONEUP_CLIENT_ID and UPLIFT_ONEUP_CLIENT_SECRET.",
            )
        case Reply(status=404 | 405) | Reply(status=301 | 302 | 303 | 307 | 308):
            return fail(
                PART,
                f"there is no token endpoint at {host} (HTTP {reply.status})",
                "Check UPLIFT_ONEUP_TOKEN_URL.",
            )
        case Reply(status=429):
            return warn(PART, f"the token endpoint at {host} is busy (HTTP 429)", "Try later.")
        case Reply():
            return warn(
                PART,
                f"the token endpoint at {host} responds HTTP {reply.status}, which says nothing"
                " about the client",
                "Try later. `uplift users add` shows whether the client works, but costs one"
                " user-management call.",
            )


def judge_fhir(reply: Reply | None, host: str) -> Finding:
    """Whether the FHIR API is there. It may want a token even for its description."""
    if reply is None:
        return fail(PART, f"the FHIR API at {host} does not respond", _AWAY)
    what = f"the FHIR API at {host} responds HTTP {reply.status}"
    if reply.status >= 500:
        return warn(
            PART, what, "1upHealth or a proxy has a problem. Uploads wait meanwhile. Try later."
        )
    if reply.status == 404 or 300 <= reply.status < 400:
        return warn(PART, what, "Check UPLIFT_ONEUP_FHIR_URL. While it is wrong, uploads wait.")
    return ok(PART, what)


_AWAY = (
    "Check the address. Check that this machine can reach it (DNS, firewall, TLS). Uploads wait"
    " meanwhile."
)


def _host(url: str) -> str:
    # Without a user name and password that the URL may contain.
    return urlsplit(url).hostname or "?"
