"""The network between here and the API, as people have it: proxies, certificates, keys.

What cannot work is told by the name of the variable or option that is at fault.
"""

import ipaddress
import os
import ssl
from pathlib import Path
from urllib.request import getproxies

import httpx

from uplift.errors import UpliftError

_QUOTES = ("'", '"', "\u2018\u2019", "\u201c\u201d")


class NetworkError(UpliftError):
    """A setting of the network or the key is wrong. The message names it."""


def clean_key(key: str) -> str:
    """A key without what is around it when it is copied. Raises: NetworkError."""
    key = key.strip()
    for quotes in _QUOTES:
        if len(key) > 1 and key[0] == quotes[0] and key[-1] == quotes[-1]:
            key = key[1:-1].strip()
    if not key:
        raise NetworkError("No API key. Give one with --key or UPLIFT_API_KEY.")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise NetworkError(
            "The key has a space, a line break or another character that no key has. Copy it once"
            " more, on one line and without quotes."
        )
    return key


def api_address(api: str, *, allow_http: bool = False) -> httpx.URL:
    """The API's address, if a key and health records may be sent there. Raises: NetworkError."""
    try:
        url = httpx.URL(api.strip())
    except httpx.InvalidURL:
        raise NetworkError(f"--api {api} is not a URL.") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise NetworkError(f"--api {api} is not a URL that begins with http:// or https://.")
    if url.scheme == "http" and not _is_loopback(url.host) and not allow_http:
        raise NetworkError(
            f"--api {api} is http://, and anybody on the way to {url.host} could read the key and"
            " the records. Use https://, or --allow-http in a network that is yours."
        )
    return url


def transport_for(url: httpx.URL, *, connections: int) -> httpx.AsyncHTTPTransport:
    """Connects as the environment says. Raises: NetworkError."""
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    name, address = proxy_for(url)
    certificates = _certificates(url)
    if address is None:
        return httpx.AsyncHTTPTransport(verify=certificates, limits=limits, trust_env=False)
    wrong = NetworkError(f"{name} is not the address of a proxy such as http://proxy:3128.")
    try:
        proxy = httpx.Proxy(address)
    except (httpx.InvalidURL, ValueError):
        raise wrong from None
    if not proxy.url.host:
        raise wrong
    try:
        return httpx.AsyncHTTPTransport(
            verify=certificates, limits=limits, proxy=proxy, trust_env=False
        )
    except ImportError:
        raise NetworkError(
            f"{name} names a SOCKS proxy. For that, install socksio (pip install 'httpx[socks]');"
            " or put the API's host into NO_PROXY."
        ) from None


def proxy_for(url: httpx.URL) -> tuple[str, str | None]:
    """The variable that names the proxy for this address, and its value; None for no proxy."""
    proxies = getproxies()
    if _is_loopback(url.host) or _is_exempt(url, proxies.get("no", "")):
        return "", None
    for scheme in (url.scheme, "all"):
        address = proxies.get(scheme, "").strip()
        if address:
            name = f"{scheme.upper()}_PROXY"
            # curl and others take an address without a scheme for http, too.
            return name, address if "://" in address else f"http://{address}"
    return "", None


def _is_loopback(host: str) -> bool:
    if host.rstrip(".").lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def _is_exempt(url: httpx.URL, no_proxy: str) -> bool:
    """Whether NO_PROXY has the host: by name, by the end of its name, by address or network."""
    host = url.host.rstrip(".").lower()
    address = _address(host)
    for entry in no_proxy.split(","):
        name = entry.strip().lower()
        if name == "*":
            return True
        if address is not None:
            try:
                network = ipaddress.ip_network(name.strip("[]"), strict=False)
            except ValueError:
                pass
            else:
                if address.version == network.version and address in network:
                    return True
        name, port = _without_port(name)
        name = name.removeprefix("*").lstrip(".").rstrip(".")
        if port is not None and port != (url.port or {"http": 80, "https": 443}[url.scheme]):
            continue
        if name and (host == name or host.endswith(f".{name}")):
            return True
    return False


def _without_port(name: str) -> tuple[str, int | None]:
    if name.startswith("["):
        name, _, port = name[1:].partition("]")
        port = port.removeprefix(":")
    elif name.count(":") == 1:
        name, _, port = name.partition(":")
    else:
        port = ""
    return name, int(port) if port.isascii() and port.isdigit() else None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _certificates(url: httpx.URL) -> ssl.SSLContext:
    """Whom to trust: SSL_CERT_FILE or SSL_CERT_DIR, for a company's own CA; else the usual ones."""
    file = os.environ.get("SSL_CERT_FILE")
    folder = os.environ.get("SSL_CERT_DIR")
    if url.scheme == "http" or not (file or folder):
        return httpx.create_ssl_context(trust_env=False)
    for name, value in (("SSL_CERT_FILE", file), ("SSL_CERT_DIR", folder)):
        if value and not Path(value).exists():
            raise NetworkError(f"{name} is {value}, and there is no such file or folder.")
    try:
        return ssl.create_default_context(cafile=file or None, capath=folder or None)
    except (ssl.SSLError, OSError) as error:
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        raise NetworkError(
            f"SSL_CERT_FILE is {file}, which has no certificate: {reason}."
        ) from None


class Transport(httpx.AsyncBaseTransport):
    """Connects as the environment says, and remembers in words why it could not.

    Raises: NetworkError.
    """

    def __init__(self, url: httpx.URL, *, connections: int) -> None:
        self.trouble: str | None = None
        self._url = url
        self._inner = transport_for(url, connections=connections)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """As httpx does. Raises: httpx.TransportError."""
        self.trouble = None
        try:
            return await self._inner.handle_async_request(request)
        except httpx.TransportError as error:
            self.trouble = words_for(error, self._url)
            raise

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


def words_for(error: BaseException | None, url: httpx.URL) -> str | None:
    """Why there is no connection, if the network says more than that; of `error` or its cause."""
    name, _ = proxy_for(url)
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return (
                f"its certificate is not trusted ({error.verify_message}). SSL_CERT_FILE can name"
                " the file with your company's own CA"
            )
        if isinstance(error, ssl.SSLError):
            return f"no TLS there ({error.reason}). Is it http://?"
        if isinstance(error, httpx.ProxyError):
            return f"the proxy that {name} names does not let it pass ({error})"
        if isinstance(error, httpx.ConnectError) and name:
            return f"the proxy that {name} names does not answer"
        error = error.__cause__ or error.__context__
    return None
