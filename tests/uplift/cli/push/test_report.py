"""How a push looks on a terminal and off it."""

import io

from rich.console import Console

from uplift.cli.push.progress import ConsoleProgress, Silent
from uplift.cli.push.report import print_report
from uplift.cli.push.result import PushedRecord, PushResult, ResponseKind
from uplift.client import Issue


def console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    written = io.StringIO()
    return Console(file=written, force_terminal=terminal, width=120, legacy_windows=False), written


def test_a_terminal_gets_bars() -> None:
    target, written = console(terminal=True)
    with ConsoleProgress(target) as progress:
        progress.sent(3, 10)
        progress.settled(1, 3)
    assert "Sending to Uplift" in written.getvalue()
    assert "3/10" in written.getvalue()
    assert "Arriving at the destination" in written.getvalue()


def test_elsewhere_a_line_comes_every_few_seconds_and_at_the_end() -> None:
    target, written = console(terminal=False)
    now = 0.0
    with ConsoleProgress(target, clock=lambda: now) as progress:
        for done in range(1, 101):
            now += 0.5
            progress.sent(done, 100)
    assert written.getvalue().splitlines() == [
        *(f"Sent {done} of 100 (2/s, {(100 - done) // 2} s left)" for done in range(10, 100, 10)),
        "Sent 100 of 100",
    ]


def test_rate_time_left_and_the_file_are_shown_on_a_terminal() -> None:
    target, written = console(terminal=True)
    with ConsoleProgress(target) as progress:
        progress.reading("clinical-records/Condition-7.json")
        for done in range(1, 5):
            progress.sent(done, 10)
    assert "Condition-7.json" in written.getvalue()
    assert "/s" in written.getvalue()


def test_the_table_is_by_hospital_and_type_with_first_and_last_date() -> None:
    target, written = console(terminal=False)
    days = ("2021-05", "2019-01-02", None, "2024-02-03")
    records = [
        PushedRecord("x", "Condition", ResponseKind.DELIVERED, hospital="North", date=day)
        for day in days
    ]
    records.append(PushedRecord("y", "Condition", ResponseKind.REJECTED, hospital="South"))
    print_report(target, PushResult(records))
    lines = written.getvalue().splitlines()
    assert [line.split() for line in lines[:6]] == [
        ["Type", "first", "last", "delivered", "rejected", "total"],
        ["North"],
        ["Condition", "2019-01-02", "2024-02-03", "4", "4"],
        ["South"],
        ["Condition", "1", "1"],
        ["All", "4", "1", "5"],
    ]


def test_versions_that_are_not_taken_are_said_once_with_their_counts() -> None:
    target, written = console(terminal=False)
    records = [
        PushedRecord(f"{number}", "Condition", ResponseKind.VERSION_NOT_TAKEN, version)
        for number, version in enumerate(["DSTU2", "1.0.2", "STU3"])
    ]
    result = PushResult(records)
    print_report(target, result)
    lines = written.getvalue().splitlines()
    assert lines[3:] == [
        (
            "3 were not accepted, because the user's destination does not take their FHIR version:"
            " 2 of DSTU2, 1 of STU3."
        )
    ]
    assert (result.exit_code, result.arrived) == (1, False)


def test_more_records_than_counted_is_no_more_than_all() -> None:
    target, written = console(terminal=False)
    ConsoleProgress(target).sent(12, 10)
    assert written.getvalue() == "Sent 12 of 12\n"


def test_silence_is_possible() -> None:
    Silent().sent(1, 2)
    Silent().settled(1, 2)


def test_of_many_troubled_records_the_first_are_shown_and_the_rest_counted() -> None:
    target, written = console(terminal=True)
    records = [PushedRecord(f"line {n}", "Condition", ResponseKind.REJECTED) for n in range(100)]
    records[0].issues = [Issue("error", "value", ["Condition.onsetDateTime"], "No date.")]
    print_report(target, PushResult(records))
    assert "line 39" in written.getvalue()
    assert "line 40" not in written.getvalue()
    assert "60 more" in written.getvalue()
    assert "Condition.onsetDateTime" in written.getvalue()


def test_nothing_to_push_is_said() -> None:
    target, written = console(terminal=False)
    print_report(target, PushResult())
    assert written.getvalue() == "The input has no records.\n"
