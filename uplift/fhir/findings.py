"""What can be wrong with a resource, before the tolerances say how serious it is."""

from dataclasses import dataclass
from enum import StrEnum, auto

from uplift.fhir.issues import Code


class Kind(StrEnum):
    """What is wrong. `uplift.fhir.deviations` says which kinds can be tolerated."""

    # Never tolerated.
    STRUCTURE = auto()
    VALUE = auto()
    NO_CONTENT = auto()

    # Deviations, named as in the settings.
    ZERO_WHERE_POSITIVE = auto()
    EMPTY_OBJECT = auto()
    EMPTY_ARRAY = auto()
    EMPTY_STRING = auto()
    VALUE_SET_AS_SYSTEM = auto()
    DATE_WITH_TIME = auto()
    DATETIME_WITHOUT_ZONE = auto()
    INSTANT_WITHOUT_ZONE = auto()
    BAD_NARRATIVE = auto()
    ID_TOO_LONG = auto()
    ID_WITH_UNDERSCORE = auto()
    MISSING_REQUIRED = auto()
    UNKNOWN_ELEMENT = auto()
    CODE_OUTSIDE_BINDING = auto()
    REFERENCE_TARGET = auto()
    PERIOD_REVERSED = auto()

    # Invariants of FHIR, by the key that HL7 gives them.
    OBS_6 = "obs-6"
    OBS_7 = "obs-7"
    CON_1 = "con-1"
    CON_2 = "con-2"
    CON_3 = "con-3"
    CON_4 = "con-4"
    CON_5 = "con-5"
    AIT_1 = "ait-1"
    AIT_2 = "ait-2"
    DOM_2 = "dom-2"
    DOM_3 = "dom-3"
    REF_1 = "ref-1"
    EXT_1 = "ext-1"
    ATT_1 = "att-1"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, and where."""

    kind: Kind
    code: Code
    expression: str
    diagnostics: str
    times: int = 1
    """For how many findings it stands: more than 1 where the rest is only counted."""
