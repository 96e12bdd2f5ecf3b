"""What the worst bodies cost the validator: memory, time, and how long it holds Python's lock.

`python -m bench.validation_limits` measures each shape of tests.uplift.fhir.worst_shapes in each
version, in a process of its own: with 8 MiB, and with the largest body that is not too complex. It
needs Linux, for the peak of the memory.
"""

import subprocess
import sys
import threading
import time
from pathlib import Path

import orjson

from tests.uplift.fhir.worst_shapes import SHAPES
from uplift.errors import TooComplex, UnreadableDocument
from uplift.fhir.document import read
from uplift.fhir.validate import validate
from uplift.fhir.versions import FhirVersion

BODY_BYTES = 8 * 1024 * 1024
PEAK_MB, SECONDS, LOCK_SECONDS = 200.0, 2.0, 0.2
"""What one body may cost: memory above idle, time, and the longest time of others without the
lock."""

_WARM = (
    b'{"resourceType":"Patient"}',
    b'{"resourceType":"Observation","status":"final","code":{"text":"a"}}',
)
_TICK = 0.001


def cost(shape: str, version: FhirVersion, *, largest: bool) -> dict[str, float]:
    """The cost of one body in this process: bytes, MB at its peak above idle, seconds, lock."""
    for body in _WARM:
        validate(body, version)
    body = _largest(shape, version) if largest else SHAPES[shape](BODY_BYTES, version)
    idle = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins now
    stop = threading.Event()
    gaps = [0.0]

    def tick() -> None:
        last = time.perf_counter()
        while not stop.wait(_TICK):
            now = time.perf_counter()
            gaps.append(now - last - _TICK)
            last = now

    ticker = threading.Thread(target=tick)
    ticker.start()
    started = time.perf_counter()
    report = validate(body, version)
    seconds = time.perf_counter() - started
    stop.set()
    ticker.join()
    return {
        "kb": len(body) / 1024,
        "peak": _memory("VmHWM") - idle,
        "seconds": seconds,
        "lock": max(gaps),
        "complex": float(report.too_complex),
    }


def _largest(shape: str, version: FhirVersion) -> bytes:
    """The largest body of the shape that is validated at all."""
    size = float(BODY_BYTES)
    while True:
        body = SHAPES[shape](int(size), version)
        try:
            read(body)
        except TooComplex:
            size *= 0.9
        except UnreadableDocument:
            return body
        else:
            return body


def _memory(field: str) -> float:
    """In MB."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def measure(shape: str, version: FhirVersion, *, largest: bool) -> dict[str, float]:
    """`cost` in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "bench.validation_limits",
        shape,
        version,
        "largest" if largest else "whole",
    ]
    ran = subprocess.run(command, check=True, capture_output=True, timeout=120)
    measured: dict[str, float] = orjson.loads(ran.stdout)
    return measured


def fits(row: dict[str, float]) -> bool:
    """Whether the cost is within the limits."""
    return row["peak"] <= PEAK_MB and row["seconds"] <= SECONDS and row["lock"] <= LOCK_SECONDS


def main() -> dict[str, dict[str, float]]:
    """Measure every shape in every version, print a table, return the figures."""
    print(f"{'shape':26}{'version':8}{'KiB':>6}{'MB':>6}{'s':>7}{'lock s':>8}")
    figures: dict[str, dict[str, float]] = {}
    for shape in SHAPES:
        for version in FhirVersion:
            for largest in (False, True):
                row = measure(shape, version, largest=largest)
                figures[f"{shape} {version} {largest}"] = row
                print(
                    f"{shape:26}{version:8}{row['kb']:6.0f}{row['peak']:6.0f}"
                    f"{row['seconds']:7.2f}{row['lock']:8.2f}"
                    f"{' too complex' if row['complex'] else ''}{'' if fits(row) else '  OVER'}",
                    flush=True,
                )
    return figures


if __name__ == "__main__":
    if len(sys.argv) > 1:
        name, release, size = sys.argv[1:]
        taken = cost(name, FhirVersion(release), largest=size == "largest")
        sys.stdout.buffer.write(orjson.dumps(taken))
    else:
        main()
