"""Writes the table of docs/metrics.md: `python -m uplift.cli.pages.metrics`.

A test keeps the page equal to the metrics.
"""

import sys
from collections.abc import Iterator

from prometheus_client import Metric

from uplift import metrics


def families() -> Iterator[tuple[str, Metric, tuple[str, ...]]]:
    """Every metric of Uplift: its exposed name, its description, and its labels."""
    for collector in vars(metrics).values():
        if hasattr(collector, "describe") and not isinstance(collector, type):
            for metric in collector.describe():
                # The Prometheus client names a counter without its ending.
                name = metric.name + ("_total" if metric.type == "counter" else "")
                gauge = metrics.ledger_gauges.NAMES.get(name)
                yield name, metric, gauge[1] if gauge else getattr(collector, "_labelnames", ())


def table() -> str:
    """A row of Markdown for each, sorted by name."""
    rows = [
        f"| `{name}` | {metric.type} | {', '.join(f'`{each}`' for each in labels)} |"
        f" {metric.documentation} |"
        for name, metric, labels in sorted(families(), key=lambda each: each[0])
    ]
    return "\n".join(["| metric | type | labels | meaning |", "|---|---|---|---|", *rows]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
