"""`uplift push`: its peak memory with exports larger than memory, and that all arrives.

`python -m bench.push_sizes` makes an export.xml of 3 GB, under its own name and under another, in a
folder and in an archive; 100,000 attachments; and one record of 8 MiB. Each is pushed to an API
that accepts everything. It fails above 200 MB. `--gigabytes 0.2 --attachments 2000` takes a minute.
"""

import argparse
import json
import secrets
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO
from urllib.parse import parse_qs, urlsplit

import psutil

from uplift.cli.local.system import command

MAX_BYTES = 200 * 1000 * 1000
_RECORD_BYTES = 8 * 1024 * 1024 - 4096  # the API's limit is for the whole line
_READING = (
    b' <Record type="HKQuantityTypeIdentifierHeartRate" sourceName="Watch" unit="count/min"'
    b' startDate="2025-03-01 08:00:00 +0100" endDate="2025-03-01 08:00:00 +0100" value="60"/>\n'
)

_DELIVERED = {
    "status": "delivered",
    "final": True,
    "user": "bench",
    "fhirVersion": "R4",
    "resourceType": "DocumentReference",
    "createdAt": "2026-01-01T00:00:00Z",
    "updatedAt": "2026-01-01T00:00:00Z",
    "statusUrl": "/v1/uploads/u",
}


class _Accepting(BaseHTTPRequestHandler):
    """An Uplift API that delivers everything at once and keeps a count."""

    protocol_version = "HTTP/1.1"
    count = 0

    def do_POST(self) -> None:
        """`POST /v1/batches`."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        lines = body.count(b"\n")
        first = _Accepting.count
        _Accepting.count += lines
        found = [
            {"line": line + 1, "id": f"u{first + line:08}", "status": "queued", "duplicate": False}
            for line in range(lines)
        ]
        self._answer(202, {"id": "b", "lines": found})

    def do_GET(self) -> None:
        """`GET /v1/uploads`, in pages."""
        start = int(parse_qs(urlsplit(self.path).query).get("after", ["0"])[0])
        end = min(start + 500, _Accepting.count)
        found = [{"id": f"u{each:08}", **_DELIVERED} for each in range(start, end)]
        more = f"/v1/uploads?user=bench&limit=500&after={end}" if end < _Accepting.count else None
        self._answer(200, {"uploads": found, "next": more})

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def accepting() -> Iterator[str]:
    """The API, on loopback. Gives its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Accepting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def resource(number: int, size: int = 300) -> bytes:
    """A record with an attachment that does not pack well."""
    note = secrets.token_hex(size // 2)
    return json.dumps(
        {"resourceType": "DocumentReference", "id": f"d{number}", "description": note}
    ).encode()


def element(number: int) -> bytes:
    """Its element in the index."""
    return (
        f' <ClinicalRecord type="DocumentReference" identifier="d{number}" sourceName="Clinic"'
        f' sourceURL="https://north.example/DocumentReference/d{number}" fhirVersion="4.0.1"'
        ' receivedDate="2025-03-01 08:00:00 +0100"'
        f' resourceFilePath="/clinical-records/DocumentReference-{number}.json"/>\n'
    ).encode()


def write_index(file: IO[bytes], size: int, records: int) -> None:
    """An index of about `size` bytes."""
    file.write(b'<?xml version="1.0"?>\n<!DOCTYPE HealthData []>\n<HealthData>\n')
    block = _READING * 5000
    for _ in range(size // len(block)):
        file.write(block)
    for number in range(records):
        file.write(element(number))
    file.write(b"</HealthData>\n")


def folder(path: Path, index: str, size: int, records: int, record_bytes: int = 300) -> Path:
    """An unpacked export."""
    (path / "clinical-records").mkdir(parents=True)
    with (path / index).open("wb") as file:
        write_index(file, size, records)
    for number in range(records):
        target = path / "clinical-records" / f"DocumentReference-{number}.json"
        target.write_bytes(resource(number, record_bytes))
    return path


def archive(path: Path, index: str, size: int, records: int, record_bytes: int = 300) -> Path:
    """The same in a zip archive."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as zipped:
        for number in range(records):
            name = f"apple_health_export/clinical-records/DocumentReference-{number}.json"
            zipped.writestr(name, resource(number, record_bytes))
        with zipped.open(f"apple_health_export/{index}", "w", force_zip64=True) as file:
            write_index(file, size, records)
    return path


def push(path: Path, url: str, expected: int, what: str) -> int:
    """Push it in a process of its own. Returns the peak of its memory in bytes."""
    _Accepting.count = 0
    begun = time.monotonic()
    options = ("--user", "bench", "--api", url, "--key", "bench")
    child = subprocess.Popen(
        command("push", str(path), *options),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    watched, peak = psutil.Process(child.pid), 0
    while child.poll() is None:
        peak = max(peak, watched.memory_info().rss)
        time.sleep(0.01)
    seconds = time.monotonic() - begun
    print(f"{what:>40}: peaks at {peak / 1e6:.0f} MB, {seconds:.0f} s", flush=True)
    if child.returncode or _Accepting.count != expected:
        said = child.stderr.read().decode() if child.stderr else ""
        sys.exit(f"{what}: exit code {child.returncode}, {_Accepting.count} arrived.\n{said}")
    return peak


def main() -> None:
    """Measure and print; fail if the memory is not bounded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=3.0)
    parser.add_argument("--attachments", type=int, default=100_000)
    given = parser.parse_args()
    size, many = int(given.gigabytes * 1e9), given.attachments
    makers: dict[str, tuple[Callable[[Path], Path], int]] = {
        "export.xml in a folder": (lambda at: folder(at, "export.xml", size, 100), 100),
        "Exportieren.xml in a folder": (lambda at: folder(at, "Exportieren.xml", size, 100), 100),
        "\u5bfc\u51fa.xml in an archive": (
            lambda at: archive(at, "\u5bfc\u51fa.xml", size, 100),
            100,
        ),
        "attachments in an archive": (lambda at: archive(at, "export.xml", 0, many), many),
        "attachments in a folder": (lambda at: folder(at, "export.xml", 0, many), many),
        "one record of 8 MiB": (lambda at: archive(at, "export.xml", 0, 1, _RECORD_BYTES), 1),
        "one record of 8 MiB in a folder": (
            lambda at: folder(at, "export.xml", 0, 1, _RECORD_BYTES),
            1,
        ),
    }
    with accepting() as url:
        for what, (make, expected) in makers.items():
            with tempfile.TemporaryDirectory() as name:
                if push(make(Path(name) / "export"), url, expected, what) > MAX_BYTES:
                    sys.exit(f"{what}: more than {MAX_BYTES // 1_000_000} MB.")


if __name__ == "__main__":
    main()
