"""Validates records before they are sent: small ones that come together in one call of a thread.

A thread for each would cost almost as much as the validation itself.
"""

import asyncio
import gc
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from uplift.coalesce import Coalescer
from uplift.fhir.issues import Report
from uplift.fhir.second_opinion import is_chosen
from uplift.fhir.tolerances import chosen_tolerances
from uplift.fhir.types import RELAYED_TYPES
from uplift.fhir.validate import validate
from uplift.fhir.versions import FhirVersion
from uplift.metrics import count_findings, library_disagreements
from uplift.settings import Settings

_Types = Mapping[FhirVersion, frozenset[str]]

# Larger ones have a thread of their own: they keep no others waiting.
_SMALL_BYTES = 16 * 1024
# So many take some milliseconds, as long as Python lets one thread run.
_TOGETHER = 32


@dataclass(frozen=True, slots=True)
class _Record:
    body: bytes = field(repr=False)
    fhir_version: str
    taken: _Types = field(repr=False)


class Validation:
    """Validates by the deployment's settings, and counts what it finds."""

    def __init__(self, settings: Settings) -> None:
        self._tolerances = chosen_tolerances(settings)
        self._second_opinion = settings.second_opinion
        self._max_values = settings.max_resource_values
        self._together = Coalescer(self._validate_all, limit=_TOGETHER)

    async def validate(
        self, body: bytes, fhir_version: str, taken: _Types = RELAYED_TYPES
    ) -> Report:
        """The report on one resource, whatever the bytes are. Its destination takes `taken`."""
        record = _Record(body, fhir_version, taken)
        if len(body) <= _SMALL_BYTES:
            report = await self._together(record)
        else:
            report = await asyncio.to_thread(self._report, record)
        count_findings((issue.code, issue.severity) for issue in report.issues)
        if report.library_disagreement:
            library_disagreements.labels(fhir_version).inc()
        return report

    async def _validate_all(self, records: list[_Record]) -> list[Report]:
        return await asyncio.to_thread(self._reports, records)

    def _reports(self, records: list[_Record]) -> list[Report]:
        modules = len(sys.modules)
        reports = [self._report(each) for each in records]
        if len(sys.modules) > modules:
            # The models that came with them stay. Each full collection would visit them all.
            gc.freeze()
        return reports

    def _report(self, record: _Record) -> Report:
        return validate(
            record.body,
            record.fhir_version,
            tolerances=self._tolerances,
            second_opinion=is_chosen(record.body, self._second_opinion),
            max_values=self._max_values,
            taken=record.taken,
        )
