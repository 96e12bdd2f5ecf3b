"""The memory of each process while it works, with the types of HealthKit loaded.

The proportional set size (PSS) where the system has it (Linux): shared pages are divided among
their processes. Bodies of 2 KB, all types of DSTU2 and R4 in turn; the highest sample while the
uploads are in flight at a slow upstream.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.baseline_plain import Baseline
from bench.figures import Figure, Target
from bench.load import load
from bench.plan import Plan
from bench.resources import of_all_types
from bench.testbed import API, Testbed, open_testbed, upstream

MB = 1_000_000
IN_FLIGHT = (100, 500)
CELERY_PROCESSES = 64
_UPSTREAM_MS = 3000  # long enough to reach the in-flight limit on a busy machine
_EACH = 0.1  # seconds between samples


def main(folder: Path, plan: Plan) -> list[Figure]:
    """Measure the worker with both in-flight limits, against baseline_celery; then the API."""
    figures: list[Figure] = []
    with upstream(folder) as stand_in, open_testbed(folder / "uplift", stand_in) as testbed:
        baseline = Baseline(testbed)
        try:
            ours, theirs, reached = _workers(testbed, baseline, plan)
            for in_flight, megabytes in ours.items():
                figures.append(
                    Figure(
                        section="memory",
                        what=f"worker, limit {in_flight}, {min(reached[in_flight])} in flight",
                        unit="MB",
                        against=f"baseline_celery, {CELERY_PROCESSES} in flight",
                        ours=tuple(megabytes),
                        theirs=tuple(theirs),
                        target=Target(150, of="ours", bound="maximum")
                        if in_flight == 100
                        else None,
                    )
                )
            figures += _others(testbed, baseline, plan)
        finally:
            baseline.close()
    return figures


def _workers(
    testbed: Testbed, baseline: Baseline, plan: Plan
) -> tuple[dict[int, list[float]], list[float], dict[int, list[int]]]:
    """MB of ours by in-flight limit; MB of theirs; the in-flight maximum by in-flight limit."""
    ours: dict[int, list[float]] = {in_flight: [] for in_flight in IN_FLIGHT}
    theirs: list[float] = []
    reached: dict[int, list[int]] = {in_flight: [] for in_flight in IN_FLIGHT}
    for number in range(plan.rounds):
        for in_flight, megabytes in ours.items():
            name = f"worker-{in_flight}-{number}"
            child = testbed.start_worker(name, max_in_flight=in_flight)
            testbed.upstream_ms = 0
            testbed.deliver(220, resources=of_all_types(testbed.label(), 220))
            testbed.upstream_ms = _UPSTREAM_MS
            with _peak(lambda name=name: testbed.pss(name)) as peak:  # type: ignore[misc]
                counts = testbed.deliver(
                    3 * in_flight, resources=of_all_types(testbed.label(), 3 * in_flight)
                )
            reached[in_flight].append(counts.max_in_flight)  # a starved machine: fewer
            megabytes.append(peak[0] / MB)
            child.stop()
        baseline.start_worker(CELERY_PROCESSES)
        testbed.upstream_ms = 0
        baseline.deliver(4 * CELERY_PROCESSES)
        testbed.upstream_ms = _UPSTREAM_MS
        with _peak(baseline.pss) as peak:
            baseline.deliver(4 * CELERY_PROCESSES)
        theirs.append(peak[0] / MB)
    return ours, theirs, reached


def _others(testbed: Testbed, baseline: Baseline, plan: Plan) -> list[Figure]:
    port = baseline.start_api(in_threads=True)
    places = {API: (testbed.port, "/v1/uploads"), f"baseline_plain-{port}": (port, "/uploads")}
    megabytes: dict[str, list[float]] = {name: [] for name in places}
    sweeping: list[float] = []
    for _ in range(plan.rounds):
        for name, (at, path) in places.items():
            with _peak(lambda name=name: testbed.pss(name)) as peak:  # type: ignore[misc]
                load(at, path, testbed.label(), testbed.key, seconds=2, connections=100, users=50)
            megabytes[name].append(peak[0] / MB)
        sweeping.append(testbed.pss("beat") / MB)
    ours, theirs = (tuple(each) for each in megabytes.values())
    return [
        Figure(
            section="memory",
            what="API, 100 requests at once",
            unit="MB",
            against="baseline_plain",
            ours=ours,
            theirs=theirs,
        ),
        Figure(
            section="memory",
            what="beat, with its sweeping",
            unit="MB",
            against="the API",
            ours=tuple(sweeping),
            theirs=ours,
        ),
    ]


@contextmanager
def _peak(measure: Callable[[], int]) -> Iterator[list[int]]:
    """The maximum while the block runs, as the one item of a list."""
    peak, ended = [measure()], threading.Event()

    def sample() -> None:
        while not ended.wait(_EACH):
            peak[0] = max(peak[0], measure())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()
