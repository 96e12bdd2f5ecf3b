"""Keep-alive clients that post resources one after the other, in a process of their own.

    BENCH_KEY=… python -m bench.load --port 8080 --path /v1/uploads --seconds 4

Prints JSON: the number of 202s a second, and their p50 and p99. Raw asyncio on uvloop: the clients
share the machine with what they measure.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass

import uvloop

from bench.figures import percentile
from bench.resources import body

WARM_UP = 0.5  # seconds, not counted


@dataclass(frozen=True, slots=True)
class Load:
    """What the clients measured. Times are in milliseconds."""

    per_second: float
    p50: float
    p99: float
    accepted: int  # with those of the warm-up


class _Run:
    def __init__(self, path: str, label: str, users: int, key: str) -> None:
        self._heads = [
            f"POST {path}?user=user-{user}&fhirVersion=R4&source=bench HTTP/1.1\r\n"
            f"Host: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
            "Content-Type: application/fhir+json\r\nContent-Length: ".encode()
            for user in range(users)
        ]
        self._label = label
        self._number = 0
        self.stopping = False
        self.counting = False
        self.accepted = 0
        self.seconds: list[float] = []

    def next(self) -> bytes:
        number = self._number
        self._number += 1
        _, content = body(self._label, number)
        return b"%b%d\r\n\r\n%b" % (self._heads[number % len(self._heads)], len(content), content)

    def note(self, status: bytes, seconds: float) -> None:
        if status != b"202":
            raise SystemExit(f"An upload got {status.decode()}, not 202.")
        self.accepted += 1
        if self.counting:
            self.seconds.append(seconds)


class _Client(asyncio.Protocol):
    def __init__(self, run: _Run) -> None:
        self._run = run
        self._received = b""
        self._begun = 0.0
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._send()

    def _send(self) -> None:
        self._begun = time.perf_counter()
        self._transport.write(self._run.next())

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, content = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(content) < length:
            return
        self._received = b""
        try:
            self._run.note(head[9:12], time.perf_counter() - self._begun)
        except SystemExit as error:
            self.ended.set_exception(RuntimeError(f"{error} {content[:300]!r}"))
            self._transport.close()
            return
        if self._run.stopping:
            self.ended.set_result(None)
            self._transport.close()
        else:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(exc or ConnectionError("The server closed a connection."))


async def _load(arguments: argparse.Namespace) -> Load:
    run = _Run(arguments.path, arguments.label, arguments.users, os.environ["BENCH_KEY"])
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: _Client(run), "127.0.0.1", arguments.port))[1]
        for _ in range(arguments.connections)
    ]
    everyone = asyncio.gather(*(client.ended for client in clients))
    await asyncio.sleep(WARM_UP)
    run.counting, begun = True, time.perf_counter()
    await asyncio.wait([everyone], timeout=arguments.seconds)
    run.counting, seconds = False, time.perf_counter() - begun
    run.stopping = True
    await everyone
    return Load(
        len(run.seconds) / seconds,
        percentile(run.seconds, 50) * 1000,
        percentile(run.seconds, 99) * 1000,
        run.accepted,
    )


def load(
    port: int, path: str, label: str, key: str, *, seconds: float, connections: int, users: int
) -> Load:
    """Run the clients in a process of their own. Raises CalledProcessError unless all get 202."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench.load", "--port", str(port), "--path", path),
            *("--label", label, "--seconds", str(seconds)),
            *("--connections", str(connections), "--users", str(users)),
        ],
        env={**os.environ, "BENCH_KEY": key},
        check=True,
        stdout=subprocess.PIPE,
    )
    return Load(**json.loads(done.stdout))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Keep-alive clients that post resources.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--label", required=True, help="begins the ids of what is posted")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--users", type=int, default=50)
    found = uvloop.run(_load(parser.parse_args()))
    print(json.dumps({name: getattr(found, name) for name in Load.__slots__}))
