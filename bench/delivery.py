"""Delivered a second while a backlog is drained, by one worker process.

Against a bare loop (the limit) and the textbook Celery task at its best of 16, 32 and 64 processes.
Counted at the stand-in for 1upHealth, from the first create that arrives to the last that is
answered; each round then waits until the ledger has every upload as delivered.
"""

import subprocess
import sys
from pathlib import Path

from bench.baseline_plain import Plain
from bench.figures import Figure, Target
from bench.plan import Plan
from bench.testbed import Testbed, ground, upstream
from bench.upstream import rate

IN_FLIGHT = 200
TEXTBOOK_PROCESSES = (16, 32, 64)
LATENCIES = (0, 50, 200, 1000)
# What takes about five seconds each.
_OURS = {0: 4000, 50: 4000, 200: 4000, 1000: 1200}
_BARE = {0: 12000, 50: 10000, 200: 4000, 1000: 1000}
_TEXTBOOK = {0: 2000, 50: 1500, 200: 1000, 1000: 320}
_TARGETS_OF_BARE = {0: Target(0.3), 200: Target(0.6)}
_TARGETS_OF_TEXTBOOK = {200: Target(5.0)}


def main(folder: Path, plan: Plan) -> list[Figure]:
    """Measure all latencies."""
    figures: list[Figure] = []
    with upstream(folder) as stand_in, ground(folder / "uplift", stand_in) as stood:
        stood.start_worker("worker", slots=IN_FLIGHT)
        plain = Plain(stood)
        try:
            best = _best_processes(stood, plain, plan)
            stood.deliver(200)  # imports and schemas
            for latency in LATENCIES:
                plain.start_worker(best[latency][0])
                figures += _at(stood, plain, plan, latency, best[latency][1])
        finally:
            plain.close()
    return figures


def _best_processes(
    stood: Testbed, plain: Plain, plan: Plan
) -> dict[int, tuple[int, dict[int, float]]]:
    """By latency: the best number of processes, and what each of them came to in one short try."""
    tried: dict[int, dict[int, float]] = {latency: {} for latency in LATENCIES}
    for processes in TEXTBOOK_PROCESSES:
        plain.start_worker(processes)
        stood.upstream_ms = 0
        plain.deliver(4 * processes)  # imports, connections
        for latency in LATENCIES:
            stood.upstream_ms = latency
            count = max(plan.of(_TEXTBOOK[latency]) // 2, 2 * processes)
            tried[latency][processes] = rate(plain.deliver(count))
    return {latency: (max(found, key=found.__getitem__), found) for latency, found in tried.items()}


def _at(
    stood: Testbed, plain: Plain, plan: Plan, latency: int, tried: dict[int, float]
) -> list[Figure]:
    stood.upstream_ms = latency
    ours: list[float] = []
    bare: list[float] = []
    baseline_celery: list[float] = []
    cpu: list[float] = []
    database_cpu: list[float] = []
    for _ in range(plan.rounds):
        count = plan.of(_OURS[latency])
        before = stood.cpu_seconds("worker"), stood.cpu_seconds("postgres")
        ours.append(rate(stood.deliver(count)))
        cpu.append((stood.cpu_seconds("worker") - before[0]) / count * 1000)
        database_cpu.append((stood.cpu_seconds("postgres") - before[1]) / count * 1000)
        bare.append(post_bare(stood, plan.of(_BARE[latency])))
        baseline_celery.append(rate(plain.deliver(plan.of(_TEXTBOOK[latency]))))
    return [
        Figure(
            section="delivery",
            what=f"delivered/s, upstream {latency} ms",
            unit="/s",
            against=f"bare loop, {IN_FLIGHT} in flight",
            ours=tuple(ours),
            theirs=tuple(bare),
            target=_TARGETS_OF_BARE.get(latency),
            more={"worker_cpu_ms": cpu, "postgres_cpu_ms": database_cpu},
        ),
        Figure(
            section="delivery",
            what=f"delivered/s, upstream {latency} ms",
            unit="/s",
            against=f"textbook task, {max(tried, key=tried.__getitem__)} processes",
            ours=tuple(ours),
            theirs=tuple(baseline_celery),
            target=_TARGETS_OF_TEXTBOOK.get(latency),
            more={"tried_processes": tried},
        ),
    ]


def post_bare(stood: Testbed, count: int) -> float:
    """The bare loop's rate."""
    stood.upstream.reset(stood.upstream_ms)
    subprocess.run(
        [
            *(sys.executable, "-m", "bench.baseline_loop", "--url", stood.upstream.url),
            *("--count", str(count), "--in-flight", str(IN_FLIGHT)),
        ],
        check=True,
    )
    return rate(stood.upstream.counts())
