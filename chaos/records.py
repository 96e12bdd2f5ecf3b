"""The records that devices send. No two versions have the same content. Pure."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

SYSTEM = "urn:uplift:chaos"
"""The system of the records' identifiers."""

POISON = "poisonous"
"""The text in records that the destination does not take."""


@dataclass(frozen=True)
class Version:
    """One version of one record on a device.

    `valid`: it is valid FHIR, so it must be delivered. `findable`: a look-up can find it, by the id
    that 1upHealth keeps or by `identifier`, so it must never be stored twice. `poisonous`: the
    destination takes no request that it is in.
    """

    user: str
    record: str
    number: int
    valid: bool = True
    identified: bool = True
    findable: bool = True
    poisonous: bool = False

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
            # Without it, two records that differ only in their ids would count as copies.
            "note": [{"text": f"{self.user} {self.record} version {self.number}{self._poison}"}],
        }
        if self.identified:
            resource["identifier"] = [{"system": SYSTEM, "value": self.record}]
        return json.dumps(resource).encode()

    @property
    def _poison(self) -> str:
        return f" {POISON}" if self.poisonous else ""

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the body, by which the sandbox names what it received."""
        return hashlib.sha256(self.body).hexdigest()
