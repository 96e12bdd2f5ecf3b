"""A small stand-in for 1upHealth, in a process of its own, with a latency that can be set.

    python -m bench.upstream --port 8099

It stores nothing: a create gets 201 and the resource with an id, after the latency. Only benchmarks
use GET /_bench (its counts) and POST /_bench?latency_ms=… (sets the latency, and the counts to
zero). Raw asyncio on uvloop, so that the stand-in is never the slowest part.
"""

import argparse
import asyncio
import itertools
import json
import time
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import parse_qs, urlsplit

import httpx
import orjson
import uvloop

_NOT_FOUND = (
    b'{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"not-found"}]}'
)


@dataclass(slots=True)
class Counts:
    """What came since the last reset. Times are of the machine's monotonic clock."""

    latency: float = 0.0  # seconds
    arrived: int = 0
    responses: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    first_arrival: float = 0.0
    last_response: float = 0.0
    own_seconds: float = 0.0  # between arrival and response, of all creates together
    other_requests: int = 0  # all but creates


@dataclass(slots=True)
class State:
    """What the connections share."""

    counts: Counts = field(default_factory=Counts)
    ids: "itertools.count[int]" = field(default_factory=itertools.count)


class Connection(asyncio.Protocol):
    """One connection, one request after the other."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport for the responses."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        """Handle a request once it is whole."""
        self._received += data
        head, end, body = bytes(self._received).partition(b"\r\n\r\n")
        if not end:
            return
        length = _length(head)
        if len(body) < length:
            return
        del self._received[: len(head) + len(end) + length]
        self._handle(head, body[:length])

    def _handle(self, head: bytes, body: bytes) -> None:
        method, target, _ = head.partition(b"\r\n")[0].decode().split(" ", 2)
        counts = self._state.counts
        if target.startswith("/_bench"):
            if method == "POST":
                latency = parse_qs(urlsplit(target).query)["latency_ms"][0]
                self._state.counts = counts = Counts(latency=float(latency) / 1000)
            self._respond(b"200 OK", json.dumps({n: getattr(counts, n) for n in _NAMES}).encode())
        elif method == "POST":
            now = time.monotonic()
            counts.arrived += 1
            counts.in_flight += 1
            counts.max_in_flight = max(counts.max_in_flight, counts.in_flight)
            if counts.arrived == 1:
                counts.first_arrival = now
            if counts.latency:
                self._loop.call_later(counts.latency, self._create, body, counts, now)
            else:
                self._create(body, counts, now)
        else:
            counts.other_requests += 1
            self._respond(b"404 Not Found", _NOT_FOUND)

    def _create(self, body: bytes, counts: Counts, arrived: float) -> None:
        stored = orjson.loads(body)
        stored["id"] = f"up-{next(self._state.ids)}"
        stored["meta"] = {"versionId": "1"}
        location = f"/{stored['resourceType']}/{stored['id']}/_history/1"
        self._respond(b"201 Created", orjson.dumps(stored), f"Location: {location}\r\n".encode())
        now = time.monotonic()
        counts.in_flight -= 1
        counts.responses += 1
        counts.last_response = now
        counts.own_seconds += now - arrived

    def _respond(self, status: bytes, body: bytes, extra: bytes = b"") -> None:
        assert self._transport is not None  # noqa: S101
        self._transport.write(
            b"HTTP/1.1 %b\r\nContent-Type: application/fhir+json\r\n%bContent-Length: %d\r\n\r\n%b"
            % (status, extra, len(body), body)
        )


_NAMES = tuple(Counts.__dataclass_fields__)


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
        if name.lower() == b"transfer-encoding":
            raise ValueError("The stand-in accepts only bodies with a Content-Length.")
    return 0


class Upstream:
    """The benchmarks' client of it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def reset(self, latency_ms: float) -> None:
        """Set the counts to zero, and the latency, in milliseconds."""
        httpx.post(
            f"{self.url}/_bench", params={"latency_ms": latency_ms}, timeout=10
        ).raise_for_status()

    def counts(self) -> Counts:
        """What came since the last reset."""
        return Counts(**httpx.get(f"{self.url}/_bench", timeout=10).json())

    def wait(self, responses: int, seconds: float) -> Counts:
        """Return after this many responses to creates. Raises TimeoutError after `seconds`."""
        ends = time.monotonic() + seconds
        while (counts := self.counts()).responses < responses:
            if time.monotonic() > ends:
                raise TimeoutError(
                    f"{counts.responses} of {responses} creates came within {seconds:.0f} s."
                )
            time.sleep(0.1)
        return counts


def rate(counts: Counts) -> float:
    """Creates a second, from the first arrival to the last response."""
    return counts.responses / (counts.last_response - counts.first_arrival)


async def serve(port: int) -> None:
    """Serve on loopback until stopped."""
    state = State()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(state), "127.0.0.1", port, backlog=2048
    )
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A small stand-in for 1upHealth.")
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))
