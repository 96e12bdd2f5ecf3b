"""`make bench`: every benchmark, one after another, on loopback.

Prints tables and writes JSON. A figure compares two things that were measured in turn in the same
run: the median of the rounds, with the lowest and the highest. `--against COMMIT` compares this
tree with another commit instead, and ends with exit code 1 if this tree is slower.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from bench import (
    bundles,
    delivery,
    fairness,
    growth,
    hapi,
    hostile,
    intake,
    latency,
    memory,
    peer,
    push_memory,
    sekmet,
    stalled,
    validation,
    workers,
)
from bench.against.judge import Comparison, conclusion
from bench.against.rounds import SECTIONS, compare
from bench.figures import Figure, Spread
from bench.plan import AGAINST, FULL, QUICK, Plan

_PAIRS: dict[str, Callable[[Path, Plan], list[Figure]]] = {
    "intake": intake.main,
    "delivery": delivery.main,
    "bundles": bundles.main,
    "peer": peer.main,
    "latency": latency.main,
    "growth": growth.main,
    "fairness": fairness.main,
    "stalled": stalled.main,
    "memory": memory.main,
    "workers": workers.main,
    "hapi": hapi.main,
    "sekmet": sekmet.main,
}
# These print tables of their own.
_OTHERS: dict[str, Callable[[], dict[str, Any]]] = {
    "validation": validation.main,
    "push_memory": push_memory.main,
    "hostile": hostile.main,
}

# These want programs that not every machine has. What is missing?
_WANTS: dict[str, Callable[[], str | None]] = {"hapi": hapi.lacking, "sekmet": sekmet.lacking}


# Only with a commit to compare with, and only if asked for.
_AGAINST_ALONE = sorted(SECTIONS.keys() - _PAIRS.keys())


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(figures: list[Figure], load: str) -> Table:
    """The figures as they are printed, with the load of the machine meanwhile."""
    shown = Table(
        title="Uplift's benchmarks: median of the rounds (lowest to highest)",
        caption=f"Load average of a minute: {load}, with the benchmark's own.",
    )
    for name in ("", "Uplift", "compared with", "", "ratio", "should be", ""):
        shown.add_column(name, justify="right" if name in ("Uplift", "ratio") else "left")
    for figure in figures:
        ours, theirs, ratio = Spread.of(figure.ours), Spread.of(figure.theirs), figure.ratio
        should_be, mark = "", ""
        if figure.target is not None:
            unit = f" {figure.unit}" if figure.target.of == "ours" else ""
            should_be = f"{figure.target}{unit}"
            mark = "reached" if figure.reached else "not reached"
        shown.add_row(
            f"{figure.section}: {figure.what}",
            f"{_number(ours.median)} {figure.unit}",
            figure.against,
            f"{_number(theirs.median)} {figure.unit}",
            f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})",
            should_be,
            mark,
        )
    return shown


def table_against(commit: str, comparisons: list[Comparison], rounds: int) -> Table:
    """The comparisons as they are printed."""
    shown = Table(
        title=f"This tree against {commit}: median of {rounds} rounds (lowest to highest)",
        caption="A ratio above 1: faster than the commit (for ms: the commit's time divided by the"
        " other).\nNoise: the same ratio of the commit's second measurement in each round.",
    )
    for name in ("", commit, "this tree", "ratio", "noise", "verdict"):
        shown.add_column(name, justify="right" if name in (commit, "this tree") else "left")
    for each in comparisons:
        shown.add_row(
            f"{each.section}: {each.what}",
            f"{_number(Spread.of(each.before + each.again).median)} {each.unit}",
            f"{_number(Spread.of(each.now).median)} {each.unit}",
            f"{each.ratio.median:.2f} ({each.ratio.low:.2f} to {each.ratio.high:.2f})",
            f"{each.noise.median:.2f} ({each.noise.low:.2f} to {each.noise.high:.2f})",
            each.verdict,
        )
    return shown


def main() -> int:
    """Run the chosen benchmarks. Returns the exit code."""
    names = [*_PAIRS, *_OTHERS]
    parser = argparse.ArgumentParser(prog="python -m bench", description="Bounded benchmarks.")
    parser.add_argument(
        "--only", action="append", choices=[*names, *_AGAINST_ALONE], help="may be repeated"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one short round: whether it runs, not how fast"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        help=f"default {FULL.rounds}; with --against {AGAINST.rounds}",
    )
    parser.add_argument(
        "--against",
        metavar="COMMIT",
        help=f"compare this tree with that commit: {', '.join(SECTIONS)}",
    )
    parser.add_argument("--json", type=Path, default=Path(__file__).with_name("results.json"))
    chosen = parser.parse_args()
    plan = QUICK if chosen.quick else AGAINST if chosen.against else FULL
    if chosen.rounds:
        plan = replace(plan, rounds=chosen.rounds)
    console = Console(width=None if os.isatty(1) else 160)
    if chosen.against:
        unknown = set(chosen.only or ()) - set(SECTIONS)
        if unknown:
            parser.error(f"--against measures {', '.join(SECTIONS)}; not {', '.join(unknown)}")
        sections = chosen.only or [name for name in SECTIONS if name not in _AGAINST_ALONE]
        return _main_against(chosen.against, sections, plan, console, chosen.json)
    if lacking := set(chosen.only or ()) & set(_AGAINST_ALONE):
        parser.error(f"{', '.join(lacking)}: with --against alone")
    _main_baselines(chosen.only or names, plan, console, chosen.json)
    return 0


def _main_against(
    commit: str, sections: list[str], plan: Plan, console: Console, file: Path
) -> int:
    begun = time.monotonic()
    try:
        comparisons = compare(commit, sections, plan, console.print)
    except ValueError as error:
        console.print(str(error))
        return 2
    taken = time.monotonic() - begun
    found = {"against": commit, "comparisons": [each.to_json() for each in comparisons]}
    _write(file, plan, {"all": round(taken, 1)}, found)
    console.print(table_against(commit, comparisons, plan.rounds))
    console.print(conclusion(comparisons))
    console.print(f"{taken:.0f} seconds in all. Written to {file.name}.")
    return 0 if all(each.not_slower for each in comparisons) else 1


def _main_baselines(names: list[str], plan: Plan, console: Console, file: Path) -> None:
    figures: list[Figure] = []
    others: dict[str, Any] = {}
    taken: dict[str, float] = {}
    loads: dict[str, tuple[float, float]] = {}  # before and after
    for name in names:
        if lacking := _WANTS.get(name, lambda: None)():
            console.print(f"[bold]{name}[/bold] is skipped: {lacking} is not here.")
            continue
        begun = time.monotonic()
        console.print(f"[bold]{name}[/bold] …")
        if name in _PAIRS:
            before = os.getloadavg()[0]
            with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                found = _PAIRS[name](Path(folder), plan)
            loads[name] = (before, os.getloadavg()[0])
            figures += found
            console.print(table(found, f"{loads[name][0]:.1f} to {loads[name][1]:.1f}"))
        else:
            others[name] = _OTHERS[name]()
        taken[name] = round(time.monotonic() - begun, 1)
    shown = [figure.to_json() for figure in figures]
    _write(file, plan, taken, {"load": loads, "figures": shown, **others})
    if len(names) > 1 and figures:
        seen = [each for pair in loads.values() for each in pair]
        console.print(table(figures, f"{min(seen):.1f} to {max(seen):.1f}"))
    console.print(f"{sum(taken.values()):.0f} seconds in all. Written to {file.name}.")


def _write(file: Path, plan: Plan, seconds: dict[str, float], found: dict[str, Any]) -> None:
    results = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cores": os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 1024**3),
            "system": platform.system(),
            "python": platform.python_version(),
        },
        "rounds": plan.rounds,
        "scale": plan.scale,
        "seconds": seconds,
        **found,
    }
    file.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
