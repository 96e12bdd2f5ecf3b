"""Switches for errors that Uplift tolerates: they become warnings."""

from dataclasses import dataclass, fields
from typing import Self

from uplift.fhir.findings import Kind
from uplift.fhir.versions import FhirVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerances:
    """A switch for each kind of finding: true makes the error a warning.

    The defaults accept what real hospitals are known to send. 1upHealth decides then.
    The settings `UPLIFT_TOLERATE_…` describe each switch.
    """

    id_too_long: bool = True
    id_with_underscore: bool = True
    dstu2_instant_without_zone: bool = True
    dstu2_missing_required: bool = True
    missing_required: bool = False
    unknown_element: bool = False
    code_outside_binding: bool = False
    reference_target: bool = True
    period_reversed: bool = True
    narrative_not_xhtml: bool = True

    @classmethod
    def strict(cls) -> Self:
        """No error is tolerated."""
        return cls(**{each.name: False for each in fields(cls)})

    def tolerates(self, kind: Kind, version: FhirVersion) -> bool:
        """Whether a finding of the kind is a warning only."""
        dstu2 = version is FhirVersion.DSTU2
        match kind:
            case Kind.STRUCTURE | Kind.VALUE:
                return False
            case Kind.MISSING_REQUIRED:
                return self.dstu2_missing_required if dstu2 else self.missing_required
            case Kind.INSTANT_WITHOUT_ZONE:
                return dstu2 and self.dstu2_instant_without_zone
            case _:
                tolerated: bool = getattr(self, kind.value)
                return tolerated


DEFAULT_TOLERANCES = Tolerances()
