"""Batches beside the nearest peer's shape: at the door, and end to end.

At the door, nothing else runs: `bench.baseline_batches` parses the same lines and has them in Redis
when it answers, Uplift has them committed. End to end, Uplift has delivered every record to the
stand-in, in Bundles of 20 that take 200 ms and 2 ms an entry, and the ledger says so; the other has
only stored them. In turn, from the first byte of the batch.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench import bundles
from bench.baseline_plain import BATCHES_API, Baseline
from bench.baseline_plain_tables import AT_ONCE
from bench.bundles import BUNDLES_IN_FLIGHT, ENTRIES, ENTRY, LATENCY
from bench.figures import Figure, Target
from bench.intake import LINES, clear, post_batch
from bench.plan import Plan
from bench.resources import bodies
from bench.testbed import API, Testbed, open_testbed, upstream

_END_TO_END = 6000
_CELERY_PROCESSES = (2, 4)
_WAIT_SECONDS = 120.0


@dataclass
class _Side:
    """What was measured of one side: rates, and milliseconds of CPU a record by process."""

    rates: list[float] = field(default_factory=list)
    cpu: dict[str, list[float]] = field(default_factory=dict)

    def note(self, rate: float, cpu: dict[str, float]) -> None:
        self.rates.append(rate)
        for name, value in cpu.items():
            self.cpu.setdefault(name, []).append(value)


def main(folder: Path, plan: Plan) -> list[Figure]:
    """Measure the door, then end to end."""
    with upstream(folder) as stand_in:
        settings = bundles.settings(stand_in) | {"UPLIFT_SECOND_OPINION": "0.05"}
        with open_testbed(folder / "uplift", stand_in, settings=settings) as testbed:
            baseline = Baseline(testbed)
            try:
                peer = _Peer(testbed, baseline)
                return [*_door(testbed, peer, plan), *_end_to_end(testbed, peer, plan)]
            finally:
                baseline.close()


class _Peer:
    """The other side: its processes, by the names of their part in it."""

    def __init__(self, testbed: Testbed, baseline: Baseline) -> None:
        self._testbed = testbed
        self.baseline = baseline
        port = baseline.start_batches_api()
        self.url, self.api = f"http://127.0.0.1:{port}", f"{BATCHES_API}-{port}"
        self.worker = ""

    def post(self, label: str, lines: int) -> float:
        return post_batch(self.url, self._testbed.key, bodies(label, lines), path="/batches")


def _door(testbed: Testbed, peer: _Peer, plan: Plan) -> list[Figure]:
    lines = plan.of(LINES)
    ours, theirs = _Side(), _Side()

    def post_ours() -> float:
        return post_batch(testbed.system.api_url, testbed.key, bodies(testbed.label(), lines))

    def post_theirs() -> float:
        return peer.post(testbed.label(), lines)

    for number in range(plan.rounds + 1):
        clear(testbed, peer.baseline)
        mine = _timed(testbed, {"API": API}, lines, post_ours)
        other = _timed(testbed, {"API": peer.api}, lines, post_theirs)
        if number:  # the first one imports, connects and prepares
            ours.note(*mine)
            theirs.note(*other)
    clear(testbed, peer.baseline)
    return _figures(
        "accepted/s, batch", "the same JSON parsed and put into Redis", Target(0.5), ours, theirs
    )


def _end_to_end(testbed: Testbed, peer: _Peer, plan: Plan) -> list[Figure]:
    testbed.start_worker("bulk", max_in_flight=ENTRIES * BUNDLES_IN_FLIGHT, queue="bulk")
    testbed.upstream.reset(LATENCY, ENTRY)
    lines = plan.of(_END_TO_END)
    tables = peer.baseline.tables

    def until_delivered() -> float:
        began = time.perf_counter()
        post_batch(testbed.system.api_url, testbed.key, bodies(testbed.label(), lines))
        delivered = "SELECT count(*) FROM uploads WHERE state = 'delivered'"
        _wait(lambda: testbed.one(delivered), lines)
        return lines / (time.perf_counter() - began)

    def count_stored() -> int:
        row = tables.execute("SELECT count(*) FROM uploads").fetchone()
        return int(row[0]) if row is not None else 0

    def until_stored() -> float:
        began = time.perf_counter()
        peer.post(testbed.label(), lines)
        _wait(count_stored, lines)
        return lines / (time.perf_counter() - began)

    def theirs_once() -> tuple[float, dict[str, float]]:
        return _timed(testbed, {"API": peer.api, "worker": peer.worker}, lines, until_stored)

    def ours_once() -> tuple[float, dict[str, float]]:
        return _timed(testbed, {"API": API, "worker": "bulk"}, lines, until_delivered)

    tried: dict[int, float] = {}
    for processes in _CELERY_PROCESSES:
        peer.worker = peer.baseline.start_batches_worker(processes)
        for _ in range(2):  # the first one connects
            clear(testbed, peer.baseline)
            tried[processes], _ = theirs_once()
    best = max(tried, key=tried.__getitem__)
    peer.worker = peer.baseline.start_batches_worker(best)
    ours, theirs = _Side(), _Side()
    for number in range(plan.rounds + 1):
        clear(testbed, peer.baseline)
        mine, other = ours_once(), theirs_once()
        if number:
            ours.note(*mine)
            theirs.note(*other)
    return _figures(
        "records/s, batch, delivered",
        f"records that {best} Celery processes only store, {AT_ONCE} in a statement",
        Target(0.6),
        ours,
        theirs,
    )


def _timed(
    testbed: Testbed, processes: dict[str, str], lines: int, run: Callable[[], float]
) -> tuple[float, dict[str, float]]:
    """What a round returns, and the milliseconds of CPU that each part took for each line."""
    parts = {**processes, "PostgreSQL": "postgres", "Redis": "redis"}
    before = {part: testbed.cpu_seconds(name) for part, name in parts.items()}
    rate = run()
    return rate, {
        part: (testbed.cpu_seconds(name) - before[part]) / lines * 1000
        for part, name in parts.items()
    }


def _wait(count: Callable[[], int], wanted: int) -> None:
    ends = time.monotonic() + _WAIT_SECONDS
    while (found := count()) < wanted:
        if time.monotonic() > ends:
            raise TimeoutError(f"{found} of {wanted} records arrived.")
        time.sleep(0.02)


def _figures(what: str, against: str, target: Target, ours: _Side, theirs: _Side) -> list[Figure]:
    return [
        Figure(
            section="peer",
            what=what,
            unit="/s",
            against=against,
            ours=tuple(ours.rates),
            theirs=tuple(theirs.rates),
            target=target,
        ),
        *(
            Figure(
                section="peer",
                what=f"{what}: CPU a record, {part}",
                unit="ms",
                against=against,
                ours=tuple(ours.cpu[part]),
                theirs=tuple(theirs.cpu[part]),
            )
            for part in ours.cpu
            if all(theirs.cpu[part])
        ),
    ]
