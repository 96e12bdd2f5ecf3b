"""A synthetic record before it is written to the export."""

import hashlib
import random
from dataclasses import dataclass
from typing import Any

import orjson

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Hospital:
    """A place that records come from."""

    name: str
    """`sourceName` in export.xml."""
    url: str
    """Its FHIR base; `sourceURL` in export.xml is below it."""
    fhir_version: str
    compact: bool
    """Writes JSON on one line, keys sorted, letters beyond ASCII escaped."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of one hospital."""

    hospital: Hospital
    resource: Json
    received: str
    """Date, as in 2018-05-07."""
    vital_sign: bool = False
    fault: str | None = None
    """The element that makes it invalid, as in `Observation.code`; None in a valid record."""
    defect: str | None = None
    """What is wrong with that element."""
    with_url: bool = True
    """Some real records have no sourceURL."""
    with_file: bool = True
    """Whether the file that export.xml names is there."""

    @property
    def type(self) -> str:
        """Its resourceType."""
        return str(self.resource["resourceType"])

    @property
    def body(self) -> bytes:
        """The bytes of its file."""
        if not self.hospital.compact:
            return orjson.dumps(self.resource, option=orjson.OPT_INDENT_2)
        text = orjson.dumps(self.resource, option=orjson.OPT_SORT_KEYS).decode()
        return "".join(char if char.isascii() else _escaped(char) for char in text).encode()


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def decimal(text: str) -> orjson.Fragment:
    """A JSON number exactly so: 0.40 stays 0.40, which no Python float would."""
    return orjson.Fragment(text)


def digest(*parts: object) -> str:
    """64 hexadecimal digits that depend on `parts` only."""
    return hashlib.sha256(":".join(str(part) for part in parts).encode()).hexdigest()


def uuid_of(*parts: object) -> str:
    """A UUID that depends on `parts` only."""
    hexed = digest(*parts)
    return f"{hexed[:8]}-{hexed[8:12]}-4{hexed[13:16]}-a{hexed[17:20]}-{hexed[20:32]}"


def dice(*parts: object) -> random.Random:
    """Chance that depends on `parts` only."""
    return random.Random(":".join(str(part) for part in parts))


def concept(system: str, code: str, display: str) -> Json:
    """A CodeableConcept with one coding."""
    return {"coding": [{"system": system, "code": code, "display": display}], "text": display}


LOINC = "http://loinc.org"
SNOMED = "http://snomed.info/sct"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
CVX = "http://hl7.org/fhir/sid/cvx"
UCUM = "http://unitsofmeasure.org"
