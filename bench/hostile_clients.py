"""Hostile clients, each of one kind, and the honest ones beside them. Raw sockets on uvloop.

    BENCH='{"port": …}' python -m bench.hostile_clients KIND

Runs until it is ended. `honest` ends by itself and prints its times in seconds as JSON.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import uvloop

from bench.resources import body

_MIB = 1024 * 1024
_CLIENTS = 8
_PAUSE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Setup:
    """Where the API is, who calls, and for how long honest clients do."""

    port: int
    key: str
    tokens: list[str]
    upload: str
    seconds: float


_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _connect(setup: Setup) -> _Connection:
    return await asyncio.open_connection("127.0.0.1", setup.port)


def _head(method: str, path: str, key: str, *more: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: a", f"Authorization: Bearer {key}", *more]
    return "\r\n".join([*lines, "", ""]).encode()


async def _answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    found = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    if found:
        await reader.readexactly(int(found))
    else:
        while size := int(await reader.readline(), 16):
            await reader.readexactly(size + 2)
        await reader.readline()
    return int(head[9:12])


async def _again(once: Callable[[], Awaitable[None]]) -> None:
    """For ever, also after the API closed the connection."""
    while True:
        try:
            await once()
        except (OSError, asyncio.IncompleteReadError):
            await asyncio.sleep(0.01)


async def _loop(setup: Setup, request: bytes) -> None:
    """Send a request again and again on one connection."""

    async def once() -> None:
        reader, writer = await _connect(setup)
        try:
            while True:
                writer.write(request)
                await writer.drain()
                await _answer(reader)
        finally:
            writer.close()

    await _again(once)


async def _many(count: int, client: Callable[[], Coroutine[Any, Any, None]]) -> None:
    await asyncio.gather(*(client() for _ in range(count)))


async def _hold(setup: Setup, begin: bytes, drip: bytes, seconds: float) -> None:
    async def once() -> None:
        reader, writer = await _connect(setup)
        try:
            writer.write(begin)
            while True:
                try:
                    async with asyncio.timeout(seconds):
                        if not await reader.read(65536):
                            return
                except TimeoutError:
                    writer.write(drip)
        finally:
            writer.close()

    await _again(once)


_POST = "/v1/uploads?user=user-0&fhirVersion=R4"
_BATCH = "/v1/batches?user=user-0&fhirVersion=R4"
_JSON = "Content-Type: application/fhir+json"
_NDJSON = "Content-Type: application/x-ndjson"


async def slow_bodies(setup: Setup) -> None:
    """Six large bodies, 257 small ones and 16 batches, a byte each ten seconds."""
    large = _head("POST", _POST, setup.key, _JSON, f"Content-Length: {8 * _MIB}")
    small = _head("POST", _POST, setup.key, _JSON, "Content-Length: 60000")
    batch = _head("POST", _BATCH, setup.key, _NDJSON, f"Content-Length: {8 * _MIB}")
    await asyncio.gather(
        _many(6, lambda: _hold(setup, large, b" ", 10)),
        _many(257, lambda: _hold(setup, small, b" ", 10)),
        _many(16, lambda: _hold(setup, batch + b"{}\n", b" ", 10)),
    )


async def full_bodies(setup: Setup) -> None:
    """Bodies that fill all bytes which a process takes, and then stall."""
    large = _head("POST", _POST, setup.key, _JSON, f"Content-Length: {8 * _MIB}")
    await _many(10, lambda: _hold(setup, large + b" " * (7 * _MIB), b" ", 10))


async def half_heads(setup: Setup) -> None:
    """900 heads that never end."""
    await _many(900, lambda: _hold(setup, b"GET /healthz HTTP/1.1\r\nHost: a\r\n", b"", 3600))


async def blank_lines(setup: Setup) -> None:
    """Batches of line feeds, 16 MiB each."""
    head = _head("POST", _BATCH, setup.key, _NDJSON, f"Content-Length: {16 * _MIB}")
    request = head + b"\n" * (16 * _MIB)
    await _many(2, lambda: _loop(setup, request))


async def nested_arrays(setup: Setup) -> None:
    """Bodies of 8 MiB of empty arrays."""
    arrays = b'{"resourceType":"Basic","a":[' + b"[]," * (8 * _MIB // 3 - 20) + b"[]]}"
    head = _head("POST", _POST, setup.key, _JSON, f"Content-Length: {len(arrays)}")
    await _many(4, lambda: _loop(setup, head + arrays))


async def readiness(setup: Setup) -> None:
    """Readiness in a loop, without a credential."""
    request = b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n"
    await _many(_CLIENTS, lambda: _loop(setup, request))


async def lists(setup: Setup) -> None:
    """Lists of 500 uploads."""
    request = _head("GET", "/v1/uploads?limit=500", setup.key)
    await _many(_CLIENTS, lambda: _loop(setup, request))


async def summaries(setup: Setup) -> None:
    """Summaries of a user."""
    request = _head("GET", "/v1/users/user-0/summary", setup.key)
    await _many(_CLIENTS, lambda: _loop(setup, request))


async def long_polls(setup: Setup) -> None:
    """900 long polls, again as soon as they are answered."""
    request = _head("GET", f"{setup.upload}?wait=30", setup.key)
    await _many(900, lambda: _loop(setup, request))


async def wrong_credentials(setup: Setup) -> None:
    """Credentials that nobody has."""
    request = _head("GET", setup.upload, "uplift_key_" + "x" * 43)
    await _many(_CLIENTS, lambda: _loop(setup, request))


HOSTILE: dict[str, Callable[[Setup], Coroutine[Any, Any, None]]] = {
    each.__name__: each
    for each in (
        slow_bodies,
        full_bodies,
        half_heads,
        blank_lines,
        nested_arrays,
        readiness,
        lists,
        summaries,
        long_polls,
        wrong_credentials,
    )
}


async def honest(setup: Setup) -> None:
    """Devices that each post a resource, wait for the answer, and rest a little."""
    seconds: list[float] = []
    others = 0
    ends = time.monotonic() + setup.seconds
    label = f"h{time.time_ns()}"

    async def device(number: int, token: str) -> None:
        nonlocal others
        reader, writer = await _connect(setup)
        await asyncio.sleep(_PAUSE_SECONDS * number / len(setup.tokens))
        path = f"/v1/uploads?user=user-{number}&fhirVersion=R4&source=bench"
        count = 0
        while time.monotonic() < ends:
            _, content = body(label, number * 100_000 + count)
            count += 1
            began = time.perf_counter()
            writer.write(_head("POST", path, token, _JSON, f"Content-Length: {len(content)}"))
            writer.write(content)
            status = await _answer(reader)
            seconds.append(time.perf_counter() - began)
            others += status != 202
            await asyncio.sleep(_PAUSE_SECONDS)
        writer.close()

    await asyncio.gather(*(device(*each) for each in enumerate(setup.tokens)))
    print(json.dumps({"seconds": seconds, "others": others}))


if __name__ == "__main__":
    uvloop.run({"honest": honest, **HOSTILE}[sys.argv[1]](Setup(**json.loads(os.environ["BENCH"]))))
