"""The records that devices send: every version's content is found nowhere else. Pure."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

SYSTEM = "urn:uplift:storm"
"""The system of the records' identifiers."""


@dataclass(frozen=True)
class Version:
    """One version of one record, as a device has it.

    `valid`: whether it is FHIR, so that it has to arrive. `findable`: whether 1upHealth can be
    asked for it, by the id that it keeps or by `identifier`, so that it must never be there twice.
    """

    user: str
    record: str
    number: int
    valid: bool = True
    identified: bool = True
    findable: bool = True

    @cached_property
    def body(self) -> bytes:
        """The resource's bytes."""
        resource: dict[str, object] = {
            "resourceType": "Observation",
            "id": self.record,
            "status": "final" if self.valid else ["final"],
            "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
            "subject": {"reference": "Patient/p1"},
            "valueQuantity": {"value": 60.5 + self.number, "unit": "/min"},
            # Without it, two records that differ in nothing but their id would count as copies.
            "note": [{"text": f"{self.user} {self.record} version {self.number}"}],
        }
        if self.identified:
            resource["identifier"] = [{"system": SYSTEM, "value": self.record}]
        return json.dumps(resource).encode()

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the body, by which the sandbox names what it received."""
        return hashlib.sha256(self.body).hexdigest()
