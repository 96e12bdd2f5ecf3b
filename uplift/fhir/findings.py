"""What can be wrong with a resource, before the tolerances say how serious it is."""

from dataclasses import dataclass
from enum import StrEnum, auto

from uplift.fhir.issues import Code


class Kind(StrEnum):
    """What is wrong. The tolerances have a switch for each kind but STRUCTURE and VALUE."""

    STRUCTURE = auto()
    VALUE = auto()
    UNKNOWN_ELEMENT = auto()
    MISSING_REQUIRED = auto()
    CODE_OUTSIDE_BINDING = auto()
    ID_TOO_LONG = auto()
    ID_WITH_UNDERSCORE = auto()
    INSTANT_WITHOUT_ZONE = auto()
    REFERENCE_TARGET = auto()
    PERIOD_REVERSED = auto()
    NARRATIVE_NOT_XHTML = auto()


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, and where."""

    kind: Kind
    code: Code
    expression: str
    diagnostics: str
    times: int = 1
    """For how many findings it stands: more than 1 where the rest is only counted."""
