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
from bench.testbed import Drained, Testbed, cpu_of, open_testbed, upstream
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
    drained: list[Drained] = []
    loop: list[float] = []
    singles: list[float] = []
    celery: list[float] = []
    for _ in range(plan.rounds):
        drained.append(testbed.measure(plan.of(_OURS)))
        loop.append(
            post_loop(testbed, plan.of(_LOOP), in_flight=BUNDLES_IN_FLIGHT, entries=ENTRIES)
        )
        singles.append(post_loop(testbed, plan.of(_SINGLES)))
        celery.append(rate(baseline.deliver(plan.of(_CELERY))))
    beside = {
        f"a loop of the same Bundles, {BUNDLES_IN_FLIGHT} in flight": (loop, 0.5),
        f"baseline_loop of singles, {IN_FLIGHT} in flight": (singles, 1.5),
        f"baseline_celery, {processes} processes": (celery, 8.0),
    }
    return [
        Figure(
            section="bundles",
            what=f"delivered/s in Bundles of {ENTRIES}",
            unit="/s",
            against=against,
            ours=tuple(each.rate for each in drained),
            theirs=tuple(theirs),
            target=Target(least),
            more=cpu_of(drained),
        )
        for against, (theirs, least) in beside.items()
    ]
