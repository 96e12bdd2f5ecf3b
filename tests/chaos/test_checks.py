"""Each check fails on a system that breaks the promise of that check."""

from dataclasses import replace
from typing import Any

import pytest

from chaos import checks, figures
from chaos.collect import told_apart
from chaos.devices import Accepted
from chaos.evidence import Attempt, Evidence, Request, Row, Stored
from chaos.options import Options
from chaos.records import SYSTEM, Version
from chaos.restores import Restored

FIRST = Version("alice", "r1", 1)
SECOND = Version("alice", "r1", 2)
INVALID = Version("alice", "r2", 1, valid=False)
NAMELESS = Version("alice", "r3", 1, identified=False, findable=False)
VERSIONS = {"u1": FIRST, "u2": SECOND, "u3": INVALID, "u4": NAMELESS}
NOW = 1_000_000.0


def row(upload_id: str, state: str = "delivered", **fields: Any) -> Row:
    values: dict[str, Any] = {
        "id": upload_id,
        "user": "alice",
        "version": VERSIONS[upload_id].number,
        "state": state,
        "reason": None,
        "attempts": 1,
        "maybe_sent": False,
        "marked": False,
    }
    return Row(**values | fields)


def stored(version: Version, at: float = NOW, copy: str | None = None) -> Stored:
    return Stored("alice", version.record, version.sha256, at, copy)


def write(number: int, version: Version, at: float) -> Request:
    path = f"/r4/Observation/{version.record}"
    return Request(number, at, "POST", path, sha256=version.sha256)


def good(**fields: Any) -> Evidence:
    """The evidence of a system that keeps its promises."""
    values: dict[str, Any] = {
        "options": Options(),
        "accepted": [
            Accepted(id_, version, NOW, False, False) for id_, version in VERSIONS.items()
        ],
        "rows": [row("u1"), row("u2"), row("u3", "rejected"), row("u4")],
        "shown": {"u1": "delivered", "u2": "delivered", "u3": "rejected", "u4": "delivered"},
        "attempts": [Attempt(id_, NOW) for id_ in VERSIONS],
        "stored": [stored(FIRST, NOW + 1), stored(SECOND, NOW + 2), stored(NAMELESS, NOW + 3)],
        "requests": [write(1, FIRST, NOW + 1), write(2, SECOND, NOW + 2)],
    }
    return Evidence(**values | fields)


def without_first() -> list[Row]:
    return good().rows[1:]


def copies_of(version: Version) -> list[Stored]:
    return [*good().stored, stored(version, NOW + 1.5, "version")]


MARKED = [row("u1", marked=True), *without_first()]
LATE = Options().attempt + 60
BEYOND = Options(beyond=True)

BAD: dict[str, tuple[checks.Check, Evidence]] = {
    "something of the person who left is there": (
        checks.of_who_was_erased_nothing_is_there,
        good(leaver=["Observation/leaving-1"]),
    ),
    "the doctor said nothing of a fault": (
        checks.the_doctor_told_every_fault_and_is_well_at_last,
        good(not_told=["Redis OOM: the doctor fails only []"]),
    ),
    "an upload that got 202 is nowhere": (
        checks.every_202_is_in_exactly_one_state,
        good(rows=without_first()),
    ),
    "an upload is in two states": (
        checks.every_202_is_in_exactly_one_state,
        good(rows=[*good().rows, row("u1", "queued")]),
    ),
    "an upload is in an unknown state": (
        checks.every_202_is_in_exactly_one_state,
        good(rows=[row("u1", "lost"), *without_first()]),
    ),
    "the API shows another state than the ledger": (
        checks.every_202_is_in_exactly_one_state,
        good(shown=good().shown | {"u1": "queued"}),
    ),
    "the API does not know it": (
        checks.every_202_is_in_exactly_one_state,
        good(shown={id_: state for id_, state in good().shown.items() if id_ != "u1"}),
    ),
    "one version became two uploads": (
        checks.every_version_is_one_upload,
        good(accepted=[*good().accepted, Accepted("u5", FIRST, NOW, False, False)]),
    ),
    "an upload for which no device got a 202": (
        checks.every_version_is_one_upload,
        good(rows=[*good().rows, replace(row("u1"), id="u9")]),
    ),
    "a device got an unexpected response": (
        checks.every_device_got_the_responses_it_expects,
        good(unexpected=["r1: 500"]),
    ),
    "an upload waits for ever": (
        checks.nothing_is_stuck,
        good(rows=[row("u1", "queued"), *without_first()]),
    ),
    "an upload stays with a worker that is gone": (
        checks.nothing_is_stuck,
        good(rows=[row("u1", "sending"), *without_first()]),
    ),
    "a restore marked what a look-up can tell": (
        checks.a_ledger_that_went_back_marks_few,
        good(rows=[row("u1", marked=True, restored=True), *without_first()]),
    ),
    "a search that found nothing is no doubt": (
        checks.a_ledger_that_went_back_marks_few,
        good(
            rows=[row("u1", marked=True, restored=True), *without_first()],
            attempts=[Attempt("u1", NOW, "search_empty"), Attempt("u1", NOW + 1, "stored")],
        ),
    ),
    "the newest version is refused as older after a restore": (
        checks.every_upload_reached_the_right_state,
        good(rows=[row("u2", "refused", reason="newer_upstream")]),
    ),
    "a valid record is refused": (
        checks.every_upload_reached_the_right_state,
        good(rows=[row("u4", "refused"), *good().rows[:3]]),
    ),
    "an invalid record is delivered": (
        checks.every_upload_reached_the_right_state,
        good(rows=[row("u3", "delivered"), *good().rows[:2]]),
    ),
    "the newest version is superseded": (
        checks.every_upload_reached_the_right_state,
        good(rows=[row("u2", "superseded")]),
    ),
    "a delivered record is not upstream": (
        checks.everything_delivered_is_upstream,
        good(stored=good().stored[1:]),
    ),
    "it is upstream with other bytes": (
        checks.everything_delivered_is_upstream,
        good(stored=[replace(stored(FIRST), sha256="0" * 64), *good().stored[1:]]),
    ),
    "it is upstream with another person": (
        checks.everything_delivered_is_upstream,
        good(stored=[replace(stored(FIRST), user="bob"), *good().stored[1:]]),
    ),
    "a record is upstream twice": (
        checks.nothing_is_upstream_twice,
        good(stored=copies_of(FIRST)),
    ),
    "a findable record is upstream twice, though marked": (
        checks.nothing_is_upstream_twice,
        good(stored=copies_of(FIRST), rows=MARKED),
    ),
    "a record that no look-up finds is upstream twice, unmarked": (
        checks.nothing_is_upstream_twice,
        good(stored=copies_of(NAMELESS)),
    ),
    "with longer delays a record is upstream twice, unmarked": (
        checks.nothing_is_upstream_twice,
        good(options=BEYOND, stored=copies_of(FIRST)),
    ),
    "unknown bytes are upstream": (
        checks.everything_upstream_was_accepted,
        good(stored=[*good().stored, replace(stored(FIRST), sha256="0" * 64)]),
    ),
    "an old version came after a new one": (
        checks.no_older_version_came_after_a_newer_one,
        good(stored=[stored(SECOND, NOW + 1), stored(FIRST, NOW + 2)]),
    ),
    "a request came before any attempt": (
        checks.every_request_belongs_to_an_attempt,
        good(requests=[write(1, FIRST, NOW - 0.1)]),
    ),
    "a request came without an attempt at it": (
        checks.every_request_belongs_to_an_attempt,
        good(requests=[write(1, FIRST, NOW + 1)], attempts=[Attempt("u2", NOW)]),
    ),
    "a worker sent after its deadline": (
        checks.every_request_belongs_to_an_attempt,
        good(requests=[write(1, FIRST, NOW + LATE)]),
    ),
    "unknown bytes came": (
        checks.every_request_belongs_to_an_attempt,
        good(requests=[replace(write(1, FIRST, NOW + 1), sha256="0" * 64)]),
    ),
    "a look-up by id came before any attempt": (
        checks.every_request_belongs_to_an_attempt,
        good(requests=[Request(1, NOW - 1, "GET", "/r4/Observation/r1")]),
    ),
    "a search by identifier came without an attempt": (
        checks.every_request_belongs_to_an_attempt,
        good(
            attempts=[Attempt("u4", NOW)],
            requests=[
                Request(
                    1,
                    NOW + 1,
                    "GET",
                    "/r4/Observation",
                    f"identifier={SYSTEM}%7Cr1",
                )
            ],
        ),
    ),
}


def test_a_system_that_keeps_its_promises_passes_every_check() -> None:
    assert not any(checks.run(good()).values())


@pytest.mark.parametrize("case", BAD)
def test_a_check_finds(case: str) -> None:
    check, evidence = BAD[case]
    assert check(evidence)


def test_every_check_has_a_case_in_which_it_fails() -> None:
    assert {check for check, _ in BAD.values()} == set(checks.CHECKS)


@pytest.mark.parametrize(
    ("options", "version", "marked"),
    [(Options(), NAMELESS, "u4"), (BEYOND, FIRST, "u1"), (BEYOND, NAMELESS, "u4")],
)
def test_a_copy_that_no_look_up_could_prevent_is_allowed_if_it_is_marked(
    options: Options, version: Version, marked: str
) -> None:
    rows = [replace(each, marked=each.id == marked) for each in good().rows]
    evidence = good(options=options, stored=copies_of(version), rows=rows)
    assert not checks.nothing_is_upstream_twice(evidence)


def test_an_older_version_may_be_superseded() -> None:
    evidence = good(rows=[row("u1", "superseded"), *without_first()])
    assert not checks.every_upload_reached_the_right_state(evidence)


def test_with_delays_longer_than_settle_a_late_commit_may_come_last() -> None:
    evidence = good(options=BEYOND, stored=[stored(SECOND, NOW + 1), stored(FIRST, NOW + 2)])
    assert not checks.no_older_version_came_after_a_newer_one(evidence)


def test_a_look_up_by_the_id_that_1uphealth_assigned_belongs_to_the_record() -> None:
    given = replace(stored(FIRST), resource_id="given-1")
    look_up = Request(1, NOW + 9, "GET", "/r4/Observation/given-1")
    evidence = good(stored=[given], requests=[look_up], attempts=[Attempt("u1", NOW)])
    assert not checks.every_request_belongs_to_an_attempt(evidence)
    evidence = good(stored=[given], requests=[look_up], attempts=[Attempt("u4", NOW)])
    assert checks.every_request_belongs_to_an_attempt(evidence)


def test_a_request_whose_body_never_arrived_belongs_to_no_upload() -> None:
    cut = Request(1, NOW - 9, "POST", "/r4/Observation", whole=False)
    assert not checks.every_request_belongs_to_an_attempt(good(requests=[cut]))


def test_the_report_ends_with_the_verdict() -> None:
    def last_line(evidence: Evidence) -> str:
        findings = checks.run(evidence)
        report = figures.lines(
            evidence, findings, done={"kill api": 2}, errors={}, seconds=9.0, settling=1.0
        )
        return list(report)[-1]

    assert last_line(good()) == "seed 1: every check holds"
    assert (
        last_line(good(rows=without_first())) == f"seed 1: 1 of {len(checks.CHECKS)} checks FAILED"
    )


@pytest.mark.parametrize(
    "evidence",
    [
        # Another fault put it in doubt.
        good(
            rows=[row("u1", marked=True, restored=True), *without_first()],
            attempts=[Attempt("u1", NOW, "connection_lost"), Attempt("u1", NOW + 1, "stored")],
        ),
        good(
            rows=[row("u4", marked=True, restored=True, reason="cannot_look_up"), *without_first()]
        ),
        good(rows=[row("u1", marked=True, restored=True)], stored=copies_of(FIRST)),
    ],
)
def test_other_marks_are_counted_apart(evidence: Evidence) -> None:
    assert checks.a_ledger_that_went_back_marks_few(evidence) == []


def test_after_a_restore_an_older_version_may_be_refused_for_a_newer_one_that_is_there() -> None:
    refused = row("u1", "refused", reason="newer_upstream")
    evidence = good(rows=[refused, *without_first()])
    assert checks.every_upload_reached_the_right_state(evidence) == []


def test_what_a_lost_ledger_accepted_and_sent_is_known() -> None:
    lost = [each for each in good().accepted if each.upload_id == "u1"]
    evidence = good(
        accepted=[each for each in good().accepted if each.upload_id != "u1"],
        lost=lost,
        rows=without_first(),
        attempts=good().attempts[1:],
        lost_attempts=good().attempts[:1],
    )
    assert not any(checks.run(evidence).values())


def test_202s_of_a_ledger_that_went_back_are_lost_if_it_does_not_know_them() -> None:
    first, second, third, fourth = good().accepted
    later = replace(fourth, at=NOW + 10)
    restored = Restored(NOW + 5, frozenset({"u1"}), "lost_0")
    kept, lost = told_apart([first, second, third, later], [restored])
    assert (kept, lost) == ([first, later], [second, third])
    # What it lost may be in the backup that is restored afterwards.
    again = Restored(NOW + 6, frozenset({"u1", "u2"}), "lost_1")
    kept, lost = told_apart([first, second, third, later], [restored, again])
    assert (kept, lost) == ([first, second, later], [third])
