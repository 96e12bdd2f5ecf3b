"""What a push shows at its end: a table, and the records that need a person."""

from collections import Counter
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from uplift.cli.push.notes import Note
from uplift.cli.push.result import PushedRecord, PushResult, ResponseKind
from uplift.fhir.versions import FhirVersion

_MAX_SHOWN = 40
_MAX_NOTES = 10
_COLOURS = {
    ResponseKind.DELIVERED: "green",
    ResponseKind.DUPLICATE: "green",
    ResponseKind.VALID: "green",
    ResponseKind.REJECTED: "red",
    ResponseKind.REFUSED: "red",
    ResponseKind.EXPIRED: "red",
    ResponseKind.NOT_ACCEPTED: "red",
    ResponseKind.VERSION_NOT_TAKEN: "yellow",
    ResponseKind.SKIPPED: "yellow",
    ResponseKind.PARKED: "yellow",
    ResponseKind.WAITING: "yellow",
}


def print_report(console: Console, result: PushResult) -> None:
    """The table by type and outcome, then each record that did not arrive and why."""
    if result.records:
        console.print(_table(result, plain=not console.is_terminal))
    troubled = [
        each
        for each in result.records
        if not each.outcome.arrived
        and not each.outcome.under_way
        and each.outcome is not ResponseKind.VERSION_NOT_TAKEN
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
    rows = result.rows()
    with_hospital = any(row.hospital for row in rows)
    with_dates = any(row.first for row in rows)
    table = Table(box=None if plain else box.SIMPLE_HEAD, show_footer=True, pad_edge=False)
    table.add_column("Type", "All", no_wrap=True)
    for head in ("first", "last") if with_dates else ():
        table.add_column(head, no_wrap=True)
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
    for hospital, group in groupby(rows, key=lambda row: row.hospital):
        if with_hospital:
            # A column of its own would leave no place for the others on a terminal.
            table.add_row(Text(hospital or "No hospital", style="bold"))
        for row in group:
            cells = [str(row.counts[outcome]) if row.counts[outcome] else "" for outcome in totals]
            table.add_row(
                f"  {row.resource_type}" if with_hospital else row.resource_type,
                *([row.first or "", row.last or ""] if with_dates else []),
                *cells,
                str(row.counts.total()),
            )
    return table


def _print_trouble(console: Console, record: PushedRecord) -> None:
    origin = f" ({record.hospital or record.source})" if record.hospital or record.source else ""
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
    if ResponseKind.VERSION_NOT_TAKEN in totals:
        lines.append(_not_taken(result))
    if ResponseKind.VALID in totals:
        lines.append(f"{totals[ResponseKind.VALID]} are valid. Nothing was sent.")
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


def _not_taken(result: PushResult) -> str:
    of = Counter(
        FhirVersion.parse(each.fhir_version or "") or each.fhir_version or "no version"
        for each in result.records
        if each.outcome is ResponseKind.VERSION_NOT_TAKEN
    )
    counts = ", ".join(f"{count} of {version}" for version, count in sorted(of.items()))
    return (
        f"{of.total()} were not accepted, because the user's destination does not take their FHIR"
        f" version: {counts}."
    )


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style), soft_wrap=True)
