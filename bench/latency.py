"""From submitting to delivered on an idle system, beyond the upstream's own time.

One upload after the other: posted over a kept-alive connection, then the ledger is asked each
millisecond until it has it as delivered. The time that the stand-in took between arrival and answer
is taken off. The plain way does the same beside it, with its one endpoint and 16 processes.
"""

import time
from pathlib import Path

import httpx
import psycopg

from bench.baseline_plain import Plain
from bench.figures import Figure, Target, percentile
from bench.plan import Plan
from bench.resources import body
from bench.testbed import Testbed, ground, upstream

UPSTREAM_MS = 20
UPLOADS = 100
_PAUSE = 0.02  # so that the system is idle again


def main(folder: Path, plan: Plan) -> list[Figure]:
    """Measure both, round by round."""
    with upstream(folder) as stand_in, ground(folder / "uplift", stand_in) as stood:
        stood.start_worker("worker", slots=100)
        plain = Plain(stood)
        try:
            port = plain.start_api(in_threads=True)
            plain.start_worker(16)
            stood.upstream_ms = UPSTREAM_MS
            ours = stood.system.api_url + "/v1/uploads"
            theirs = f"http://127.0.0.1:{port}/uploads"
            for address, ledger in ((ours, stood.ledger), (theirs, plain.tables)):
                one_by_one(stood, address, ledger, 20)  # imports, connections
            count = plan.of(UPLOADS)
            rounds = [
                (
                    one_by_one(stood, ours, stood.ledger, count),
                    one_by_one(stood, theirs, plain.tables, count),
                )
                for _ in range(plan.rounds)
            ]
        finally:
            plain.close()
    return [
        Figure(
            section="latency",
            what=f"submit to delivered beyond upstream, p{percent}",
            unit="ms",
            against="plain endpoint and textbook task",
            ours=tuple(percentile(mine, percent) * 1000 for mine, _ in rounds),
            theirs=tuple(percentile(other, percent) * 1000 for _, other in rounds),
            target=Target(value, of="ours", at="most"),
        )
        for percent, value in ((50, 20.0), (99, 80.0))
    ]


def one_by_one(
    stood: Testbed, address: str, ledger: psycopg.Connection[tuple[object, ...]], count: int
) -> list[float]:
    """Seconds beyond the stand-in's own time, of each. Raises TimeoutError for one that stays."""
    label = stood.label()
    found = []
    with httpx.Client(headers={"Authorization": f"Bearer {stood.key}"}, timeout=10) as client:
        for number in range(count):
            stood.upstream.reset(UPSTREAM_MS)
            time.sleep(_PAUSE)
            _, content = body(label, number)
            begun = time.perf_counter()
            response = client.post(
                address,
                content=content,
                params={"user": f"user-{number % 50}", "fhirVersion": "R4", "source": "bench"},
                headers={"Content-Type": "application/fhir+json"},
            ).raise_for_status()
            _wait(ledger, response.json()["id"])
            seconds = time.perf_counter() - begun
            counts = stood.upstream.counts()
            if counts.answered != 1:
                raise AssertionError(f"One upload came to {counts.answered} creates.")
            found.append(seconds - counts.own_seconds)
    return found


def _wait(ledger: psycopg.Connection[tuple[object, ...]], upload_id: str) -> None:
    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        row = ledger.execute("SELECT state FROM uploads WHERE id = %s", [upload_id]).fetchone()
        if row == ("delivered",):
            return
        time.sleep(0.001)
    raise TimeoutError("An upload was not delivered within ten seconds.")
