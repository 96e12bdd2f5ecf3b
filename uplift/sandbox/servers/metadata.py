"""`/metadata`: what a server says of itself. HAPI names neither `updateCreate` nor `batch`, and has
both.
"""

from datetime import UTC, datetime
from typing import Any

from uplift.sandbox import capabilities
from uplift.sandbox.servers.profile import Profile

_INTERACTIONS = (
    "search-type",
    "update",
    "vread",
    "read",
    "delete",
    "create",
)
_SEARCH_PARAMS = [
    {"name": "_id", "type": "token"},
    {"name": "identifier", "type": "token"},
    {"name": "patient", "type": "reference"},
]


def statement(version: str, base: str, profile: Profile) -> dict[str, Any]:
    """The capability statement of a base."""
    dstu2 = version == "dstu2"
    return {
        "resourceType": "Conformance" if dstu2 else "CapabilityStatement",
        **({"acceptUnknown": "extensions"} if dstu2 else {"status": "active"}),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "publisher": "Not provided",
        "kind": "instance",
        "software": {"name": f"Simulated {profile.title}", "version": "1"},
        "implementation": {"description": f"Simulated {profile.title}", "url": base},
        "fhirVersion": capabilities.FHIR_VERSIONS[version],
        "format": ["application/json+fhir" if dstu2 else "application/fhir+json"],
        "rest": [
            {
                "mode": "server",
                "resource": [_type(name, profile) for name in sorted(capabilities.TYPES[version])],
                "interaction": [{"code": "transaction"}, {"code": "history-system"}],
            }
        ],
    }


def _type(name: str, profile: Profile) -> dict[str, Any]:
    return {
        "type": name,
        "interaction": [{"code": code} for code in _INTERACTIONS],
        "versioning": "versioned-update",
        **dict.fromkeys(sorted(profile.declares), True),
        "searchParam": _SEARCH_PARAMS,
    }
