"""What commands print, all of it through `printable`: lines, tables, JSON, and a progress bar."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import orjson
import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table

from uplift.cli.printable import is_shown, printable

# Off a terminal no width matters, and a row must stay one line.
_WIDE = 240


class Terminal(Console):
    """A console that prints nothing but `printable` text, and reads no markup in it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "highlight": False, "emoji": False, **options})
        if not self.is_terminal and options.get("width") is None:
            self.width = _WIDE  # rich assumes 80 columns, and would cut tables

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """As rich does, and then without what must not be printed."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)


def echo(text: str) -> None:
    """Print a line on standard output."""
    typer.echo(printable(text))


def print_table(table: Table) -> None:
    """Print it on standard output."""
    Terminal().print(table)


def print_json(value: object) -> None:
    """Print one JSON value on one line of standard output."""
    typer.echo(json_text(value))


def json_text(value: object, *, indent: bool = False) -> str:
    """JSON in which what must not be printed is escaped: it stays the same value."""
    option = orjson.OPT_UTC_Z | (orjson.OPT_INDENT_2 if indent else 0)
    text = orjson.dumps(value, option=option).decode()
    if text.isprintable():
        return text
    return "".join(char if is_shown(char) else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    """One character as JSON escapes it."""
    return json.dumps(char)[1:-1] if char != "\x7f" else "\\u007f"


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
    console = Terminal(stderr=True)
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
