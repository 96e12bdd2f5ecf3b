"""A line of the doctor's result."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How serious a finding is."""

    OK = "ok"
    WARN = "warn"  # it works, but somebody should check it in working hours
    FAIL = "fail"  # something does not work, or data is at risk


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: the part, the verdict, what the doctor found, and what to do.

    The texts contain no secret, no address with a password and no health data: people copy them
    into tickets and chats.
    """

    part: str
    verdict: Verdict
    what: str
    do: str | None = None


def ok(part: str, what: str) -> Finding:
    """Nothing to do."""
    return Finding(part, Verdict.OK, what)


def warn(part: str, what: str, do: str) -> Finding:
    """It works, but somebody should check it."""
    return Finding(part, Verdict.WARN, what, do)


def fail(part: str, what: str, do: str) -> Finding:
    """It does not work, or data is at risk."""
    return Finding(part, Verdict.FAIL, what, do)


def worst(findings: Iterable[Finding]) -> Verdict:
    """The most serious verdict."""
    found = {finding.verdict for finding in findings}
    return next((v for v in (Verdict.FAIL, Verdict.WARN) if v in found), Verdict.OK)
