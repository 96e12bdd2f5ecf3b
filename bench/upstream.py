"""A lean stand-in for 1upHealth, in a process of its own: how fast it answers can be set.

    python -m bench.upstream --port 8099

It stores nothing: a create gets 201 and the resource with an id, after the latency. What it tells
of itself (GET /_bench) and takes (POST /_bench?latency_ms=…, which counts anew) is the benchmark's.
Raw asyncio on uvloop, so that what is measured is not the server.
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
    """What came since it was last set: times are of the machine's monotonic clock."""

    latency: float = 0.0  # seconds
    arrived: int = 0
    answered: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    first_arrival: float = 0.0
    last_response: float = 0.0
    own_seconds: float = 0.0  # between arrival and answer, all together
    other_requests: int = 0  # what was no create


@dataclass(slots=True)
class State:
    """What its connections share."""

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
        """Keep where to answer."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        """Take a request once it is whole."""
        self._received += data
        head, end, body = bytes(self._received).partition(b"\r\n\r\n")
        if not end:
            return
        length = _length(head)
        if len(body) < length:
            return
        del self._received[: len(head) + len(end) + length]
        self._take(head, body[:length])

    def _take(self, head: bytes, body: bytes) -> None:
        method, target, _ = head.partition(b"\r\n")[0].decode().split(" ", 2)
        counts = self._state.counts
        if target.startswith("/_bench"):
            if method == "POST":
                latency = parse_qs(urlsplit(target).query)["latency_ms"][0]
                self._state.counts = counts = Counts(latency=float(latency) / 1000)
            self._answer(b"200 OK", json.dumps({n: getattr(counts, n) for n in _NAMES}).encode())
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
            self._answer(b"404 Not Found", _NOT_FOUND)

    def _create(self, body: bytes, counts: Counts, arrived: float) -> None:
        stored = orjson.loads(body)
        stored["id"] = f"up-{next(self._state.ids)}"
        stored["meta"] = {"versionId": "1"}
        location = f"/{stored['resourceType']}/{stored['id']}/_history/1"
        self._answer(b"201 Created", orjson.dumps(stored), f"Location: {location}\r\n".encode())
        now = time.monotonic()
        counts.in_flight -= 1
        counts.answered += 1
        counts.last_response = now
        counts.own_seconds += now - arrived

    def _answer(self, status: bytes, body: bytes, extra: bytes = b"") -> None:
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
            raise ValueError("The stand-in takes bodies with a Content-Length only.")
    return 0


class Upstream:
    """How the benchmark speaks to it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def reset(self, latency_ms: float) -> None:
        """Count anew, and answer after so many milliseconds from now on."""
        httpx.post(
            f"{self.url}/_bench", params={"latency_ms": latency_ms}, timeout=10
        ).raise_for_status()

    def counts(self) -> Counts:
        """What came since."""
        return Counts(**httpx.get(f"{self.url}/_bench", timeout=10).json())

    def wait(self, answered: int, seconds: float) -> Counts:
        """Return when so many creates are answered. Raises TimeoutError after `seconds`."""
        ends = time.monotonic() + seconds
        while (counts := self.counts()).answered < answered:
            if time.monotonic() > ends:
                raise TimeoutError(f"{counts.answered} of {answered} came within {seconds:.0f} s.")
            time.sleep(0.1)
        return counts


def rate(counts: Counts) -> float:
    """Creates a second, from the first that arrived to the last that was answered."""
    return counts.answered / (counts.last_response - counts.first_arrival)


async def serve(port: int) -> None:
    """Answer on loopback until stopped."""
    state = State()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(state), "127.0.0.1", port, backlog=2048
    )
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A lean stand-in for 1upHealth.")
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))
