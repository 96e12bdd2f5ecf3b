"""A bare HTTP server on a socket. It counts requests and ends connections as a test wants."""

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Answering = Callable[["Connection"], Awaitable[None]]

_LENGTH = re.compile(rb"^content-length: *(\d+)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Request:
    """A complete request."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """A header's only value; None if it was not sent."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1, f"{name} was sent {len(values)} times"
        return values[0] if values else None


@dataclass(slots=True)
class Connection:
    """One accepted connection."""

    remote: "Remote"
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int

    async def read(self) -> Request:
        """The next complete request; counted."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.remote.heads += 1
        found = _LENGTH.search(head)
        body = await self.reader.readexactly(int(found[1])) if found else b""
        line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        pairs = [
            (name, value.strip()) for name, _, value in (each.partition(":") for each in lines)
        ]
        request = Request(line, pairs, body)
        self.remote.requests.append(request)
        return request

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def response(
        self, status: int = 200, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        """Send a complete response."""
        lines = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        head = "".join(f"{key}: {value}\r\n" for key, value in (lines | (headers or {})).items())
        await self.send(f"HTTP/1.1 {status} Answer\r\n{head}\r\n".encode() + body)

    def reset(self) -> None:
        """End the connection with RST."""
        opened = self.writer.get_extra_info("socket")
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass(slots=True)
class Remote:
    """The requests that a server got, and how it responds."""

    answering: Answering
    url: str = ""
    connections: int = 0
    heads: int = 0
    requests: list[Request] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until its handler ends."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            await self.answering(Connection(self, reader, writer, self.connections))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def close(self) -> None:
        """End the open connections."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def serve(answering: Answering) -> AsyncIterator[Remote]:
    """A server on a free loopback port, for one `with` block."""
    remote = Remote(answering)
    server = await asyncio.start_server(remote.accept, "127.0.0.1", 0, limit=2**26)
    remote.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield remote
    finally:
        server.close()
        await remote.close()
        await server.wait_closed()
