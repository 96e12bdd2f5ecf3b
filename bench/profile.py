"""`make profile`: what a worker computes for each record, by function, singly and in Bundles.

    python -m bench.profile
    python -m bench.profile --count 6000 --rounds 3 --second-opinion 1 --top 60
    python -m bench.profile --no-functions --rounds 5

First the CPU time a record of the worker and of PostgreSQL, over a few rounds without a profiler;
then py-spy looks at the worker in one more round. So the shares are py-spy's, and the microseconds
are a share of the CPU time that was measured without it.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import bundles
from bench.delivery import IN_FLIGHT
from bench.stacks import Spent, by_function, py_spy, sampled
from bench.testbed import Drained, open_testbed, upstream


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How the records go. Times in milliseconds."""

    name: str
    in_flight: int
    latency: float
    entry: float = 0.0
    bundles: bool = False


WAYS = (
    Way(name="singly", in_flight=IN_FLIGHT, latency=0.0),
    Way(
        name="in Bundles",
        in_flight=bundles.ENTRIES * bundles.BUNDLES_IN_FLIGHT,
        latency=bundles.LATENCY,
        entry=bundles.ENTRY,
        bundles=True,
    ),
)


@dataclass(frozen=True, slots=True)
class Found:
    """Of one way: its rounds, and py-spy's samples."""

    rounds: Sequence[Drained]
    samples: Sequence[Spent]


def main() -> int:
    """Measure both ways, and print one table. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.add_argument("--count", type=int, default=4000, help="records of a round")
    parser.add_argument("--rounds", type=int, default=3, help="without py-spy")
    parser.add_argument("--second-opinion", default="0.05", help="UPLIFT_SECOND_OPINION")
    parser.add_argument("--top", type=int, default=45, help="functions in the table")
    parser.add_argument("--whole", action="store_true", help="those with most in what they call")
    parser.add_argument("--no-functions", action="store_true", help="the CPU time alone")
    parser.add_argument("--only", choices=[way.name for way in WAYS])
    chosen = parser.parse_args()
    program = None if chosen.no_functions else py_spy()
    if program is None and not chosen.no_functions:
        parser.error("py-spy is not there: `make tools` installs it. Or use --no-functions.")
    console = Console(width=None if os.isatty(1) else 150)
    found = {}
    for way in WAYS:
        if chosen.only in (None, way.name):
            with tempfile.TemporaryDirectory(prefix="profile-") as folder:
                found[way.name] = _measure(
                    Path(folder),
                    way,
                    count=chosen.count,
                    rounds=chosen.rounds,
                    second_opinion=chosen.second_opinion,
                    program=program,
                )
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    console.print(f"Second opinion {chosen.second_opinion}. Load of the machine: {load}.")
    console.print(_summary(found))
    if not chosen.no_functions:
        console.print(_functions(found, chosen.top, by_whole=chosen.whole))
    return 0


def _measure(
    folder: Path, way: Way, *, count: int, rounds: int, second_opinion: str, program: str | None
) -> Found:
    with upstream(folder) as stand_in:
        settings = {"UPLIFT_SECOND_OPINION": second_opinion}
        if way.bundles:
            settings |= bundles.settings(stand_in)
        with open_testbed(folder / "uplift", stand_in, settings=settings) as testbed:
            pid = testbed.start_worker("worker", max_in_flight=way.in_flight).pid
            assert pid is not None  # noqa: S101
            testbed.upstream_ms, testbed.entry_ms = way.latency, way.entry
            testbed.deliver(2000)  # imports, schemas, and the plans that PostgreSQL keeps
            drained = [testbed.measure(count) for _ in range(rounds)]
            samples: list[Spent] = []
            if program is not None:
                stacks = folder / "stacks"
                with sampled(program, pid, stacks, "--gil"):
                    testbed.deliver(count)
                samples = by_function(stacks.read_text().splitlines())
            return Found(drained, samples)


def _summary(found: Mapping[str, Found]) -> Table:
    shown = Table(title="CPU ms a record, without py-spy: median of the rounds (lowest to highest)")
    for name in ("", "worker", "PostgreSQL", "records/s"):
        shown.add_column(name, justify="left" if not name else "right")
    for name, each in found.items():
        shown.add_row(
            name,
            _spread([one.worker_ms for one in each.rounds]),
            _spread([one.postgres_ms for one in each.rounds]),
            _spread([one.rate for one in each.rounds], 0),
        )
    return shown


def _spread(rounds: Sequence[float], digits: int = 2) -> str:
    median = statistics.median(rounds)
    return f"{median:.{digits}f} ({min(rounds):.{digits}f} to {max(rounds):.{digits}f})"


def _functions(found: Mapping[str, Found], top: int, *, by_whole: bool) -> Table:
    """Microseconds a record, of the functions that take most in either way."""
    shown = Table(title="The worker's microseconds a record, by function")
    shown.add_column("function")
    own: dict[str, dict[str, float]] = {}
    whole: dict[str, dict[str, float]] = {}
    for way, each in found.items():
        total = sum(spent.own for spent in each.samples)
        took = statistics.median(one.worker_ms for one in each.rounds) * 1000 / total
        own[way] = {spent.name: spent.own * took for spent in each.samples}
        whole[way] = {spent.name: spent.whole * took for spent in each.samples}
        for what in ("itself", "with what it calls"):
            shown.add_column(f"{way}: {what}", justify="right")
    most: dict[str, float] = {}
    for times in (whole if by_whole else own).values():
        for name, took in times.items():
            most[name] = max(took, most.get(name, 0.0))
    for name in sorted(most, key=most.__getitem__, reverse=True)[:top]:
        cells = [f"{each[way].get(name, 0.0):.0f}" for way in found for each in (own, whole)]
        shown.add_row(name, *cells)
    return shown


if __name__ == "__main__":
    sys.exit(main())
