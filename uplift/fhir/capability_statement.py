"""The CapabilityStatement of reading back, by which FHIR clients learn what they may ask. Pure.

DSTU2 calls it Conformance. Sources: https://hl7.org/fhir/DSTU2/conformance.html,
https://hl7.org/fhir/STU3/capabilitystatement.html and
https://hl7.org/fhir/R4/capabilitystatement.html.
"""

from typing import Any

from uplift.fhir.types import READABLE_TYPES
from uplift.fhir.versions import FhirVersion

_RELEASES = {FhirVersion.DSTU2: "1.0.2", FhirVersion.STU3: "3.0.2", FhirVersion.R4: "4.0.1"}
_INTERACTIONS = ("read", "vread", "search-type")
# Required. It is the day on which this text last changed.
_DATE = "2026-11-30"


def capability_statement(version: FhirVersion, software_version: str, base: str) -> dict[str, Any]:
    """What reading back offers in a FHIR version to who asks at the address `base`."""
    old = version is FhirVersion.DSTU2
    return {
        "resourceType": "Conformance" if old else "CapabilityStatement",
        "status": "active",
        "date": _DATE,
        "kind": "instance",
        "software": {"name": "Uplift", "version": software_version},
        "implementation": {
            "description": "What the destination has of one person. It can only be read.",
            "url": base,
        },
        "fhirVersion": _RELEASES[version],
        # R4 has no such element any more.
        **({} if version is FhirVersion.R4 else {"acceptUnknown": "both"}),
        "format": ["json" if old else "application/fhir+json"],
        "rest": [
            {
                "mode": "server",
                "security": {
                    "description": "Send an API key of Uplift as `Authorization: Bearer`."
                },
                "resource": [_resource(version, each) for each in sorted(READABLE_TYPES[version])],
            }
        ],
    }


def _resource(version: FhirVersion, resource_type: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": resource_type,
        "interaction": [{"code": code} for code in _INTERACTIONS],
    }
    if version is FhirVersion.R4 and resource_type == "Patient":
        found["operation"] = [
            {
                "name": "everything",
                "definition": "http://hl7.org/fhir/OperationDefinition/Patient-everything",
            }
        ]
    return found
