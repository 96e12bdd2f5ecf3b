"""What a push shows: progress while it runs, then a table and the records that need a person."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from uplift.cli.printable import printable
from uplift.cli.push.notes import Note
from uplift.cli.push.result import PushedRecord, PushResult, ResponseKind

_MAX_SHOWN = 40
_MAX_NOTES = 10
_SECONDS_BETWEEN_LINES = 5.0
_COLOURS = {
    ResponseKind.DELIVERED: "green",
    ResponseKind.DUPLICATE: "green",
    ResponseKind.REJECTED: "red",
    ResponseKind.REFUSED: "red",
    ResponseKind.EXPIRED: "red",
    ResponseKind.NOT_ACCEPTED: "red",
    ResponseKind.SKIPPED: "yellow",
    ResponseKind.PARKED: "yellow",
    ResponseKind.WAITING: "yellow",
}


class PushProgress(Protocol):
    """Shows the progress of a push, in records."""

    def sent(self, done: int, total: int) -> None:
        """`done` of about `total` were sent or skipped."""

    def settled(self, done: int, total: int) -> None:
        """`done` of `total` accepted ones have an outcome."""


class Silent:
    """Shows nothing."""

    def sent(self, done: int, total: int) -> None:
        """Ignored."""

    def settled(self, done: int, total: int) -> None:
        """Ignored."""


class ConsoleProgress:
    """Bars on a terminal; elsewhere one line every few seconds."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.begun = False
        """Whether anything was sent."""
        self._console = console
        self._clock = clock
        self._said = clock()
        self._bars: Progress | None = None
        if console.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=console,
            )
            self._sending = self._bars.add_task("Sending to Uplift", total=None)
            self._waiting = self._bars.add_task("Arriving at 1upHealth", total=None, visible=False)

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def sent(self, done: int, total: int) -> None:
        """Shows the first bar or line."""
        self.begun = True
        if self._bars is not None:
            self._bars.update(self._sending, completed=done, total=max(done, total))
        else:
            self._line(f"Sent {done} of {max(done, total)}", last=done >= total)

    def settled(self, done: int, total: int) -> None:
        """Shows the second bar or line."""
        if self._bars is not None:
            self._bars.update(self._waiting, completed=done, total=total, visible=True)
        else:
            self._line(f"{done} of {total} have an outcome", last=done >= total)

    def _line(self, text: str, *, last: bool) -> None:
        now = self._clock()
        if last or now - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = now
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def print_report(console: Console, result: PushResult) -> None:
    """The table by type and outcome, then each record that did not arrive and why."""
    if result.records:
        console.print(_table(result, plain=not console.is_terminal))
    troubled = [
        each for each in result.records if not each.outcome.arrived and not each.outcome.under_way
    ]
    troubled.sort(key=lambda each: list(ResponseKind).index(each.outcome))
    for each in troubled[:_MAX_SHOWN]:
        _print_trouble(console, each)
    if len(troubled) > _MAX_SHOWN:
        _say(console, f"… and {len(troubled) - _MAX_SHOWN} more; --json FILE lists them all.")
    _print_notes(console, "Passed over: ", result.notes.passed_over, result.notes.passed_over_total)
    _print_notes(console, "Not read: ", result.notes.unread, result.notes.unread_total)
    for line in _advice(result):
        _say(console, line)


def _table(result: PushResult, *, plain: bool) -> Table:
    totals = result.totals()
    table = Table(box=None if plain else box.SIMPLE_HEAD, show_footer=True, pad_edge=False)
    table.add_column("Type", "All", no_wrap=True)
    for outcome, count in totals.items():
        table.add_column(
            outcome.value,
            str(count),
            justify="right",
            no_wrap=True,
            style=_COLOURS.get(outcome, ""),
            footer_style="bold",
        )
    table.add_column("total", str(len(result.records)), justify="right", footer_style="bold")
    for name, counts in result.by_type().items():
        cells = [str(counts[outcome]) if outcome in counts else "" for outcome in totals]
        table.add_row(Text(printable(name)), *cells, str(sum(counts.values())))
    return table


def _print_trouble(console: Console, record: PushedRecord) -> None:
    origin = f" ({record.source})" if record.source else ""
    why = f": {record.why}" if record.why else ""
    head = f"{record.outcome.value} {record.resource_type} {record.label}{origin}{why}"
    _say(console, head, style=_COLOURS.get(record.outcome, ""))
    for issue in record.issues:
        where = ", ".join(issue.expression)
        _say(console, f"    {issue.severity} {where}: {issue.diagnostics} [{issue.code}]")
    if record.issues_total > len(record.issues):
        _say(console, f"    … {record.issues_total} issues in all")


def _print_notes(console: Console, head: str, notes: list[Note], total: int) -> None:
    for each in notes[:_MAX_NOTES]:
        _say(console, f"{head}{each.label}: {each.reason}.")
    if total > _MAX_NOTES:
        _say(console, f"… and {total - _MAX_NOTES} more such; --json FILE lists up to 1,000.")


def _advice(result: PushResult) -> list[str]:
    totals = result.totals()
    lines = []
    if result.unread is not None:
        lines.append(f"Not everything could be read: {result.unread}")
    if not result.records:
        lines.append("The input has no records.")
    if ResponseKind.PARKED in totals:
        lines.append(
            f"{totals[ResponseKind.PARKED]} are parked until the user authorises Uplift at"
            " 1upHealth again; then they are sent automatically."
        )
    under_way = totals.get(ResponseKind.WAITING, 0) + totals.get(ResponseKind.ACCEPTED, 0)
    if under_way:
        lines.append(
            f"Uplift has stored {under_way} and is still delivering them. Run the same command"
            " again to see their outcome; nothing is sent twice."
        )
    if result.records and result.arrived:
        lines.append(f"All {len(result.records)} arrived.")
    return lines


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(Text(printable(text), style=style), soft_wrap=True, highlight=False, markup=False)
