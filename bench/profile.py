"""`make profile`: what a worker computes for each record, by function, singly and in Bundles.

    python -m bench.profile
    python -m bench.profile --count 6000 --rounds 3 --second-opinion 1 --top 60
    python -m bench.profile --no-functions --rounds 5

First the CPU time a record of the worker and of PostgreSQL, over a few rounds without a profiler;
then py-spy looks at the worker in one more round. So the shares are py-spy's, and the microseconds
are a share of the CPU time that was measured without it. py-spy is one of the tools (`make tools`);
on Linux it may need root, or kernel.yama.ptrace_scope=0.
"""

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import bundles
from bench.delivery import IN_FLIGHT
from bench.testbed import Testbed, open_testbed, upstream
from bench.upstream import rate

_SAMPLES = 250  # a second
_ROOT = Path(__file__).parents[1]
_TOOLS = _ROOT / ".venv-tools" / "bin"


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
class Shares:
    """By function: the part of all samples in which it ran itself, and in which it was on the
    stack."""

    own: Mapping[str, float]
    whole: Mapping[str, float]

    @classmethod
    def of(cls, lines: Iterable[str]) -> "Shares":
        """From py-spy's `raw` lines: `function (file);function (file) samples`."""
        own: Counter[str] = Counter()
        whole: Counter[str] = Counter()
        samples = 0
        for line in lines:
            stack, _, count = line.rpartition(" ")
            frames = [_name(frame) for frame in stack.split(";")]
            samples += int(count)
            own[frames[-1]] += int(count)
            for frame in set(frames):
                whole[frame] += int(count)
        return cls(
            {name: count / samples for name, count in own.items()},
            {name: count / samples for name, count in whole.items()},
        )


def _name(frame: str) -> str:
    """`function module/file.py` of py-spy's `function (path/to/module/file.py:line)`."""
    function, _, place = frame.partition(" (")
    path = place.rstrip(")").rpartition(":")[0] or place.rstrip(")")
    parts = path.replace("\\", "/").split("/")
    return f"{function}  {'/'.join(parts[-2:])}"


@dataclass(frozen=True, slots=True)
class Found:
    """Of one way: milliseconds of CPU a record by round, records a second, and the shares."""

    worker: Sequence[float]
    postgres: Sequence[float]
    rates: Sequence[float]
    shares: Shares | None


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
    py_spy = shutil.which("py-spy") or shutil.which("py-spy", path=str(_TOOLS))
    if py_spy is None and not chosen.no_functions:
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
                    py_spy=None if chosen.no_functions else py_spy,
                )
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    console.print(f"Second opinion {chosen.second_opinion}. Load of the machine: {load}.")
    console.print(_summary(found))
    if not chosen.no_functions:
        console.print(_functions(found, chosen.top, by_whole=chosen.whole))
    return 0


def _measure(
    folder: Path, way: Way, *, count: int, rounds: int, second_opinion: str, py_spy: str | None
) -> Found:
    with upstream(folder) as stand_in:
        settings = {"UPLIFT_SECOND_OPINION": second_opinion}
        if way.bundles:
            settings |= bundles.settings(stand_in)
        with open_testbed(folder / "uplift", stand_in, settings=settings) as testbed:
            pid = testbed.start_worker("worker", max_in_flight=way.in_flight).pid
            assert pid is not None  # noqa: S101
            testbed.upstream_ms, testbed.entry_ms = way.latency, way.entry
            testbed.deliver(400)  # imports and schemas
            worker, postgres, rates = [], [], []
            for _ in range(rounds):
                before = testbed.cpu_seconds("worker"), testbed.cpu_seconds("postgres")
                rates.append(rate(testbed.deliver(count)))
                worker.append((testbed.cpu_seconds("worker") - before[0]) / count * 1000)
                postgres.append((testbed.cpu_seconds("postgres") - before[1]) / count * 1000)
            shares = None
            if py_spy is not None:
                shares = _shares(testbed, py_spy, pid, folder / "stacks.txt", count)
            return Found(worker, postgres, rates, shares)


def _shares(testbed: Testbed, py_spy: str, pid: int, file: Path, count: int) -> Shares:
    with _spied(py_spy, pid, file):
        testbed.deliver(count)
    return Shares.of(file.read_text().splitlines())


@contextmanager
def _spied(py_spy: str, pid: int, file: Path) -> Iterator[None]:
    """Within, py-spy looks at the process; afterwards the file has what it saw."""
    spy = subprocess.Popen(
        [
            *(py_spy, "record", "--pid", str(pid), "--rate", str(_SAMPLES), "--gil", "--function"),
            *("--format", "raw", "--output", str(file), "--duration", "600"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    time.sleep(1.0)  # until it has found its way about
    try:
        yield
    finally:
        if spy.poll() is None:
            spy.send_signal(signal.SIGINT)
        _, errors = spy.communicate(timeout=60)
        if not file.exists():
            raise RuntimeError(errors.decode(errors="replace"))


def _summary(found: Mapping[str, Found]) -> Table:
    shown = Table(title="CPU ms a record, without py-spy: median of the rounds (lowest to highest)")
    for name in ("", "worker", "PostgreSQL", "records/s"):
        shown.add_column(name, justify="left" if not name else "right")
    for name, each in found.items():
        shown.add_row(name, _spread(each.worker), _spread(each.postgres), _spread(each.rates, 0))
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
        assert each.shares is not None  # noqa: S101
        took = statistics.median(each.worker) * 1000
        own[way] = {name: share * took for name, share in each.shares.own.items()}
        whole[way] = {name: share * took for name, share in each.shares.whole.items()}
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
