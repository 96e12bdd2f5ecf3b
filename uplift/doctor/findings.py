"""What the doctor says of a part."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a part is."""

    OK = "ok"
    WARN = "warn"  # it works, and somebody should look at it in working hours
    FAIL = "fail"  # something does not work, or data is at risk


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: the part, how it is, what was found, and what to do about it.

    Texts hold no secret, no address with a password and no health data: they get pasted around.
    """

    part: str
    verdict: Verdict
    what: str
    do: str | None = None


def ok(part: str, what: str) -> Finding:
    """Nothing to do."""
    return Finding(part, Verdict.OK, what)


def warn(part: str, what: str, do: str) -> Finding:
    """Works, but look at it."""
    return Finding(part, Verdict.WARN, what, do)


def fail(part: str, what: str, do: str) -> Finding:
    """Does not work, or puts data at risk."""
    return Finding(part, Verdict.FAIL, what, do)


def worst(findings: Iterable[Finding]) -> Verdict:
    """The verdict on all of it."""
    found = {finding.verdict for finding in findings}
    return next((v for v in (Verdict.FAIL, Verdict.WARN) if v in found), Verdict.OK)
