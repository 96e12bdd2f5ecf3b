"""The report of a validation, in the form of FHIR's OperationOutcome."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Self

ISSUES_KEPT = 50
"""A report lists this many issues. Its total counts all."""

Severity = Literal["fatal", "error", "warning", "information"]
Code = Literal[
    "structure",
    "required",
    "value",
    "code-invalid",
    "invariant",
    "too-costly",
    "not-supported",
    "library-disagreement",
]
"""FHIR issue types, and one of our own: `library-disagreement`, which is always a warning."""


@dataclass(frozen=True, slots=True)
class Issue:
    """One issue. Neither `expression` nor `diagnostics` ever contains a value of the record."""

    severity: Severity
    code: Code
    expression: str
    """The place, written like FHIRPath with the names of the JSON."""
    diagnostics: str
    """What is wrong and what is right, for the developer of the sending app."""

    @property
    def refuses(self) -> bool:
        """Whether this issue keeps the record from being sent."""
        return self.severity in ("fatal", "error")

    def to_json(self) -> dict[str, Any]:
        """The issue as an element of `OperationOutcome.issue`."""
        return {
            "severity": self.severity,
            "code": self.code,
            "expression": [self.expression],
            "diagnostics": self.diagnostics,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """The verdict on one resource."""

    issues: tuple[Issue, ...]
    """Errors first. Not more than ISSUES_KEPT."""
    total: int
    """How many issues there are. After `too-costly` there may be more."""
    valid: bool
    """Whether the resource may be sent: no issue is fatal or an error."""
    too_complex: bool = False
    """Whether only a limit of validation refuses it. Nothing else is known to be wrong."""
    library_disagreement: bool = False
    """Whether fhir.resources refuses what the schema accepts."""

    @classmethod
    def of(cls, issues: Iterable[tuple[Issue, int]]) -> Self:
        """The report on `issues`. Each comes with the number of issues for which it stands."""
        refusing: list[Issue] = []
        others: list[Issue] = []
        total = 0
        disagreement = False
        for issue, times in issues:
            total += times
            disagreement |= issue.code == "library-disagreement"
            kept = refusing if issue.refuses else others
            if len(kept) < ISSUES_KEPT:
                kept.append(issue)
        return cls(
            issues=tuple([*refusing, *others][:ISSUES_KEPT]),
            total=total,
            valid=not refusing,
            too_complex=bool(refusing) and all(each.code == "too-costly" for each in refusing),
            library_disagreement=disagreement,
        )

    def to_json(self) -> dict[str, Any]:
        """`{"total": n, "issue": [...]}`, as the status of an upload shows it."""
        return {"total": self.total, "issue": [issue.to_json() for issue in self.issues]}
