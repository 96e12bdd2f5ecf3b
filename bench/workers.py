"""Two worker processes over one, draining the same backlog."""

from pathlib import Path

from bench.delivery import IN_FLIGHT
from bench.figures import Figure
from bench.plan import Plan
from bench.testbed import ground, upstream
from bench.upstream import rate

LATENCIES = (0, 200)
UPLOADS = 4000


def main(folder: Path, plan: Plan) -> list[Figure]:
    """Measure with one and with two, in turn; the second is started for its rounds."""
    one: dict[int, list[float]] = {latency: [] for latency in LATENCIES}
    two: dict[int, list[float]] = {latency: [] for latency in LATENCIES}
    with upstream(folder) as stand_in, ground(folder / "uplift", stand_in) as stood:

        def measure(into: dict[int, list[float]]) -> None:
            stood.upstream_ms = 0
            stood.deliver(600)  # imports and schemas, in both processes
            for latency in LATENCIES:
                stood.upstream_ms = latency
                into[latency].append(rate(stood.deliver(plan.of(UPLOADS))))

        stood.start_worker("worker", slots=IN_FLIGHT)
        for number in range(plan.rounds):
            measure(one)
            second = stood.start_worker(f"worker-{number}", slots=IN_FLIGHT)
            measure(two)
            second.stop()
    return [
        Figure(
            section="workers",
            what=f"delivered/s by two processes, upstream {latency} ms",
            unit="/s",
            against="one process",
            ours=tuple(two[latency]),
            theirs=tuple(one[latency]),
        )
        for latency in LATENCIES
    ]
