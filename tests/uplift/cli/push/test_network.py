"""Proxies, certificates, keys and addresses as people have them."""

import datetime
import os
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.uplift.cli.fake_uplift import KEY, FakeUplift, serving
from uplift.cli.push.client import ApiClient, ApiUnavailable
from uplift.cli.push.network import (
    NetworkError,
    api_address,
    clean_key,
    proxy_for,
    transport_for,
)

PROXY = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("SSL_CERT"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("host", "no_proxy", "exempt"),
    [
        ("api.example.org", "", False),
        ("api.example.org", "*", True),
        ("api.example.org", "example.org", True),
        ("api.example.org", ".example.org", True),
        ("api.example.org", "*.example.org", True),
        ("api.example.org", "other.org, api.example.org:443", True),
        ("api.example.org", "api.example.org:8443", False),
        ("api.example.org", "ample.org", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("192.0.2.1", "10.0.0.0/8,fd00::/8", False),
        ("[fd00::7]", "localhost,fd00::/8", True),
        ("[fd00::7]", "[fd00::7]", True),
        ("[fd00::7]", "[fd00::7]:443", True),
        ("[2001:db8::1]", "fd00::/8, ::1", False),
        ("api.example.org", "fd00::/8,[::1]:nonsense,,/,::/x", False),
    ],
)
def test_no_proxy_has_names_addresses_and_networks(
    monkeypatch: pytest.MonkeyPatch, host: str, no_proxy: str, exempt: bool
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    url = httpx.URL(f"https://{host}")
    assert (proxy_for(url)[1] is None) == exempt
    transport_for(url, connections=1)


@pytest.mark.parametrize(
    ("variables", "url", "proxy"),
    [
        ({"HTTP_PROXY": PROXY}, "https://api.example.org", None),
        ({"HTTP_PROXY": PROXY}, "http://api.example.org", PROXY),
        ({"ALL_PROXY": PROXY}, "https://api.example.org", PROXY),
        ({"all_proxy": "proxy:3128"}, "https://api.example.org", "http://proxy:3128"),
        ({"HTTPS_PROXY": ""}, "https://api.example.org", None),
        ({"ALL_PROXY": PROXY, "HTTPS_PROXY": PROXY}, "https://127.0.0.2", None),
        ({"ALL_PROXY": PROXY}, "http://[::1]:8080", None),
        ({"ALL_PROXY": PROXY}, "http://localhost:8080", None),
    ],
)
def test_the_proxy_is_the_one_of_the_scheme_and_never_for_loopback(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, proxy: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(httpx.URL(url))[1] == proxy


@pytest.mark.parametrize("proxy", ["ftp://proxy", "http://", "http://proxy:port", "nonsense://"])
def test_a_proxy_that_is_none_is_told_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(NetworkError, match="HTTPS_PROXY"):
        ApiClient("https://api.example.org", KEY)


def test_a_socks_proxy_works_or_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    try:
        import socksio  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        with pytest.raises(NetworkError, match=r"ALL_PROXY names a SOCKS proxy.*httpx\[socks\]"):
            ApiClient("https://api.example.org", KEY)
    else:
        ApiClient("https://api.example.org", KEY)


async def test_a_proxy_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    async with ApiClient("https://api.example.org", KEY) as api:
        with pytest.raises(ApiUnavailable, match="proxy that HTTPS_PROXY names does not answer"):
            await api.check("alice")


async def test_no_proxy_is_asked_about_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, PROXY)
    with serving(FakeUplift()) as fake:
        async with ApiClient(fake.url, KEY) as api:
            await api.check("alice")
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    ("key", "clean"),
    [
        ("uplift_1", "uplift_1"),
        (" uplift_1\r\n", "uplift_1"),
        ('"uplift_1"', "uplift_1"),
        ("'uplift_1'\n", "uplift_1"),
        ("\u201cuplift_1\u201d", "uplift_1"),
    ],
)
def test_a_key_may_have_quotes_and_line_breaks_around_it(key: str, clean: str) -> None:
    assert clean_key(key) == clean


@pytest.mark.parametrize("key", ["uplift\n_1", "uplift 1", "upl\u00eft", "a\x00b", "", '""', " \n"])
def test_a_key_that_is_none_is_told_and_not_shown(key: str) -> None:
    with pytest.raises(NetworkError, match="key") as told:
        clean_key(key)
    assert len(key) < 3 or key not in str(told.value)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("http://api.example.org", "--allow-http"),
        ("http://192.168.1.7:8080", "--allow-http"),
        ("api.example.org", "http:// or https://"),
        ("ftp://api.example.org", "http:// or https://"),
        ("https://", "http:// or https://"),
        ("http://[::", "not a URL"),
    ],
)
def test_an_address_that_must_not_be_used_is_told(address: str, told: str) -> None:
    with pytest.raises(NetworkError, match=told):
        api_address(address)


@pytest.mark.parametrize(
    "address",
    ["http://localhost:1", "http://127.9.9.9", "http://[::1]:8080", "https://api.example.org "],
)
def test_an_address_of_this_machine_or_with_tls_is_used(address: str) -> None:
    assert api_address(address).host


def test_http_to_another_machine_can_be_asked_for() -> None:
    assert api_address("http://api:8080", allow_http=True).host == "api"


@pytest.fixture
def private(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server with TLS on loopback, by a certificate that only its own file vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    ca, both = tmp_path / "ca.pem", tmp_path / "both.pem"
    ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    both.write_bytes(
        ca.read_bytes()
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    server = HTTPServer(("127.0.0.1", 0), _Empty)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"https://localhost:{server.server_port}", ca
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


class _Empty(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "16")
        self.end_headers()
        self.wfile.write(b'{"uploads": [] }')

    def log_message(self, *_: object) -> None:
        pass


async def test_a_private_ca_is_used_if_it_is_named_and_else_told(
    private: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, ca = private
    async with ApiClient(url, KEY) as api:
        with pytest.raises(ApiUnavailable, match=r"is not trusted.*SSL_CERT_FILE"):
            await api.check("alice")
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    async with ApiClient(url, KEY) as api:
        await api.check("alice")


async def test_https_where_there_is_http_is_told() -> None:
    with serving(FakeUplift()) as fake:
        async with ApiClient(fake.url.replace("http:", "https:"), KEY) as api:
            with pytest.raises(ApiUnavailable, match="no TLS there"):
                await api.check("alice")


@pytest.mark.parametrize("content", [None, "", "not a certificate"])
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE"])
def test_a_certificate_file_that_is_missing_or_bad_is_told_by_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, content: str | None
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv(variable, str(file))
    with pytest.raises(NetworkError, match=variable):
        ApiClient("https://api.example.org", KEY)


def test_a_folder_of_certificates_that_is_missing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "gone"))
    with pytest.raises(NetworkError, match="SSL_CERT_DIR"):
        ApiClient("https://api.example.org", KEY)
