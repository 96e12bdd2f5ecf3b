"""Delivered a second while one worker process drains a backlog.

Against baseline_loop (the upper limit) and the best of baseline_celery with 16, 32 and 64
processes. Counted at the stand-in for 1upHealth, from the first create that arrives to the last
response; then each round waits until the ledger has every upload as delivered. At 0 ms once more
with fhir.resources for a twentieth of the records.
"""

import subprocess
import sys
from pathlib import Path

from bench.baseline_plain import Baseline
from bench.figures import Figure, Target
from bench.plan import Plan
from bench.testbed import Drained, Testbed, cpu_of, open_testbed, upstream
from bench.upstream import rate

IN_FLIGHT = 200
CELERY_PROCESSES = (16, 32, 64)
LATENCIES = (0, 50, 200, 1000)
# Uploads of a round, so that each takes about five seconds.
_OURS = {0: 4000, 50: 4000, 200: 4000, 1000: 1200}
_LOOP = {0: 12000, 50: 10000, 200: 4000, 1000: 1000}
_CELERY = {0: 2000, 50: 1500, 200: 1000, 1000: 320}
_TARGETS_OF_LOOP = {0: Target(0.3), 200: Target(0.6)}
_TARGETS_OF_CELERY = {200: Target(5.0)}


def main(folder: Path, plan: Plan) -> list[Figure]:
    """Measure all latencies."""
    figures: list[Figure] = []
    with upstream(folder) as stand_in, open_testbed(folder / "uplift", stand_in) as testbed:
        worker = testbed.start_worker("worker", max_in_flight=IN_FLIGHT)
        baseline = Baseline(testbed)
        try:
            best = _best_processes(testbed, baseline, plan)
            testbed.deliver(200)  # imports and schemas
            for latency in LATENCIES:
                baseline.start_worker(best[latency][0])
                figures += _at(testbed, baseline, plan, latency, best[latency][1])
        finally:
            baseline.close()
        worker.stop()
        figures.append(_with_fewer_second_opinions(testbed, plan))
    return figures


def _with_fewer_second_opinions(testbed: Testbed, plan: Plan) -> Figure:
    settings = {"UPLIFT_SECOND_OPINION": "0.05"}
    name = "worker-of-fewer-second-opinions"
    testbed.start_worker(name, max_in_flight=IN_FLIGHT, settings=settings)
    testbed.upstream_ms = 0
    testbed.deliver(200)  # imports and schemas
    drained: list[Drained] = []
    loop: list[float] = []
    for _ in range(plan.rounds):
        drained.append(testbed.measure(plan.of(_OURS[0]), name))
        loop.append(post_loop(testbed, plan.of(_LOOP[0])))
    return Figure(
        section="delivery",
        what="delivered/s, upstream 0 ms, second opinion 0.05",
        unit="/s",
        against=f"baseline_loop, {IN_FLIGHT} in flight",
        ours=tuple(each.rate for each in drained),
        theirs=tuple(loop),
        target=Target(0.5),
        more=cpu_of(drained),
    )


def _best_processes(
    testbed: Testbed, baseline: Baseline, plan: Plan
) -> dict[int, tuple[int, dict[int, float]]]:
    """By latency: the best number of processes, and the rate of each in one short try."""
    tried: dict[int, dict[int, float]] = {latency: {} for latency in LATENCIES}
    for processes in CELERY_PROCESSES:
        baseline.start_worker(processes)
        testbed.upstream_ms = 0
        baseline.deliver(4 * processes)  # imports, connections
        for latency in LATENCIES:
            testbed.upstream_ms = latency
            count = max(plan.of(_CELERY[latency]) // 2, 2 * processes)
            tried[latency][processes] = rate(baseline.deliver(count))
    return {latency: (max(found, key=found.__getitem__), found) for latency, found in tried.items()}


def _at(
    testbed: Testbed, baseline: Baseline, plan: Plan, latency: int, tried: dict[int, float]
) -> list[Figure]:
    testbed.upstream_ms = latency
    drained: list[Drained] = []
    loop: list[float] = []
    celery: list[float] = []
    for _ in range(plan.rounds):
        drained.append(testbed.measure(plan.of(_OURS[latency])))
        loop.append(post_loop(testbed, plan.of(_LOOP[latency])))
        celery.append(rate(baseline.deliver(plan.of(_CELERY[latency]))))
    ours = tuple(each.rate for each in drained)
    return [
        Figure(
            section="delivery",
            what=f"delivered/s, upstream {latency} ms",
            unit="/s",
            against=f"baseline_loop, {IN_FLIGHT} in flight",
            ours=ours,
            theirs=tuple(loop),
            target=_TARGETS_OF_LOOP.get(latency),
            more=cpu_of(drained),
        ),
        Figure(
            section="delivery",
            what=f"delivered/s, upstream {latency} ms",
            unit="/s",
            against=f"baseline_celery, {max(tried, key=tried.__getitem__)} processes",
            ours=ours,
            theirs=tuple(celery),
            target=_TARGETS_OF_CELERY.get(latency),
            more={"tried_processes": tried},
        ),
    ]


def post_loop(
    testbed: Testbed, count: int, *, in_flight: int = IN_FLIGHT, entries: int = 1
) -> float:
    """The rate of baseline_loop, in records."""
    testbed.upstream.reset(testbed.upstream_ms, testbed.entry_ms)
    subprocess.run(
        [
            *(sys.executable, "-m", "bench.baseline_loop", "--url", testbed.upstream.url),
            *("--count", str(count), "--in-flight", str(in_flight), "--entries", str(entries)),
        ],
        check=True,
    )
    return rate(testbed.upstream.counts())
