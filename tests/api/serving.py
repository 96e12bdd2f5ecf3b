"""The API under uvicorn on a loopback port, as `uplift api` runs it, in a thread of its own."""

import socket
import threading
from functools import cache
from types import TracebackType
from typing import Self

from fastapi import FastAPI
from starlette.routing import BaseRoute

from uplift.api import process
from uplift.api.app import create_app
from uplift.settings import Settings


def app_of(settings: Settings) -> FastAPI:
    """The application. What FastAPI works out at the first request to each route, it takes from
    the applications of the tests before: that is a third of the time of most tests here.
    """
    made = create_app(settings)
    made.router.routes[:] = _routes()
    return made


@cache
def _routes() -> list[BaseRoute]:
    return create_app(Settings()).router.routes


class ApiServer:
    """A running API for one `with` block."""

    def __init__(self, settings: Settings) -> None:
        self.app = app_of(settings)
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._server = process.ApiServer(self.app, settings)
        self._server.config.timeout_graceful_shutdown = 1
        self._thread = threading.Thread(target=self._run, name="api", daemon=True)

    def _run(self) -> None:
        self._server.run(sockets=[self._listener])

    def __enter__(self) -> Self:
        self._listener.listen()  # connections wait until uvicorn accepts them
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        self._thread.join(15)
        self._listener.close()
        assert not self._thread.is_alive(), "The API did not stop within 15 s."

    def connect(self) -> socket.socket:
        """A connection, to send what no HTTP client sends."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)


def answer_on(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """The status, headers (in lower case) and body of the next response on a connection."""
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = connection.recv(65536)
        assert chunk, f"The connection ended before a response did: {received!r}"
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in lines)
    }
    while len(body) < int(headers.get("content-length", "0")):
        chunk = connection.recv(65536)
        assert chunk, "The connection ended in the middle of a body."
        body += chunk
    return int(first.split(" ")[1]), headers, body
