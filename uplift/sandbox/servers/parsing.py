"""What HAPI's parser takes: FHIR's JSON with known types, dates and codes of enumerated elements.

It does not ask for required elements and drops what it does not know. In DSTU2 it takes any code.
Of the enumerated elements only two are simulated: `gender`, and the `status` of an Observation.
"""

import re
from typing import Any

import orjson

from uplift.sandbox import capabilities
from uplift.sandbox.servers.outcomes import Refusal

_DATE = re.compile(
    r"\d{4}(-\d\d(-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?)?)?",
)
_GENDERS = frozenset({"male", "female", "other", "unknown"})
_OBSERVATION_STATUS = frozenset(
    {
        "registered",
        "preliminary",
        "final",
        "amended",
        "corrected",
        "cancelled",
        "entered-in-error",
        "unknown",
    }
)


def parse(body: bytes, version: str, expected: str) -> dict[str, Any]:
    """The resource in a body. Raises Refusal (400) for what the parser does not take."""
    try:
        resource = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise _unreadable("HAPI-1861: Failed to parse JSON encoded FHIR content") from None
    if not isinstance(resource, dict) or not isinstance(resource.get("resourceType"), str):
        raise _unreadable(
            "HAPI-1838: Invalid JSON content detected, missing required element: 'resourceType'"
        )
    check_resource(resource, version)
    if resource["resourceType"] != expected:
        raise _unreadable(
            f'HAPI-1814: Incorrect resource type found, expected "{expected}" but found '
            f'"{resource["resourceType"]}"'
        )
    return resource


def check_resource(resource: dict[str, Any], version: str) -> None:
    """Raise Refusal (400) if the parser does not take it, or a resource inside it."""
    name = resource.get("resourceType")
    if not isinstance(name, str) or not capabilities.is_known(version, name):
        raise _unreadable(
            f'HAPI-1684: Unknown resource name "{name}" (this name is not known in FHIR version '
            f'"{version.upper()}")'
        )
    if version != "dstu2" and name == "Observation" and "status" in resource:
        _check_code(resource, "status", _OBSERVATION_STATUS, "ObservationStatus")
    _check_element(resource, version)


def _check_element(element: dict[str, Any], version: str) -> None:
    for name, value in element.items():
        if version != "dstu2" and name == "gender":
            _check_code(element, name, _GENDERS, "AdministrativeGender")
        elif _is_date(name) and isinstance(value, str) and not _DATE.fullmatch(value):
            raise _unreadable(
                f'HAPI-1821: [element="{name}"] Invalid attribute value "{value}": '
                f'Invalid date/time format: "{value}"'
            )
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, dict):
                if "resourceType" in child:
                    check_resource(child, version)
                else:
                    _check_element(child, version)


def _is_date(name: str) -> bool:
    return name.endswith(("DateTime", "Date")) or name in ("issued", "lastUpdated")


def _check_code(
    element: dict[str, Any], name: str, known: frozenset[str], enumeration: str
) -> None:
    if (code := element[name]) not in known:
        raise _unreadable(
            f'HAPI-1821: [element="{name}"] Invalid attribute value "{code}": '
            f"Unknown {enumeration} code '{code}'"
        )


def _unreadable(why: str) -> Refusal:
    return Refusal(
        400, f"HAPI-0450: Failed to parse request body as JSON resource. Error was: {why}"
    )
