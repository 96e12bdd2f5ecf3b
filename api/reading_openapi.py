"""What OpenAPI says about reading back. FHIR has many more search parameters than those named."""

from typing import Any

_OBSERVATION = {
    "resourceType": "Observation",
    "id": "obs-1",
    "meta": {"versionId": "1"},
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
}
_PAGE = {
    "resourceType": "Bundle",
    "type": "searchset",
    "total": 12,
    "link": [
        {
            "relation": "self",
            "url": "https://uplift.example.com/v1/users/alice/fhir/R4/Observation?_count=1",
        },
        {
            "relation": "next",
            "url": "https://uplift.example.com/v1/users/alice/fhir/R4/Observation?_count=1&_skip=1",
        },
    ],
    "entry": [{"resource": _OBSERVATION, "search": {"mode": "match"}}],
}

_STATEMENT = {
    "resourceType": "CapabilityStatement",
    "status": "active",
    "kind": "instance",
    "fhirVersion": "4.0.1",
    "format": ["application/fhir+json"],
}

_RESOURCE: dict[str, Any] = {
    "type": "object",
    "required": ["resourceType"],
    "properties": {"resourceType": {"type": "string"}},
}

SEARCH: dict[str, Any] = {
    "parameters": [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": description,
            "schema": schema,
        }
        for name, description, schema in (
            (
                "_count",
                "Of a search: maximum number of resources on the page. Default: 10.",
                {"type": "integer", "minimum": 1, "maximum": 100},
            ),
            (
                "_skip",
                "Of a search: number of resources before the page.",
                {"type": "integer", "minimum": 0},
            ),
            ("_id", "Of a search: ids, separated by commas.", {"type": "string"}),
            ("identifier", "Of a search: `system|value`, or `value`.", {"type": "string"}),
        )
    ]
}
"""The parameters of a search."""

RESOURCE_READ: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A resource as 1upHealth has it, or one page of a search",
        "content": {
            "application/fhir+json": {
                "schema": _RESOURCE,
                "examples": {
                    "resource": {"summary": "A resource", "value": _OBSERVATION},
                    "page": {"summary": "One page of a search", "value": _PAGE},
                },
            }
        },
    }
}

CAPABILITIES_READ: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The CapabilityStatement",
        "content": {
            "application/fhir+json": {
                "schema": {**_RESOURCE, "additionalProperties": True},
                "examples": {
                    "statement": {"summary": "The first elements", "value": _STATEMENT},
                },
            }
        },
    }
}
