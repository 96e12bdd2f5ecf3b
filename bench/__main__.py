"""`make bench`: every benchmark, one after another, on loopback. `--help` says how to run fewer.

Prints a table and writes JSON. Figures compare two things measured in the same run, in turn; what
is best and worst of the rounds is told with the median.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from bench import (
    delivery,
    growth,
    intake,
    latency,
    memory,
    push_memory,
    validation,
    workers,
)
from bench.figures import Figure, Spread
from bench.plan import FULL, QUICK, Plan

_PAIRS: dict[str, Callable[[Path, Plan], list[Figure]]] = {
    "intake": intake.main,
    "delivery": delivery.main,
    "latency": latency.main,
    "growth": growth.main,
    "memory": memory.main,
    "workers": workers.main,
}
# These print tables of their own.
_OTHERS: dict[str, Callable[[], dict[str, Any]]] = {
    "validation": validation.main,
    "push_memory": push_memory.main,
}


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(figures: list[Figure]) -> Table:
    """The figures as they are printed."""
    shown = Table(title="Uplift's benchmarks: median of the rounds (lowest to highest)")
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


def main() -> None:
    """Run what was asked for."""
    names = [*_PAIRS, *_OTHERS]
    parser = argparse.ArgumentParser(prog="python -m bench", description="Bounded benchmarks.")
    parser.add_argument("--only", action="append", choices=names, help="may be repeated")
    parser.add_argument(
        "--quick", action="store_true", help="one short round: whether it runs, not how fast"
    )
    parser.add_argument("--rounds", type=int, help=f"rounds of each (default {FULL.rounds})")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_name("results.json"))
    chosen = parser.parse_args()
    plan = QUICK if chosen.quick else FULL
    if chosen.rounds:
        plan = Plan(rounds=chosen.rounds, scale=plan.scale)
    console = Console(width=None if os.isatty(1) else 160)
    figures: list[Figure] = []
    others: dict[str, Any] = {}
    taken: dict[str, float] = {}
    for name in chosen.only or names:
        begun = time.monotonic()
        console.print(f"[bold]{name}[/bold] …")
        if name in _PAIRS:
            with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                found = _PAIRS[name](Path(folder), plan)
            figures += found
            console.print(table(found))
        else:
            others[name] = _OTHERS[name]()
        taken[name] = round(time.monotonic() - begun, 1)
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
        "seconds": taken,
        "figures": [figure.to_json() for figure in figures],
        **others,
    }
    chosen.json.write_text(json.dumps(results, indent=2) + "\n")
    if len(chosen.only or names) > 1 and figures:
        console.print(table(figures))
    console.print(f"{sum(taken.values()):.0f} seconds in all. Written to {chosen.json.name}.")


if __name__ == "__main__":
    main()
