"""Two worker processes against one, with the same backlog."""

from pathlib import Path

from bench.delivery import IN_FLIGHT
from bench.figures import Figure
from bench.plan import Plan
from bench.testbed import open_testbed, upstream
from bench.upstream import rate

LATENCIES = (0, 200)
UPLOADS = 4000


def main(folder: Path, plan: Plan) -> list[Figure]:
    """Measure with one and with two, in turn; the second runs only in its rounds."""
    one: dict[int, list[float]] = {latency: [] for latency in LATENCIES}
    two: dict[int, list[float]] = {latency: [] for latency in LATENCIES}
    with upstream(folder) as stand_in, open_testbed(folder / "uplift", stand_in) as testbed:

        def measure(into: dict[int, list[float]]) -> None:
            testbed.upstream_ms = 0
            testbed.deliver(600)  # imports and schemas, in both processes
            for latency in LATENCIES:
                testbed.upstream_ms = latency
                into[latency].append(rate(testbed.deliver(plan.of(UPLOADS))))

        testbed.start_worker("worker", max_in_flight=IN_FLIGHT)
        for number in range(plan.rounds):
            measure(one)
            second = testbed.start_worker(f"worker-{number}", max_in_flight=IN_FLIGHT)
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
