"""Where the API spends its CPU time, by function. `make profile` tells the worker's.

    python -m bench.profile_api single
    python -m bench.profile_api batch

Prints tables by package and by function. `own` is the time in a function itself, with what it calls
in C; `whole` is that with the functions that it calls. Each in per cent of the samples, and in
microseconds a record: the samples' share of the CPU time that the process took for each.

py-spy counts a thread only while it computes. The process stands still meanwhile, so the rates of
such a run mean nothing.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.intake import CONNECTIONS, LINES, post_batch
from bench.load import load
from bench.resources import bodies
from bench.stacks import Spent, by_function, by_package, py_spy, sampled
from bench.testbed import API, Testbed, open_testbed, upstream

_SETTINGS = {"UPLIFT_RATE_LIMIT_KEY_RECORDS": "10000000"}


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
    program = py_spy()
    if program is None:
        parser.error("py-spy is not there: `make tools` installs it.")
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
            with sampled(program, testbed.pid(API), raw):
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
