"""Delivered a second in Bundles of 20, while one worker process drains a backlog.

The stand-in takes 200 ms, and 2 ms for each record. Against a bare loop that posts the same
Bundles, as many at a time, against one that posts single resources, and against the best of
baseline_celery with 16, 32 and 64 processes.
"""

from pathlib import Path

from bench.baseline_plain import Baseline
from bench.delivery import CELERY_PROCESSES, IN_FLIGHT, post_loop
from bench.figures import Figure, Target
from bench.plan import Plan
from bench.testbed import Testbed, open_testbed, upstream
from bench.upstream import Upstream, rate

ENTRIES = 20
BUNDLES_IN_FLIGHT = 25
LATENCY, ENTRY = 200.0, 2.0
"""Milliseconds that the stand-in takes: for a Bundle, and more for each record."""
_OURS, _LOOP, _SINGLES, _CELERY = 6000, 12000, 4000, 1000


def main(folder: Path, plan: Plan) -> list[Figure]:
    """Measure both."""
    with upstream(folder) as stand_in:
        chosen = settings(stand_in) | {"UPLIFT_SECOND_OPINION": "0.05"}
        with open_testbed(folder / "uplift", stand_in, settings=chosen) as testbed:
            testbed.start_worker("worker", max_in_flight=ENTRIES * BUNDLES_IN_FLIGHT)
            testbed.deliver(2000)  # imports, schemas, and the plans that PostgreSQL keeps
            testbed.upstream_ms, testbed.entry_ms = LATENCY, ENTRY
            baseline = Baseline(testbed)
            try:
                tried = {each: _try(baseline, each, plan) for each in CELERY_PROCESSES}
                best = max(tried, key=tried.__getitem__)
                baseline.start_worker(best)
                return _measure(testbed, baseline, best, plan)
            finally:
                baseline.close()


def _try(baseline: Baseline, processes: int, plan: Plan) -> float:
    baseline.start_worker(processes)
    baseline.deliver(4 * processes)  # imports, connections
    return rate(baseline.deliver(max(plan.of(_CELERY) // 2, 2 * processes)))


def settings(stand_in: Upstream) -> dict[str, str]:
    """Uplift's settings to deliver to the stand-in in Bundles."""
    return {
        "UPLIFT_DESTINATION": "hapi",
        "UPLIFT_DESTINATION_R4": f"{stand_in.url}/r4",
        "UPLIFT_DESTINATION_SUBJECT": "as_is",  # no person's Patient comes first
        "UPLIFT_DESTINATION_BUNDLE": "transaction",
        "UPLIFT_DESTINATION_BUNDLE_ENTRIES": str(ENTRIES),
    }


def _measure(testbed: Testbed, baseline: Baseline, processes: int, plan: Plan) -> list[Figure]:
    ours: list[float] = []
    loop: list[float] = []
    singles: list[float] = []
    celery: list[float] = []
    cpu: list[float] = []
    database_cpu: list[float] = []
    for _ in range(plan.rounds):
        count = plan.of(_OURS)
        drained = testbed.measure(count)
        ours.append(drained.rate)
        cpu.append(drained.worker_ms)
        database_cpu.append(drained.postgres_ms)
        loop.append(
            post_loop(testbed, plan.of(_LOOP), in_flight=BUNDLES_IN_FLIGHT, entries=ENTRIES)
        )
        singles.append(post_loop(testbed, plan.of(_SINGLES)))
        celery.append(rate(baseline.deliver(plan.of(_CELERY))))
    more = {"worker_cpu_ms": cpu, "postgres_cpu_ms": database_cpu}
    what = f"delivered/s in Bundles of {ENTRIES}"
    return [
        Figure(
            section="bundles",
            what=what,
            unit="/s",
            against=f"a loop of the same Bundles, {BUNDLES_IN_FLIGHT} in flight",
            ours=tuple(ours),
            theirs=tuple(loop),
            target=Target(0.5),
            more=more,
        ),
        Figure(
            section="bundles",
            what=what,
            unit="/s",
            against=f"baseline_loop of singles, {IN_FLIGHT} in flight",
            ours=tuple(ours),
            theirs=tuple(singles),
            target=Target(1.5),
        ),
        Figure(
            section="bundles",
            what=what,
            unit="/s",
            against=f"baseline_celery, {processes} processes",
            ours=tuple(ours),
            theirs=tuple(celery),
            target=Target(8.0),
        ),
    ]
