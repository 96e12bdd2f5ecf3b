"""Connections that fail: cut, reset, ended in the middle of a response, or left waiting.

ASGI has no word for these, so the protocol class below hands the connection's transport to the
application in the scope, and the responses here act on it.
"""

import asyncio
import os
import socket
import struct
from typing import cast

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_EXTENSION = "sandbox.transport"


class OpenProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which also tells the application its transport."""

    def on_message_begin(self) -> None:
        """Start a request's scope."""
        super().on_message_begin()
        self.scope["extensions"] = {_EXTENSION: {"transport": self.transport}}


def _transport(scope: Scope) -> asyncio.Transport:
    try:
        return cast("asyncio.Transport", scope["extensions"][_EXTENSION]["transport"])
    except KeyError:
        raise RuntimeError(
            "This fault needs the real connection: run the app by uplift.sandbox.server.serve"
        ) from None


async def _until_gone(receive: Receive) -> None:
    message: Message = {"type": ""}
    while message["type"] != "http.disconnect":
        message = await receive()


class NoAnswer(Response):
    """A response that the client never gets."""


class Cut(NoAnswer):
    """Closes the connection (FIN) without a byte of a response."""

    async def __call__(self, scope: Scope, receive: Receive, _: Send) -> None:
        """Close, then wait until the server has noticed."""
        _transport(scope).close()
        await _until_gone(receive)


class Reset(NoAnswer):
    """Resets the connection (RST) without a byte of a response."""

    async def __call__(self, scope: Scope, receive: Receive, _: Send) -> None:
        """Abort with a linger time of zero, which makes the kernel send RST."""
        transport = _transport(scope)
        # A duplicate, because uvloop's own socket object does not let options be set.
        with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as twin:
            twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        await _until_gone(receive)


class HalfAnswer(Response):
    """Promises a whole body, sends half of it, and closes the connection."""

    def __init__(self, whole: Response) -> None:
        super().__init__(bytes(whole.body), whole.status_code)
        self.raw_headers = whole.raw_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head and half of the body, then close."""
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        half = bytes(self.body)[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})
        _transport(scope).close()
        await _until_gone(receive)


class Stall(NoAnswer):
    """Sends nothing until the client gives up, `seconds` have passed, or the sandbox stops."""

    def __init__(self, seconds: float, stopping: asyncio.Event) -> None:
        super().__init__()
        self._seconds = seconds
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, _: Send) -> None:
        """Wait, then close whatever is left of the connection."""
        waits = [
            asyncio.ensure_future(_until_gone(receive)),
            asyncio.ensure_future(self._stopping.wait()),
        ]
        await asyncio.wait(waits, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        _transport(scope).close()
        await _until_gone(receive)
