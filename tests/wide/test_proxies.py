"""Behind other people's proxies, no hostile request reaches into an honest one's connection."""

import itertools
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import orjson
import pytest

from tests import factories
from tests.api.calls import bearer, make_keys
from tests.api.serving import ApiServer
from tests.factories import resource
from tests.wide.programs import ROOT
from uplift.cli.local.ports import free_port
from uplift.ledger.database import Database
from uplift.settings import Settings
from uplift.wiring import open_relay

_OPS = ROOT / "ops" / "proxy"
_HOSTILE = 500
_UPLOADS = 5
_SECONDS = 20
_THREADS = 25
_BODY_SECONDS = 0.3

_WEBSOCKETS = """
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection "upgrade";"""


def _nginx(port: int, api: int, folder: Path, *, websockets: bool) -> list[str]:
    text = (_OPS / "nginx.conf").read_text()
    text = text.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
    text = "".join(line for line in text.splitlines(True) if "ssl_certificate" not in line)
    text = text.replace("127.0.0.1:8080", f"127.0.0.1:{api}")
    if websockets:  # what many copy from nginx's own page about WebSockets
        text = text.replace('\n        proxy_set_header Connection "";', _WEBSOCKETS)
    text = f"daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\n" + text
    (folder / "nginx.conf").write_text(text)
    return ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)]


def _caddy(port: int, api: int, folder: Path) -> list[str]:
    text = (_OPS / "Caddyfile").read_text()
    text = text.replace("uplift.example.com", f"http://127.0.0.1:{port}")
    text = text.replace("127.0.0.1:8080", f"127.0.0.1:{api}").replace("{\n", "{\n\tadmin off\n", 1)
    (folder / "Caddyfile").write_text(text)
    return ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


def _haproxy(port: int, api: int, folder: Path) -> list[str]:
    text = (_OPS / "haproxy.cfg").read_text()
    lines = text.replace("127.0.0.1:8080", f"127.0.0.1:{api}").splitlines(True)
    text = "".join(
        f"    bind 127.0.0.1:{port}\n" if line.strip().startswith("bind ") else line
        for line in lines
    )
    (folder / "haproxy.cfg").write_text(text)
    return ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")]


def _command(name: str, port: int, api: int, folder: Path) -> list[str]:
    match name:
        case "caddy":
            return _caddy(port, api, folder)
        case "haproxy":
            return _haproxy(port, api, folder)
    return _nginx(port, api, folder, websockets="WebSocket" in name)


@contextmanager
def _proxy(name: str, api: int, folder: Path) -> Iterator[tuple[int, Path]]:
    """The port of a running proxy, and the file with its output."""
    program = name.split(" ")[0]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not here")
    port, output = free_port(), folder / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            _command(name, port, api, folder),
            stdout=file,
            stderr=file,
            env={"PATH": "/usr/sbin:/usr/bin:/bin", "HOME": str(folder)},
        )
    try:
        ends = time.monotonic() + _SECONDS
        while True:
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < ends, output.read_text()
            with suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200:
                    break
            time.sleep(0.1)
        yield port, output
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


# More than a server reads at once. A parser that stopped at the head takes what it reads next for
# the beginning of a request, and passes over empty lines before it.
_PADDING = b"\r\n" * 150_000
# The part that begins a second request, and swallows the head of the next caller's.
_SMUGGLED = (
    b"DELETE /v1/users/alice HTTP/1.1\r\nX-Rest: ",
    b"DELETE /v1/users/alice?wait=0 HTTP/1.1\r\nHost: uplift\r\nContent-Length: 4\r\nX-Rest: ",
    b"\r\n\r\nDELETE /v1/users/alice HTTP/1.1\r\nX-Rest: ",
)
_UPGRADES = (
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    b"Connection: keep-alive, Upgrade\r\nUpgrade: TLS/1.0\r\n",
    b"",
)
_FRAMINGS = (
    b"Content-Length: %d\r\n",
    b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked\r\nX: %d\r\n",
    b"Transfer-Encoding: xchunked\r\nContent-Length: %d\r\n",
    b"Transfer-Encoding : chunked\r\nContent-Length: %d\r\n",
    b"Transfer-Encoding:\x0bchunked\r\nContent-Length: %d\r\n",
    b"Content-Length: 0\r\nContent-Length: %d\r\n",
    b"Content-Length: +%d\r\n",
    b"X: a\nContent-Length: %d\r\n",
    b"X: %d\r\n",
)
_METHODS = (b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"HEAD", b"PATCH")


def _hostile() -> Iterator[tuple[bytes, bytes]]:
    """Heads and bodies, each in a segment of its own."""
    kinds = itertools.cycle(itertools.product(_FRAMINGS, _METHODS, _UPGRADES, _SMUGGLED))
    padding = itertools.cycle((_PADDING, b""))
    paths = itertools.cycle((b"/healthz", b"/v1/batches", b"/v1/uploads"))
    for framing, method, upgrade, smuggled in itertools.islice(kinds, _HOSTILE):
        body = next(padding) + smuggled
        if b"chunked\r\nX" in framing:
            body = b"0\r\n\r\n" + smuggled
        head = b"%b %b HTTP/1.1\r\nHost: uplift\r\n%b%b\r\n"
        yield head % (method, next(paths), upgrade, framing % len(body)), body


def _attack(port: int, requests: list[tuple[bytes, bytes]]) -> None:
    for head, body in requests:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as proxy:
            proxy.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            proxy.sendall(head)
            if len(body) < len(_PADDING):
                # Caddy waits 0.2 s for a body before it sends the head alone.
                time.sleep(_BODY_SECONDS)
            proxy.sendall(body)
            proxy.settimeout(0.1)
            proxy.recv(65536)


@pytest.mark.parametrize("name", ["nginx", "nginx with WebSocket lines", "caddy", "haproxy"])
async def test_no_hostile_request_crosses_into_an_honest_one(
    settings: Settings, database: Database, tmp_path: Path, name: str
) -> None:
    async with open_relay(settings) as relay:
        await factories.user_without_grant(relay)
    key = (await make_keys(database)).backend
    with ApiServer(settings) as server, _proxy(name, server.port, tmp_path) as (port, output):
        honest = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers=bearer(key), timeout=30
        )
        async with honest:
            ids = [await _upload(honest, number) for number in range(_UPLOADS)]
            hostile = list(_hostile())
            attackers = [
                threading.Thread(target=_attack, args=(port, hostile[at::_THREADS]), daemon=True)
                for at in range(_THREADS)
            ]
            for attacker in attackers:
                attacker.start()
            asked = 0
            while any(attacker.is_alive() for attacker in attackers):
                wanted = ids[asked % _UPLOADS]
                answer = await honest.get(f"/v1/uploads/{wanted}")
                assert answer.status_code == 200, answer.text
                assert answer.json()["id"] == wanted
                asked += 1
            assert asked > _UPLOADS
            listed = await honest.get("/v1/uploads", params={"user": "alice"})
            assert len(listed.json()["uploads"]) == _UPLOADS
        said = output.read_text()
    assert "alice" not in said
    assert key not in said


async def _upload(client: httpx.AsyncClient, number: int) -> str:
    answer = await client.post(
        "/v1/uploads?user=alice&fhirVersion=R4",
        content=orjson.dumps(resource(id=f"canary-{number}")),
        headers={"Content-Type": "application/fhir+json"},
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])
