"""The catalogue of known deviations from FHIR: what can be tolerated, and what is by default.

By default, what a real system was seen to send and a reader can still understand is a warning.
What has no content, cannot be read, or means two things is an error. `docs/validation.md` has this
catalogue as a table.
"""

from dataclasses import dataclass

from uplift.fhir.constraints import RULES
from uplift.fhir.findings import Kind
from uplift.fhir.versions import FhirVersion

_DSTU2 = frozenset({FhirVersion.DSTU2})
_STU3 = frozenset({FhirVersion.STU3})
_R4 = frozenset({FhirVersion.R4})
_ALL = _DSTU2 | _STU3 | _R4
_NEVER: frozenset[FhirVersion] = frozenset()
_NOBODY = "nobody known"
_INVARIANT_VERSIONS = {
    Kind.CON_3: _STU3 | _R4,
    Kind.CON_4: _STU3 | _R4,
    Kind.CON_5: _R4,
    Kind.AIT_1: _STU3 | _R4,
    Kind.AIT_2: _STU3 | _R4,
}
"""The versions of those that not every version has."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """One kind of finding that can be tolerated."""

    kind: Kind
    what: str
    sender: str
    """Who was seen to send it."""
    versions: frozenset[FhirVersion] = _ALL
    """The versions that have the rule."""
    tolerated: frozenset[FhirVersion] = _ALL
    """The versions in which it is a warning by default."""


CATALOGUE = (
    Deviation(
        Kind.ZERO_WHERE_POSITIVE,
        "0 where the least is 1, such as `numberOfRepeatsAllowed`",
        "the largest DSTU2 vendor, for prescriptions without refills",
    ),
    Deviation(
        Kind.EMPTY_OBJECT,
        "an empty object; it counts as absent",
        "a DSTU2 vendor, for reports without a known performer",
    ),
    Deviation(
        Kind.EMPTY_ARRAY, "an empty array; it counts as absent", "serialisers that write `[]`"
    ),
    Deviation(
        Kind.EMPTY_STRING, "an empty or blank string; it counts as absent", "form fields left empty"
    ),
    Deviation(
        Kind.VALUE_SET_AS_SYSTEM,
        "the right code, with the address of the value set as its system",
        "a payer, for all problems; a hospital vendor, for `maritalStatus`",
    ),
    Deviation(Kind.DATE_WITH_TIME, "a date with a time", "older systems"),
    Deviation(Kind.DATETIME_WITHOUT_ZONE, "a dateTime with a time and no zone", "older systems"),
    Deviation(
        Kind.INSTANT_WITHOUT_ZONE,
        "an instant without a zone, such as `issued`",
        "DSTU2 systems",
        tolerated=_DSTU2,
    ),
    Deviation(
        Kind.BAD_NARRATIVE,
        "a narrative that is empty, incomplete, or not plain XHTML",
        "systems that write text or nothing into `div`",
    ),
    Deviation(Kind.ID_TOO_LONG, "an id of more than 64 characters", "Epic"),
    Deviation(Kind.ID_WITH_UNDERSCORE, "an id with an underscore", "Cerner"),
    Deviation(
        Kind.MISSING_REQUIRED,
        "a required element left out; 1upHealth answers 400 to such an R4 resource",
        "Apple's own sample Condition (DSTU2), without `patient`",
        tolerated=_DSTU2,
    ),
    Deviation(
        Kind.UNKNOWN_ELEMENT,
        "an element that the version does not define",
        _NOBODY,
        tolerated=_NEVER,
    ),
    Deviation(
        Kind.CODE_OUTSIDE_BINDING,
        "a code outside a required value set",
        _NOBODY,
        tolerated=_NEVER,
    ),
    Deviation(
        Kind.REFERENCE_TARGET,
        "a reference to a type that is not allowed",
        "HL7's own R4 examples (two)",
    ),
    Deviation(Kind.PERIOD_REVERSED, "a period that ends before it starts", _NOBODY),
    *(
        Deviation(
            kind,
            rule,
            "HL7's own STU3 example `f204`" if kind is Kind.CON_4 else _NOBODY,
            versions=_INVARIANT_VERSIONS.get(kind, _ALL),
        )
        for kind, rule in RULES.items()
    ),
)
"""Every deviation. A kind that is not here is always an error."""
