"""The connection to a destination: one request in, one classified `Response` out."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import cache, partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from uplift.destinations.contents import ACCEPT_ENCODING, read_content
from uplift.destinations.refusals import refusal_issues
from uplift.destinations.responses import (
    Response,
    ResponseKind,
    classify_error,
    classify_look_up,
    classify_read,
    classify_search,
    classify_write,
)
from uplift.errors import (
    ConfigurationError,
    DeadlinePassed,
    HeartbeatMissing,
    ResponseTooLarge,
)
from uplift.fhir.interactions import both_forms, parse_link
from uplift.fhir.versions import FhirVersion
from uplift.settings import Settings

_CONNECT_SECONDS = 10.0
# A stored resource comes back with its create; beyond this it cannot be ours.
_RESPONSE_SLACK_BYTES = 1024 * 1024
# The largest page that 1upHealth gives, in resources.
_MAX_PAGE = 100
# One identifier with more pages than this is a sign of a wrong search.
_MAX_PAGES = 20
# A thread parses a larger page: meanwhile nothing else could run on the loop.
_MAX_INLINE_BYTES = 64 * 1024


@cache
def _trusted_certificates() -> ssl.SSLContext:
    """What a process trusts. To read it takes some 40 ms."""
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        raise ConfigurationError(
            "SSL_CERT_FILE or SSL_CERT_DIR names no file or folder of certificates that can be read"
            f" ({error.strerror})."
        ) from error


def open_http(*, connections: int) -> httpx.AsyncClient:
    """An HTTP client for all traffic of a process to 1upHealth. Call it on the running loop.

    httpx's own pool falls to 50 requests a second at 100 in flight (httpx#3215); aiohttp's does
    not. aiohttp repeats a GET or PUT by itself after a cut connection; that is switched off,
    because Uplift decides what is sent again. No cookies: one client serves all users.

    Raises:
        ConfigurationError: SSL_CERT_FILE or SSL_CERT_DIR names nothing that can be read.
    """

    certificates = _trusted_certificates()

    def session() -> aiohttp.ClientSession:
        opened = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, ssl=certificates, ttl_dns_cache=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers={"User-Agent"},
        )
        opened._retry_connection = False  # noqa: SLF001  aiohttp has no public switch
        return opened

    return httpx.AsyncClient(
        transport=AiohttpTransport(client=session),
        timeout=httpx.Timeout(60.0, connect=_CONNECT_SECONDS),
        follow_redirects=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        headers={"User-Agent": "uplift", "Accept-Encoding": ACCEPT_ENCODING},
        trust_env=False,
    )


class FhirClient:
    """A destination's FHIR API, used with one user's token."""

    def __init__(self, http: httpx.AsyncClient, settings: Settings) -> None:
        if not settings.oneup_fhir_url.startswith(("https://", "http://")):
            raise ConfigurationError("UPLIFT_ONEUP_FHIR_URL must start with https:// or http://.")
        self._http = http
        self._url = settings.oneup_fhir_url
        self._keeps_ids = settings.oneup_keeps_ids
        self._bases = both_forms(settings.oneup_fhir_url)
        self._max_response = settings.max_body_bytes + _RESPONSE_SLACK_BYTES

    async def write(
        self,
        *,
        token: str,
        version_path: str,
        resource_type: str,
        body: bytes,
        deadline: float,
        resource_id: str | None = None,
        may_send: Callable[[], bool] = lambda: True,
    ) -> Response:
        """Create a resource, or update the one of that id, with the bytes as they are.

        `deadline` is on `time.monotonic`: after it nothing is sent, and no response is waited for.
        `may_send` is asked just before the first byte of the body.
        An update is a POST to the resource, as 1upHealth documents it.

        Raises:
            HeartbeatMissing: `may_send` said no. Nothing of the body is sent.
        """
        if not _fits_a_header(token):
            return Response(ResponseKind.UNAUTHORIZED, "unusable_token")
        url = self._resource_url(version_path, resource_type, resource_id)
        if url is None:
            return Response(ResponseKind.HOLD, "unaddressable_id")
        started = silent = False

        async def stream() -> AsyncIterator[bytes]:
            # A process that was frozen after its decision to send must not send late: meanwhile
            # another worker may have claimed the upload.
            nonlocal started, silent
            silent = not may_send()
            if silent or time.monotonic() >= deadline:
                raise DeadlinePassed
            started = True
            yield body

        request = self._http.build_request(
            "POST",
            url,
            content=stream(),
            headers={
                "Authorization": f"Bearer {token}",
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                "Accept": "application/json",
            },
        )
        response = await self._exchange(request, deadline)
        if silent:
            raise HeartbeatMissing
        if isinstance(response, Response):
            if not started:
                return Response(ResponseKind.NOT_SENT, response.code)
            return response
        status, headers, content = response
        classify = partial(
            classify_write,
            status,
            headers,
            content,
            resource_type,
            target=resource_id,
            sent=body,
            keeps_ids=self._keeps_ids,
        )
        if len(body) + len(content) > _MAX_INLINE_BYTES:
            classified = await asyncio.to_thread(classify)
        else:
            classified = classify()
        if classified.kind is not ResponseKind.REFUSED:
            return classified
        version = FhirVersion(version_path.upper())
        return replace(classified, refusal=refusal_issues(headers, content, version, resource_type))

    async def look_up(
        self,
        *,
        token: str,
        version_path: str,
        resource_type: str,
        resource_id: str,
        deadline: float,
    ) -> Response:
        """Read a resource by id. `deadline` as in `write`."""
        if not _fits_a_header(token):
            return Response(ResponseKind.UNAUTHORIZED, "unusable_token")
        url = self._resource_url(version_path, resource_type, resource_id)
        if url is None:
            return Response(ResponseKind.UNKNOWN, "unaddressable_id")
        request = self._http.build_request(
            "GET",
            url,
            headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
        )
        response = await self._exchange(request, deadline)
        if isinstance(response, Response):
            return response
        status, headers, content = response
        return classify_look_up(status, headers, content, resource_type)

    async def search(
        self,
        *,
        token: str,
        version: FhirVersion,
        resource_type: str,
        identifier: str,
        ours: dict[str, Any],
        body_bytes: int,
        deadline: float,
        exactly: bool = False,
    ) -> Response:
        """Search for a resource with the content of `ours`, by FHIR's token for its identifier.

        `exactly` as in `same_content`. Follows the pages. FOUND with the first resource that has
        the content, ABSENT if none has.
        `body_bytes` is the size of `ours`: pages are chosen so small that such resources fit.
        `deadline` as in `write`.
        """
        if not _fits_a_header(token):
            return Response(ResponseKind.UNAUTHORIZED, "unusable_token")
        count = min(_MAX_PAGE, max(1, self._max_response // (4 * max(body_bytes, 1))))
        query = urlencode({"identifier": identifier, "_count": count}, quote_via=quote, safe="")
        address = f"{resource_type}?{query}"
        for _ in range(_MAX_PAGES):
            request = self._http.build_request(
                "GET",
                f"{self._url}/{version.path}/{address}",
                headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
            )
            response = await self._exchange(request, deadline)
            if isinstance(response, Response):
                return response
            status, headers, content = response
            classify = partial(
                classify_search, status, headers, content, resource_type, ours, exactly=exactly
            )
            if len(content) > _MAX_INLINE_BYTES:
                response = await asyncio.to_thread(classify)
            else:
                response = classify()
            if response.next_page is None:
                return response
            # Only its path and query are followed, and only to a page of this search.
            link = parse_link(version, self._bases, response.next_page)
            if link is None or link.path != resource_type:
                return Response(ResponseKind.UNKNOWN, "next_page_elsewhere", status)
            address = link.address
        return Response(ResponseKind.UNKNOWN, "search_without_end")

    async def read(
        self, *, token: str, address: str, resource_type: str, deadline: float, limit: int
    ) -> Response:
        """Read the resource or the page at an address below the base, version included.

        The address is used as it is. The response has the bytes as they came, if they are a
        resource of that type and not more than `limit` bytes. `deadline` as in `write`.
        """
        if not _fits_a_header(token):
            return Response(ResponseKind.UNAUTHORIZED, "unusable_token")
        request = self._http.build_request(
            "GET",
            f"{self._url}/{address}",
            headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
        )
        response = await self._exchange(request, deadline, limit)
        if isinstance(response, Response):
            return response
        status, headers, content = response
        return classify_read(status, headers, content, resource_type)

    async def _exchange(
        self, request: httpx.Request, deadline: float, limit: int | None = None
    ) -> tuple[int, httpx.Headers, bytes] | Response:
        limit = self._max_response if limit is None else limit
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                response = await self._http.send(request, stream=True)
                try:
                    return (
                        response.status_code,
                        response.headers,
                        await read_content(response, limit),
                    )
                finally:
                    await response.aclose()
        except TimeoutError:
            return Response(ResponseKind.UNKNOWN, "no_answer")
        except ResponseTooLarge:
            return Response(ResponseKind.UNKNOWN, "response_too_large")
        except (httpx.RequestError, aiohttp.ClientError, DeadlinePassed, OSError) as error:
            return classify_error(error)
        except ValueError:
            # aiohttp and the resolver raise it for an address that they cannot use.
            return Response(ResponseKind.UNKNOWN, "unusable_address")

    def _resource_url(
        self, version_path: str, resource_type: str, resource_id: str | None
    ) -> str | None:
        """The address of the type, or of one resource; None if no URL can address that id."""
        url = f"{self._url}/{version_path}/{resource_type}"
        if not resource_id:
            return url
        # FHIR allows these two as ids, but in a path they mean another resource, even encoded:
        # https://www.rfc-editor.org/rfc/rfc3986#section-5.2.4
        if resource_id in {".", ".."}:
            return None
        # safe="": an id is one path segment, whatever characters a hospital uses in it.
        return f"{url}/{quote(resource_id, safe='')}"


def _fits_a_header(token: str) -> bool:
    # RFC 6749, A.12: visible ASCII. A token from the app's own server may have any characters.
    return token.isascii() and token.isprintable()
