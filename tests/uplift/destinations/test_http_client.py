"""What a server sees of a connection: the client certificate, and the proxy before it."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.uplift.destinations.remote import Connection, serve
from uplift.destinations.destination import ClientCertificate
from uplift.destinations.http_client import open_http
from uplift.errors import ConfigurationError


@pytest.fixture
def certificate(tmp_path: Path) -> ClientCertificate:
    """A certificate that signs itself: the server's, the client's, and what both trust."""
    made = ClientCertificate(tmp_path / "certificate.pem", tmp_path / "key.pem")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *(
                "-nodes",
                "-days",
                "1",
                "-subj",
                "/CN=uplift",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
            ),
            *("-keyout", str(made.key_file), "-out", str(made.file)),
        ],
        check=True,
        capture_output=True,
    )
    return made


@asynccontextmanager
async def wants_certificates(certificate: ClientCertificate) -> AsyncIterator[str]:
    """A server that answers nobody who shows no certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificate.file))
    context.load_cert_chain(certificate.file, certificate.key_file)
    context.verify_mode = ssl.CERT_REQUIRED

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


async def test_the_client_certificate_is_shown(
    certificate: ClientCertificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
    async with wants_certificates(certificate) as url:
        shown = open_http(connections=1, certificate=certificate)
        assert (await shown.get(url)).status_code == 204
        await shown.aclose()
        hidden = open_http(connections=1)
        with pytest.raises(httpx.HTTPError):
            await hidden.get(url)
        await hidden.aclose()


async def test_a_certificate_that_cannot_be_used_is_a_configuration_error(tmp_path: Path) -> None:
    for content in (None, "no PEM"):
        file = tmp_path / "certificate.pem"
        if content is not None:
            file.write_text(content)
        with pytest.raises(ConfigurationError, match="client certificate"):
            open_http(connections=1, certificate=ClientCertificate(file))


async def test_requests_go_through_the_proxy() -> None:
    async def answer(connection: Connection) -> None:
        await connection.read()
        await connection.response(204)

    async with serve(answer) as proxy:
        http = open_http(connections=1, proxy=proxy.url)
        await http.get("http://fhir.invalid/r4/metadata")
        await http.aclose()
    (request,) = proxy.requests
    assert request.line == "GET http://fhir.invalid/r4/metadata HTTP/1.1"
