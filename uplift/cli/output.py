"""What commands print: tables, JSON for programs, times, and a progress bar."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

# Off a terminal no width matters, and a row must stay one line.
_WIDE = 240


def print_table(table: Table) -> None:
    """Print it on standard output."""
    width = None if sys.stdout.isatty() else _WIDE
    Console(markup=False, highlight=False, width=width).print(table)


def print_json(value: object) -> None:
    """Print one JSON value on one line of standard output."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_UTC_Z))


def moment(at: datetime | None) -> str:
    """A time in UTC, to the second; nothing for None."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if at is not None else ""


class Bar:
    """A progress bar that is shown."""

    def __init__(self, progress: Progress, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=total)

    def advance(self, count: int) -> None:
        """`count` more are done."""
        self._progress.advance(self._task, count)

    def update(self, done: int, total: int) -> None:
        """`done` of `total` are done."""
        self._progress.update(self._task, completed=done, total=total)


@contextmanager
def progress_bar(what: str, total: int | None = None) -> Iterator[Bar]:
    """A progress bar on the terminal; off a terminal, nothing is shown."""
    console = Console(stderr=True)
    progress = Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    with progress:
        yield Bar(progress, total)
