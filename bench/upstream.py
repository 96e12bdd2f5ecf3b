"""A small stand-in for 1upHealth, in a process of its own, with a latency that can be set.

    python -m bench.upstream --port 8099

It stores nothing: a create gets 201 and the resource with an id, after the latency; a PUT keeps a
derived id; a Bundle gets an answer for each entry, after a time for each more. Only benchmarks use
GET /_bench (its counts) and POST /_bench?latency_ms=…&entry_ms=… (sets the times, and the counts to
zero). Raw asyncio on uvloop, so that the stand-in is never the slowest part.
"""

import argparse
import asyncio
import itertools
import json
import time
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import httpx
import orjson
import uvloop

_NOT_FOUND = (
    b'{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"not-found"}]}'
)

_STATEMENT = b'{"resourceType":"CapabilityStatement","fhirVersion":"4.0.1"}'


@dataclass(slots=True)
class Counts:
    """What came since the last reset. Times are of the machine's monotonic clock."""

    latency: float = 0.0  # seconds
    entry_seconds: float = 0.0  # more, for each record
    arrived: int = 0
    responses: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    first_arrival: float = 0.0
    last_response: float = 0.0
    own_seconds: float = 0.0  # between arrival and response, of all records together
    other_requests: int = 0  # all but creates, and reads of what the server is


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
                asked = parse_qs(urlsplit(target).query)
                self._state.counts = counts = Counts(
                    latency=float(asked["latency_ms"][0]) / 1000,
                    entry_seconds=float(asked.get("entry_ms", ["0"])[0]) / 1000,
                )
            self._respond(b"200 OK", json.dumps({n: getattr(counts, n) for n in _NAMES}).encode())
        elif method in ("POST", "PUT"):
            self._write(body, counts)
        elif target.endswith("/metadata"):
            self._respond(b"200 OK", _STATEMENT)
        else:
            counts.other_requests += 1
            self._respond(b"404 Not Found", _NOT_FOUND)

    def _write(self, body: bytes, counts: Counts) -> None:
        now = time.monotonic()
        sent = orjson.loads(body)
        is_bundle = sent["resourceType"] == "Bundle"
        records = len(sent["entry"]) if is_bundle else 1
        if not counts.arrived:
            counts.first_arrival = now
        counts.arrived += records
        counts.in_flight += records
        counts.max_in_flight = max(counts.max_in_flight, counts.in_flight)

        def answer() -> None:
            if is_bundle:
                answers = [self._entry(entry["resource"]) for entry in sent["entry"]]
                whole = {"resourceType": "Bundle", "type": "transaction-response", "entry": answers}
                self._respond(b"200 OK", orjson.dumps(whole))
            else:
                entry = self._entry(sent)
                where = f"Location: /{entry['response']['location']}\r\n"
                self._respond(b"201 Created", orjson.dumps(entry["resource"]), where.encode())
            ended = time.monotonic()
            counts.in_flight -= records
            counts.responses += records
            counts.last_response = ended
            counts.own_seconds += records * (ended - now)

        if delay := counts.latency + counts.entry_seconds * records:
            self._loop.call_later(delay, answer)
        else:
            answer()

    def _entry(self, resource: dict[str, Any]) -> dict[str, Any]:
        """What is answered for a record. Derived ids are kept."""
        if not str(resource.get("id", "")).startswith("u"):
            resource["id"] = f"up-{next(self._state.ids)}"
        resource["meta"] = {"versionId": "1"}
        location = f"{resource['resourceType']}/{resource['id']}/_history/1"
        response = {"status": "201 Created", "location": location, "etag": "1"}
        return {"resource": resource, "response": response}

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

    def reset(self, latency_ms: float, entry_ms: float = 0.0) -> None:
        """Set the counts to zero, and the latency and what each record adds, in milliseconds."""
        times = {"latency_ms": latency_ms, "entry_ms": entry_ms}
        httpx.post(f"{self.url}/_bench", params=times, timeout=10).raise_for_status()

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
