"""From submitting to delivered on an idle system, without the upstream's own time.

One upload after another: posted over a kept-alive connection, then the ledger is queried every
millisecond until the upload is delivered. The time between arrival and response at the stand-in is
subtracted. baseline_plain and baseline_celery (16 processes) do the same in turn. Then the same to
a FHIR server that takes Bundles, against one that takes none: nothing may wait to fill one.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import psycopg

from bench import bundles
from bench.baseline_plain import Baseline
from bench.figures import Figure, Target, percentile
from bench.plan import Plan
from bench.resources import body
from bench.testbed import USERS, Testbed, open_testbed, upstream
from bench.upstream import Upstream

UPSTREAM_MS = 20
UPLOADS = 100
_WAIT_SECONDS = 60.0
_PAUSE = 0.02  # so that the system is idle again


def main(folder: Path, plan: Plan) -> list[Figure]:
    """Measure each beside the other, round by round."""
    return [*_beside_baselines(folder, plan), *_with_bundles(folder / "bundles", plan)]


def _beside_baselines(folder: Path, plan: Plan) -> list[Figure]:
    with upstream(folder) as stand_in, open_testbed(folder / "uplift", stand_in) as testbed:
        testbed.start_worker("worker", max_in_flight=100)
        baseline = Baseline(testbed)
        try:
            port = baseline.start_api(in_threads=True)
            baseline.start_worker(16)
            ours = testbed.system.api_url + "/v1/uploads"
            theirs = f"http://127.0.0.1:{port}/uploads"

            def measure(count: int) -> tuple[list[float], list[float]]:
                return (
                    one_by_one(stand_in, ours, testbed.key, testbed.ledger, testbed.label(), count),
                    one_by_one(
                        stand_in, theirs, testbed.key, baseline.tables, testbed.label(), count
                    ),
                )

            measure(20)  # imports, connections
            rounds = [measure(plan.of(UPLOADS)) for _ in range(plan.rounds)]
        finally:
            baseline.close()
    return _figures(
        "submit to delivered without upstream",
        "baseline_plain and baseline_celery",
        rounds,
        {
            50: Target(20.0, of="ours", bound="maximum"),
            99: Target(80.0, of="ours", bound="maximum"),
        },
    )


def _with_bundles(folder: Path, plan: Plan) -> list[Figure]:
    with (
        upstream(folder) as stand_in,
        open_testbed(folder / "on", stand_in, settings=bundles.settings(stand_in)) as on,
        open_testbed(
            folder / "off",
            stand_in,
            settings={**bundles.settings(stand_in), "UPLIFT_DESTINATION_BUNDLE": "none"},
        ) as off,
    ):
        for testbed in (on, off):
            testbed.start_worker("worker", max_in_flight=100)

        def measure(testbed: Testbed, count: int) -> list[float]:
            address = testbed.system.api_url + "/v1/uploads"
            return one_by_one(
                stand_in, address, testbed.key, testbed.ledger, testbed.label(), count
            )

        for testbed in (on, off):
            measure(testbed, 20)  # imports, connections
        rounds = [
            (measure(on, plan.of(UPLOADS)), measure(off, plan.of(UPLOADS)))
            for _ in range(plan.rounds)
        ]
    return _figures(
        "the same to a server that takes Bundles",
        "the same without Bundles",
        rounds,
        {50: None, 99: None},
    )


def _figures(
    what: str,
    against: str,
    rounds: Sequence[tuple[list[float], list[float]]],
    targets: Mapping[int, Target | None],
) -> list[Figure]:
    """A figure for each percentile, of our seconds and theirs in each round."""
    return [
        Figure(
            section="latency",
            what=f"{what}, p{percent}",
            unit="ms",
            against=against,
            ours=tuple(percentile(mine, percent) * 1000 for mine, _ in rounds),
            theirs=tuple(percentile(other, percent) * 1000 for _, other in rounds),
            target=target,
        )
        for percent, target in targets.items()
    ]


def one_by_one(
    stand_in: Upstream,
    address: str,
    key: str,
    ledger: psycopg.Connection[tuple[object, ...]],
    label: str,
    count: int,
) -> list[float]:
    """Seconds of each upload, without the stand-in's own time. Raises TimeoutError."""
    found = []
    with httpx.Client(headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
        for number in range(count):
            stand_in.reset(UPSTREAM_MS)
            time.sleep(_PAUSE)
            _, content = body(label, number)
            begun = time.perf_counter()
            response = client.post(
                address,
                content=content,
                params={"user": f"user-{number % USERS}", "fhirVersion": "R4", "source": "bench"},
                headers={"Content-Type": "application/fhir+json"},
            ).raise_for_status()
            _wait(ledger, response.json()["id"], address)
            seconds = time.perf_counter() - begun
            counts = stand_in.counts()
            if counts.responses != 1:
                raise AssertionError(f"One upload came to {counts.responses} creates.")
            found.append(seconds - counts.own_seconds)
    return found


def _wait(ledger: psycopg.Connection[tuple[object, ...]], upload_id: str, address: str) -> None:
    ends = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < ends:
        row = ledger.execute("SELECT state FROM uploads WHERE id = %s", [upload_id]).fetchone()
        if row == ("delivered",):
            return
        time.sleep(0.001)
    raise TimeoutError(f"An upload to {address} was not delivered in {_WAIT_SECONDS:.0f} s.")
