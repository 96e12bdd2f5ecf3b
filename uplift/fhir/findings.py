"""Kinds of findings: what a switch of the tolerances can turn into a warning, and what none can."""

from dataclasses import dataclass
from enum import StrEnum, auto

from uplift.fhir.issues import Code


class Kind(StrEnum):
    """What is wrong, as finely as the tolerances tell it apart."""

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
    """Something wrong with a resource, before the tolerances say how bad that is."""

    kind: Kind
    code: Code
    expression: str
    diagnostics: str
    times: int = 1
    """More than one where the rest is counted and not described."""
