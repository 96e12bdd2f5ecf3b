"""An HTTP client for the traffic of a process to one server. It repeats nothing by itself."""

import ssl
from collections.abc import AsyncIterable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from uplift.destinations.contents import ACCEPT_ENCODING
from uplift.destinations.destination import ClientCertificate
from uplift.errors import ConfigurationError

_CONNECT_SECONDS = 10.0
_SECONDS = 60.0
_HEADERS = {"User-Agent": "uplift", "Accept-Encoding": ACCEPT_ENCODING}


class HttpClient(httpx.AsyncClient):
    """httpx's client on top of aiohttp's, and aiohttp's itself for what is sent all the time.

    A request through httpx costs half as much again. Both share the connections.
    """

    def __init__(
        self,
        session: Callable[[], aiohttp.ClientSession],
        certificates: ssl.SSLContext,
        proxy: str,
    ) -> None:
        via = httpx.Proxy(proxy) if proxy else None
        # Without `verify`, it reads all that is trusted once more.
        self._beneath = AiohttpTransport(verify=certificates, client=session, proxy=via)
        super().__init__(
            transport=self._beneath,
            timeout=httpx.Timeout(_SECONDS, connect=_CONNECT_SECONDS),
            follow_redirects=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            headers=_HEADERS,
            trust_env=False,
        )
        self._proxy: dict[str, Any] = {}
        if via is not None:
            auth = aiohttp.BasicAuth(*via.auth) if via.auth else None
            self._proxy = {"proxy": str(via.url), "proxy_auth": auth}

    def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        content: AsyncIterable[bytes] | None = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """One request; the response as it came, for use within the block.

        Raises aiohttp.ClientError, OSError, and ValueError for an address that cannot be used.
        """
        session = self._beneath.client = self._beneath.get_client()
        limits = self.timeout
        return session.request(
            method,
            url,
            headers={**_HEADERS, **headers},
            data=content,
            allow_redirects=False,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(
                connect=limits.pool, sock_connect=limits.connect, sock_read=limits.read
            ),
            **self._proxy,
        )


def open_http(
    *, connections: int, proxy: str = "", certificate: ClientCertificate | None = None
) -> HttpClient:
    """An HTTP client for all traffic of a process to one server. Call it on the running loop.

    httpx's own pool falls to 50 requests a second at 100 in flight (httpx#3215); aiohttp's does
    not. aiohttp repeats a GET, PUT or DELETE by itself after a cut connection; that is switched
    off, because Uplift decides what is sent again. No cookies: one client serves all users.

    Raises:
        ConfigurationError: SSL_CERT_FILE, SSL_CERT_DIR or the certificate names nothing that can
            be read.
    """

    certificates = _trusted_certificates() if certificate is None else _with(certificate)

    def session() -> aiohttp.ClientSession:
        opened = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, ssl=certificates, ttl_dns_cache=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers={"User-Agent"},
        )
        opened._retry_connection = False  # noqa: SLF001  aiohttp has no public switch
        return opened

    return HttpClient(session, certificates, proxy)


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


def _with(certificate: ClientCertificate) -> ssl.SSLContext:
    """What a process trusts, and the certificate that it shows."""
    _trusted_certificates()  # its error names the settings of those
    context = httpx.create_ssl_context()
    try:
        context.load_cert_chain(certificate.file, certificate.key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"The client certificate {certificate.file} or its key cannot be used"
            f" ({error.strerror or type(error).__name__}). Both must be PEM, without a password."
        ) from None
    return context
