"""What each process holds in memory while it works, with the types of HealthKit loaded.

The proportional set size (PSS), where the system tells it (Linux): shared pages are divided among
those that share them. Bodies of 2 KB, all types of DSTU2 and R4 in turn; the highest of the
samples taken while so many are in flight at a slow upstream.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.baseline_plain import Plain
from bench.figures import Figure, Target
from bench.load import load
from bench.plan import Plan
from bench.resources import of_all_types
from bench.testbed import Testbed, ground, upstream

MB = 1_000_000
IN_FLIGHT = (100, 500)
TEXTBOOK_PROCESSES = 64
_UPSTREAM_MS = 3000  # long enough that a busy machine fills the window too
_EACH = 0.1  # seconds between samples


def main(folder: Path, plan: Plan) -> list[Figure]:
    """Measure the worker at both, against the textbook's; then the API while it is posted to."""
    figures: list[Figure] = []
    with upstream(folder) as stand_in, ground(folder / "uplift", stand_in) as stood:
        plain = Plain(stood)
        try:
            ours, theirs, reached = _workers(stood, plain, plan)
            for in_flight, held in ours.items():
                figures.append(
                    Figure(
                        section="memory",
                        what=f"worker, {in_flight} slots, {min(reached[in_flight])} in flight",
                        unit="MB",
                        against=f"textbook worker, {TEXTBOOK_PROCESSES} in flight",
                        ours=tuple(held),
                        theirs=tuple(theirs),
                        target=Target(150, of="ours", at="most") if in_flight == 100 else None,
                    )
                )
            figures += _others(stood, plain, plan)
        finally:
            plain.close()
    return figures


def _workers(
    stood: Testbed, plain: Plain, plan: Plan
) -> tuple[dict[int, list[float]], list[float], dict[int, list[int]]]:
    """By slots: MB of ours in each round; of theirs; by slots: the most that were in flight."""
    ours: dict[int, list[float]] = {in_flight: [] for in_flight in IN_FLIGHT}
    theirs: list[float] = []
    reached: dict[int, list[int]] = {in_flight: [] for in_flight in IN_FLIGHT}
    for number in range(plan.rounds):
        for in_flight, held in ours.items():
            name = f"worker-{in_flight}-{number}"
            child = stood.start_worker(name, slots=in_flight)
            stood.upstream_ms = 0
            stood.deliver(220, resources=of_all_types(stood.label(), 220))
            stood.upstream_ms = _UPSTREAM_MS
            with _peak(lambda name=name: stood.pss(name)) as peak:  # type: ignore[misc]
                counts = stood.deliver(
                    3 * in_flight, resources=of_all_types(stood.label(), 3 * in_flight)
                )
            reached[in_flight].append(counts.max_in_flight)  # a starved machine: fewer
            held.append(peak[0] / MB)
            child.stop()
        plain.start_worker(TEXTBOOK_PROCESSES)
        stood.upstream_ms = 0
        plain.deliver(4 * TEXTBOOK_PROCESSES)
        stood.upstream_ms = _UPSTREAM_MS
        with _peak(plain.pss) as peak:
            plain.deliver(4 * TEXTBOOK_PROCESSES)
        theirs.append(peak[0] / MB)
    return ours, theirs, reached


def _others(stood: Testbed, plain: Plain, plan: Plan) -> list[Figure]:
    port = plain.start_api(in_threads=True)
    places = {"api": (stood.port, "/v1/uploads"), f"plain-{port}": (port, "/uploads")}
    held: dict[str, list[float]] = {name: [] for name in places}
    sweeping: list[float] = []
    for _ in range(plan.rounds):
        for name, (at, path) in places.items():
            with _peak(lambda name=name: stood.pss(name)) as peak:  # type: ignore[misc]
                load(at, path, stood.label(), stood.key, seconds=2, connections=100, users=50)
            held[name].append(peak[0] / MB)
        sweeping.append(stood.pss("beat") / MB)
    ours, theirs = (tuple(each) for each in held.values())
    return [
        Figure(
            section="memory",
            what="API, 100 requests at once",
            unit="MB",
            against="plain endpoint",
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
    """The highest of what it measures while the block runs, as the one item of a list."""
    peak, ended = [measure()], threading.Event()

    def watch() -> None:
        while not ended.wait(_EACH):
            peak[0] = max(peak[0], measure())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()
