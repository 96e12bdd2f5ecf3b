"""Where the API spends its CPU time, by function. `make profile` tells the worker's.

    python -m bench.profile_api single
    python -m bench.profile_api batch

Prints tables by package and by function. `own` is the time in a function itself, with what it calls
in C; `whole` is that with the functions that it calls. Each in per cent of the samples, and in
microseconds a record: the samples' share of the CPU time that the process took for each.

py-spy takes the samples from outside, and counts a thread only while it computes. It stands still
meanwhile, so the rates of such a run mean nothing. Not root, py-spy needs CAP_SYS_PTRACE.
"""

import argparse
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.intake import CONNECTIONS, LINES, post_batch
from bench.load import load
from bench.resources import bodies
from bench.testbed import API, Testbed, open_testbed, upstream

_TOOLS = Path(__file__).parents[1] / ".venv-tools" / "bin"
_RATE = 200  # samples a second
_SETTINGS = {"UPLIFT_RATE_LIMIT_KEY_RECORDS": "10000000"}

_FRAME = re.compile(r"(.*) \((.*)\)")
_PACKAGE = re.compile(r".*site-packages/")


@dataclass(frozen=True, slots=True)
class Spent:
    """Samples that a function, or a package, was in: itself, and with what it calls."""

    name: str
    own: int
    whole: int


def by_function(stacks: Iterable[str]) -> list[Spent]:
    """The functions of py-spy's raw stacks, those that take most themselves first. Pure."""
    return _counted((_frames(stack), count) for stack, count in _read(stacks))


def by_package(stacks: Iterable[str]) -> list[Spent]:
    """The same by package: of Uplift by its rooms, else by the first folder or module. Pure."""
    return _counted(
        ([_package(frame) for frame in _frames(stack)], count) for stack, count in _read(stacks)
    )


def _read(stacks: Iterable[str]) -> Iterator[tuple[str, int]]:
    for line in stacks:
        stack, _, count = line.rpartition(" ")
        # Where threads wait for work, py-spy takes some for busy.
        if stack and not stack.rpartition(";")[2].startswith("_worker ("):
            yield stack, int(count)


def _frames(stack: str) -> list[str]:
    frames = []
    for frame in stack.split(";"):
        found = _FRAME.fullmatch(frame)
        name, place = found.groups() if found else (frame, "")
        file = _PACKAGE.sub("", place.partition(":")[0])
        frames.append(f"{_short(file)}: {name}")
    return frames


def _short(file: str) -> str:
    for root in ("uplift/", "lib/python"):
        _, found, rest = file.rpartition(root)
        if found:
            # The folder of the standard library has its version in its name.
            return root + rest if root == "uplift/" else rest.partition("/")[2]
    return file


def _package(frame: str) -> str:
    file = frame.partition(": ")[0]
    parts = file.split("/")
    return "/".join(parts[:2]) if parts[0] == "uplift" else parts[0]


def _counted(stacks: Iterable[tuple[list[str], int]]) -> list[Spent]:
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for names, count in stacks:
        own[names[-1]] += count
        for name in set(names):
            whole[name] += count
    found = [Spent(name, own[name], count) for name, count in whole.items()]
    return sorted(found, key=lambda each: (each.own, each.whole), reverse=True)


def _single(testbed: Testbed, seconds: float) -> int:
    return load(
        testbed.port,
        "/v1/uploads",
        testbed.label(),
        testbed.key,
        seconds=seconds,
        connections=CONNECTIONS,
        users=50,
    ).accepted


def _batch(testbed: Testbed, seconds: float) -> int:
    ends = time.monotonic() + seconds
    records = 0
    while time.monotonic() < ends:
        post_batch(testbed.system.api_url, testbed.key, bodies(testbed.label(), LINES))
        records += LINES
    return records


_WORKLOADS: dict[str, Callable[[Testbed, float], int]] = {"single": _single, "batch": _batch}


@contextmanager
def _sampled(pid: int, file: Path) -> Iterator[None]:
    program = shutil.which("py-spy") or shutil.which("py-spy", path=str(_TOOLS))
    if program is None:
        raise SystemExit("py-spy is not there: `make tools` installs it.")
    with subprocess.Popen(
        [
            *(program, "record", "--pid", str(pid), "--rate", str(_RATE), "--format", "raw"),
            *("--function", "--duration", "unlimited", "--output", str(file)),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as sampler:
        time.sleep(1)  # it begins
        try:
            yield
        finally:
            sampler.send_signal(signal.SIGINT)  # it writes what it has


def _table(title: str, spent: list[Spent], total: int, microseconds: float) -> Table:
    table = Table(title=title)
    table.add_column("")
    for name in ("own %", "own µs", "whole %", "whole µs"):
        table.add_column(name, justify="right")
    for each in spent:
        own, whole = each.own / total, each.whole / total
        table.add_row(
            each.name,
            f"{own:.1%}".rstrip("%"),
            f"{own * microseconds:.1f}",
            f"{whole:.1%}".rstrip("%"),
            f"{whole * microseconds:.1f}",
        )
    return table


def main() -> None:
    """Profile single uploads, or batches."""
    parser = argparse.ArgumentParser(description="CPU time of the API by function.")
    parser.add_argument("workload", choices=_WORKLOADS)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--top", type=int, default=50, help="how many functions are printed")
    parser.add_argument("--raw", type=Path, help="keep py-spy's stacks in this file")
    chosen = parser.parse_args()
    run = _WORKLOADS[chosen.workload]
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        raw: Path = chosen.raw or folder / "stacks"
        with (
            upstream(folder) as stand_in,
            open_testbed(
                folder / "uplift", stand_in, processes=(API,), settings=_SETTINGS
            ) as testbed,
        ):
            run(testbed, 1.0)  # imports, connections, statements
            with _sampled(testbed.pid(API), raw):
                before = testbed.cpu_seconds(API)
                records = run(testbed, chosen.seconds)
                cpu = testbed.cpu_seconds(API) - before
        stacks = raw.read_text().splitlines()
    functions = by_function(stacks)
    total = sum(each.own for each in functions)
    each_record = cpu / records * 1_000_000
    title = f"{chosen.workload}: {each_record:.0f} µs of CPU a record, {total} samples"
    console = Console(width=120)
    console.print(_table(f"{title}, by package", by_package(stacks)[:20], total, each_record))
    console.print(_table(f"{title}, by function", functions[: chosen.top], total, each_record))
    whole = sorted(functions, key=lambda spent: spent.whole, reverse=True)[: chosen.top]
    console.print(_table(f"{title}, with what they call", whole, total, each_record))


if __name__ == "__main__":
    main()
