"""Baseline for a real server: a loop that only sends. No ledger, no validation.

    python -m bench.baseline_puts --base http://127.0.0.1:8080/fhir --count 1000 --entries 20

It sends what Uplift sends: the same resources with ids of their own, a reference to a Patient, and
the other references logical; singly as PUTs, or as transactions of them. All is made before the
clock starts. Prints JSON: seconds, and seconds of CPU. BENCH_AUTHORIZATION has the login, if any.
"""

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

from bench.baseline_loop import open_client
from bench.resources import bodies
from uplift.destinations.destination import BundleType
from uplift.destinations.references import Rewriting, parse, rewritten, write
from uplift.destinations.requests import Entry, Put, bundle_body
from uplift.fhir.versions import FhirVersion

_PEOPLE = 50
_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Taken:
    """What the loop took, in seconds."""

    seconds: float
    cpu_seconds: float


def send_all(
    base: str, count: int, *, in_flight: int, entries: int, authorization: str = ""
) -> Taken:
    """Run the loop in a process of its own. Raises CalledProcessError unless all get a 2xx."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench.baseline_puts", "--base", base, "--count", str(count)),
            *("--in-flight", str(in_flight), "--entries", str(entries)),
        ],
        env={**os.environ, "BENCH_AUTHORIZATION": authorization},
        check=True,
        stdout=subprocess.PIPE,
    )
    return Taken(**json.loads(done.stdout))


async def _send(base: str, count: int, in_flight: int, entries: int) -> Taken:
    headers = {
        "Content-Type": "application/fhir+json",
        "Accept": "application/fhir+json",
        "Prefer": "return=representation",
    }
    if authorization := os.environ.get("BENCH_AUTHORIZATION"):
        headers["Authorization"] = authorization
    async with open_client(in_flight, seconds=_SECONDS, headers=headers) as client:
        for number in range(_PEOPLE):
            patient = {"resourceType": "Patient", "id": f"bench-{number}"}
            answer = await client.put(f"{base}/Patient/bench-{number}", json=patient)
            answer.raise_for_status()
        waiting = iter(list(_requests(count, entries)))

        async def send_next() -> None:
            for method, address, body in waiting:
                answer = await client.request(method, f"{base}{address}", content=body)
                if not answer.is_success:
                    raise SystemExit(f"{answer.status_code} {answer.text[:500]}")

        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(send_next() for _ in range(in_flight)))
        return Taken(time.perf_counter() - began, time.process_time() - cpu)


def _requests(count: int, entries: int) -> Iterator[tuple[str, str, bytes]]:
    """Method, address below the base and body of each request."""
    all_entries = (_entry(number, *each) for number, each in enumerate(bodies("puts", count)))
    if entries == 1:
        for each in all_entries:
            yield "PUT", f"/{each.url}", each.body
        return
    while group := list(itertools.islice(all_entries, entries)):
        yield "POST", "", bundle_body(BundleType.TRANSACTION, group)


def _entry(number: int, resource_type: str, body: bytes) -> Entry:
    own_id = f"u{uuid4().hex}"
    rules = Rewriting(
        version=FhirVersion.R4,
        own_id=own_id,
        source_system="urn:uplift:source:bench",
        patient=f"Patient/bench-{number % _PEOPLE}",
    )
    return Entry(resource_type, Put(own_id), write(rewritten(parse(body), rules)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A loop that only sends to a FHIR server.")
    parser.add_argument("--base", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--in-flight", type=int, default=4)
    parser.add_argument("--entries", type=int, default=1, help="of a Bundle; 1: no Bundle")
    chosen = parser.parse_args()
    taken = asyncio.run(_send(chosen.base, chosen.count, chosen.in_flight, chosen.entries))
    print(json.dumps({"seconds": taken.seconds, "cpu_seconds": taken.cpu_seconds}))
