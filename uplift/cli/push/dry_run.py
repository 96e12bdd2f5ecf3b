"""A push without a server: reads and validates everything as Uplift will."""

from pathlib import Path

from uplift.cli.push.progress import PushProgress
from uplift.cli.push.records import Record, Skipped
from uplift.cli.push.result import PushedRecord, PushResult, ResponseKind
from uplift.cli.push.sources import Source, count_records
from uplift.client import Issue

_MAX_ISSUES = 20


def validate_records(
    path: Path, result: PushResult, progress: PushProgress, *, fhir_version: str | None
) -> None:
    """Fill `result` with every record at `path`. Raises: UnreadableSource."""
    total = count_records(path)
    for item in Source(path, fhir_version, notes=result.notes).records():
        if item is None:
            continue
        progress.reading(item.label)
        result.records.append(_validated(item) if isinstance(item, Record) else _skipped(item))
        progress.sent(len(result.records), max(total, len(result.records) + 1))
    progress.sent(len(result.records), len(result.records))


def _skipped(item: Skipped) -> PushedRecord:
    resource_type = item.resource_type or "unknown"
    return PushedRecord(
        item.label, resource_type, ResponseKind.SKIPPED, why=item.reason, hospital=item.hospital
    )


def _validated(record: Record) -> PushedRecord:
    # To import it compiles the rules of three versions of FHIR.
    from uplift.fhir.validate import validate

    report = validate(record.body, record.fhir_version)
    kept = PushedRecord(
        record.label,
        record.resource_type,
        ResponseKind.VALID if report.valid else ResponseKind.REJECTED,
        record.fhir_version,
        record.source,
        record.record_id,
        hospital=record.hospital,
        date=record.date,
    )
    if not report.valid:
        kept.issues_total = len(report.issues)
        kept.issues = [
            Issue(each.severity, each.code, [each.expression], each.diagnostics)
            for each in report.issues[:_MAX_ISSUES]
        ]
    return kept
