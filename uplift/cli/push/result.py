"""The outcome of each record of a push, and whether all of them arrived."""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from uplift.cli.push.notes import Note, Notes
from uplift.client import Issue, Upload


class ResponseKind(StrEnum):
    """The outcome of a record; in the order in which the table shows them."""

    DELIVERED = "delivered"
    """The destination has stored it."""
    DUPLICATE = "duplicate"
    """The same record with the same content was delivered before."""
    SUPERSEDED = "superseded"
    """A newer version of the same record is sent instead."""
    ACCEPTED = "accepted"
    """Uplift has it; with --no-wait, the push does not look further."""
    WAITING = "waiting"
    """Uplift has it and keeps trying; the push did not wait longer."""
    PARKED = "parked"
    """Waits until the user authorises again."""
    REJECTED = "rejected"
    """Not valid FHIR; its issues name the elements."""
    REFUSED = "refused"
    """The destination refused it."""
    EXPIRED = "expired"
    """Uplift gave up after trying for days."""
    CANCELLED = "cancelled"
    """Somebody cancelled it."""
    VALID = "valid"
    """A dry run found nothing wrong, and sent nothing."""
    NOT_ACCEPTED = "not accepted"
    """The API of Uplift did not accept it."""
    VERSION_NOT_TAKEN = "version not taken"
    """The user's destination does not take its FHIR version, so it was not accepted."""
    SKIPPED = "skipped"
    """Could not be read from the input, so it was never sent."""

    @property
    def arrived(self) -> bool:
        """Whether the record, or a newer version of it, is where it should be."""
        return self in (ResponseKind.DELIVERED, ResponseKind.DUPLICATE, ResponseKind.SUPERSEDED)

    @property
    def under_way(self) -> bool:
        """Whether it only needs time."""
        return self in (ResponseKind.ACCEPTED, ResponseKind.WAITING)


@dataclass(slots=True)
class PushedRecord:
    """What is kept about one record of the input."""

    label: str
    resource_type: str
    outcome: ResponseKind
    fhir_version: str | None = None
    source: str | None = None
    record_id: str | None = None
    upload_id: str | None = None
    why: str | None = None
    hospital: str | None = None
    date: str | None = None
    issues: Sequence[Issue] = ()
    issues_total: int = 0

    def __post_init__(self) -> None:
        # There are hundreds of thousands of them, with the same few hospitals, types and days.
        for name in ("resource_type", "fhir_version", "source", "hospital", "date"):
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, sys.intern(value))

    def settle(self, status: Upload) -> None:
        """Note its outcome from a settled status."""
        self.outcome = ResponseKind(status.status)
        if self.outcome.arrived:
            return
        reasons = dict.fromkeys(each for each in (status.reason, status.last_response) if each)
        self.why = ", ".join(reasons) or None
        if status.issues is not None:
            self.issues = status.issues.issue
            self.issues_total = status.issues.total

    def to_json(self) -> dict[str, Any]:
        """For `--json`: no value of the record itself."""
        return {
            "label": self.label,
            "resourceType": self.resource_type,
            "fhirVersion": self.fhir_version,
            "source": self.source,
            "hospital": self.hospital,
            "date": self.date,
            "recordId": self.record_id,
            "outcome": self.outcome.value,
            "uploadId": self.upload_id,
            "why": self.why,
            "issues": {
                "total": self.issues_total,
                "issue": [
                    {
                        "severity": issue.severity,
                        "code": issue.code,
                        "expression": issue.expression,
                        "diagnostics": issue.diagnostics,
                    }
                    for issue in self.issues
                ],
            },
        }


@dataclass(slots=True)
class Row:
    """The records of one type of one hospital."""

    hospital: str | None
    resource_type: str
    first: str | None = None
    """The earliest day that one of them is about."""
    last: str | None = None
    counts: Counter[ResponseKind] = field(default_factory=Counter)

    def add(self, record: PushedRecord) -> None:
        """Count a record."""
        self.counts[record.outcome] += 1
        if record.date is not None:
            self.first = min(self.first or record.date, record.date)
            self.last = max(self.last or record.date, record.date)


@dataclass(slots=True)
class PushResult:
    """Every record of the input, in its order, with its outcome."""

    records: list[PushedRecord] = field(default_factory=list)
    unread: str | None = None
    """Why the input could not be read to its end, if it could not."""
    waited: bool = True
    """Whether the push waited for the outcomes, and not only for acceptance."""
    notes: Notes = field(default_factory=Notes)
    """What the input has besides records."""

    @property
    def arrived(self) -> bool:
        """Whether everything in the input is at the destination."""
        return self.read and all(each.outcome.arrived for each in self.records)

    @property
    def read(self) -> bool:
        """Whether the input was read to its end."""
        return self.unread is None and not self.notes.unread_total

    @property
    def exit_code(self) -> int:
        """0 when everything arrived (without waiting: was accepted), 2 for no records; else 1."""
        if not self.records:
            return 2
        fine = self.read and all(
            each.outcome.arrived
            or each.outcome is ResponseKind.VALID
            or (not self.waited and each.outcome.under_way)
            for each in self.records
        )
        return 0 if fine else 1

    def totals(self) -> dict[ResponseKind, int]:
        """How many records have each outcome that occurs."""
        found = Counter(each.outcome for each in self.records)
        return {outcome: found[outcome] for outcome in ResponseKind if found[outcome]}

    def by_type(self) -> dict[str, dict[ResponseKind, int]]:
        """The same for each resource type, by its name."""
        found: dict[str, Counter[ResponseKind]] = {}
        for each in self.records:
            found.setdefault(each.resource_type, Counter())[each.outcome] += 1
        return {
            name: {outcome: counts[outcome] for outcome in ResponseKind if counts[outcome]}
            for name, counts in sorted(found.items())
        }

    def rows(self) -> list[Row]:
        """The same for each hospital and type, by their names."""
        found: dict[tuple[str, str], Row] = {}
        for each in self.records:
            hospital = each.hospital or each.source
            row = found.setdefault(
                (hospital or "", each.resource_type), Row(hospital, each.resource_type)
            )
            row.add(each)
        return [row for _, row in sorted(found.items())]

    def standing(self) -> str:
        """How far it came, in words."""
        totals = self.totals()
        with_uplift = sum(each.upload_id is not None for each in self.records)
        arrived = sum(count for outcome, count in totals.items() if outcome.arrived)
        return (
            f"Uplift has {with_uplift} of the {len(self.records)} records that were read;"
            f" {arrived} are known to have arrived. Run the same command again to go on: nothing"
            " is sent to the destination twice."
        )

    def json_pieces(self) -> Iterator[str]:
        """The machine-readable report, one record at a time, because it may be large."""
        head = {
            "arrived": self.arrived,
            "unread": [*([self.unread] if self.unread else []), *_lines(self.notes.unread)],
            "passedOver": _lines(self.notes.passed_over),
            "passedOverTotal": self.notes.passed_over_total,
            "totals": {outcome.value: count for outcome, count in self.totals().items()},
            "byType": {
                name: {outcome.value: count for outcome, count in counts.items()}
                for name, counts in self.by_type().items()
            },
        }
        yield json.dumps(head, indent=2, ensure_ascii=False).removesuffix("\n}")
        yield ',\n  "records": ['
        for number, each in enumerate(self.records):
            yield f"{',' if number else ''}\n    {json.dumps(each.to_json(), ensure_ascii=False)}"
        yield "\n  ]\n}\n"


def _lines(notes: list[Note]) -> list[str]:
    return [f"{each.label}: {each.reason}" for each in notes]
