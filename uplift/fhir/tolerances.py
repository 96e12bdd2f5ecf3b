"""How strictly hospitals are held to the letter."""

from dataclasses import dataclass, field, fields
from typing import Self

from uplift.fhir.findings import Kind
from uplift.fhir.versions import FhirVersion


def _switch(description: str, *, default: bool) -> bool:
    switch: bool = field(default=default, metadata={"description": description})
    return switch


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerances:
    """A switch per kind of finding: true turns the error into a warning.

    The defaults accept what real hospitals are known to send and 1upHealth can still decide on.
    """

    id_too_long: bool = _switch("Ids of more than 64 characters, which Epic sends.", default=True)
    id_with_underscore: bool = _switch("Ids with an underscore, which Cerner sends.", default=True)
    dstu2_instant_without_zone: bool = _switch(
        "DSTU2 instants, such as `issued`, without a time zone.", default=True
    )
    dstu2_missing_required: bool = _switch(
        "DSTU2 resources without a required element, such as Apple's own sample Condition without "
        "`patient`: 1upHealth decides.",
        default=True,
    )
    missing_required: bool = _switch(
        "STU3 and R4 resources without a required element; 1upHealth answers such R4 with 400.",
        default=False,
    )
    unknown_element: bool = _switch("Elements that the version does not define.", default=False)
    code_outside_binding: bool = _switch("Codes outside a required value set.", default=False)
    reference_target: bool = _switch(
        "References to a type of resource that the element does not allow.", default=True
    )
    period_reversed: bool = _switch("Periods that end before they start.", default=True)
    narrative_not_xhtml: bool = _switch(
        "Narratives that are not the plain XHTML that FHIR asks for.", default=True
    )

    @classmethod
    def strict(cls) -> Self:
        """Nothing is tolerated."""
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
