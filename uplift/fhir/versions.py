"""The three FHIR versions that Uplift accepts, and their names."""

import re
from enum import StrEnum

_RELEASES = {"1.0": "DSTU2", "3.0": "STU3", "4.0": "R4"}
_RELEASE_NUMBER = re.compile(r"([0-9]\.[0-9])(?:\.[0-9]{1,3})?", re.ASCII)


class FhirVersion(StrEnum):
    """A FHIR version, by the name that 1upHealth and HealthKit use."""

    DSTU2 = "DSTU2"
    STU3 = "STU3"
    R4 = "R4"

    @property
    def path(self) -> str:
        """The version's segment in 1upHealth's addresses: `dstu2`, `stu3` or `r4`."""
        return self.value.lower()

    @classmethod
    def parse(cls, text: str) -> "FhirVersion | None":
        """The version with that name, or None.

        Accepts the name in any case, and a release number as HealthKit's `fhirVersion` and
        `export.xml` write it (`1.0.2`, `3.0.2`, `4.0.1`).  R4B (4.3) and R5 are not R4.
        """
        name = text.strip().upper()
        if number := _RELEASE_NUMBER.fullmatch(name):
            name = _RELEASES.get(number[1], "")
        return cls(name) if name in cls.__members__ else None
