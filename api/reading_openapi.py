"""What OpenAPI says about reading back. FHIR has many more search parameters than those named."""

from typing import Any

from uplift.api.problems import documented

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

_DESCRIPTION = """Asks the user's destination, 1upHealth with the user's own token, and passes its
response on. {what}

This needs an API key with the scope `read_back`. Each read is in the audit trail.
"""
_USER = "The backend's name for the person (`appUserId`)."
_PATH: dict[str, dict[str, Any]] = {
    "user": {
        "type": "string",
        "description": _USER,
        "minLength": 1,
        "maxLength": 256,
        "pattern": r"^[^\x00-\x1f\x7f]+$",
    },
    "version": {
        "type": "string",
        "description": "The FHIR version: DSTU2, STU3 or R4.",
        "examples": ["R4"],
    },
    "type": {
        "type": "string",
        "description": "The resource type, such as `Observation`.",
        "examples": ["Observation"],
    },
    "id": {
        "type": "string",
        "description": "The resource's id at the destination.",
        "examples": ["obs-1"],
    },
    "history": {
        "type": "string",
        "description": "The version of the resource at the destination.",
        "examples": ["1"],
    },
}
_SEARCH: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (
        "_count",
        "Maximum number of resources on the page. Default: 10.",
        {"type": "integer", "minimum": 1, "maximum": 100},
    ),
    ("_skip", "Number of resources before the page.", {"type": "integer", "minimum": 0}),
    ("_id", "Ids, separated by commas.", {"type": "string"}),
    ("identifier", "`system|value`, or `value`.", {"type": "string"}),
)
_PAGED = _SEARCH[:2]

_REFERENCES = {
    name: {"$ref": f"#/components/schemas/{name}"} for name in ("FhirResource", "FhirPage")
}
SCHEMAS: dict[str, dict[str, Any]] = {
    name: {
        "title": name,
        "description": description,
        "type": "object",
        "additionalProperties": True,
        "examples": [example],
    }
    for name, description, example in (
        ("FhirResource", "A FHIR resource, with the bytes that were answered.", _OBSERVATION),
        (
            "FhirPage",
            "A FHIR Bundle: one page of a search. Resources are in `entry`, addresses in `link`.",
            _PAGE,
        ),
    )
}
"""What reading back answers with. The destination's resources can have every element of FHIR."""


def _operation(
    name: str, path: str, summary: str, what: str, schema: str, query: tuple[Any, ...] = ()
) -> dict[str, Any]:
    in_path = [
        {
            "name": each,
            "in": "path",
            "required": True,
            "description": _PATH[each]["description"],
            "schema": {key: value for key, value in _PATH[each].items() if key != "description"},
        }
        for each in _PATH
        if f"{{{each}}}" in path
    ]
    in_query = [
        {"name": each, "in": "query", "required": False, "description": told, "schema": described}
        for each, told, described in query
    ]
    return {
        "tags": ["reading back"],
        "operationId": name,
        "summary": summary,
        "description": _DESCRIPTION.format(what=what),
        "security": [{"HTTPBearer": []}],
        "parameters": in_path + in_query,
        "responses": {
            "200": {
                "description": "The destination's response",
                "content": {"application/fhir+json": {"schema": _REFERENCES[schema]}},
            },
            **{
                str(status): response
                for status, response in documented(400, 401, 403, 404, 409, 502, 503, 504).items()
            },
        },
    }


_BASE = "/v1/users/{user}/fhir/{version}"
_OF_A_SEARCH = (
    "Every search parameter of FHIR is passed on. The links of a page lead back here: follow `next`"
    " until there is none."
)
OPERATIONS: dict[str, dict[str, Any]] = {
    path: _operation(name, path, *described)
    for path, name, *described in (
        (
            f"{_BASE}/{{type}}",
            "search_fhir",
            "Search at the destination",
            _OF_A_SEARCH,
            "FhirPage",
            _SEARCH,
        ),
        (
            f"{_BASE}/{{type}}/{{id}}",
            "read_fhir",
            "Read a resource back",
            "The resource has the bytes that the destination sent.",
            "FhirResource",
        ),
        (
            f"{_BASE}/{{type}}/{{id}}/_history/{{history}}",
            "read_fhir_version",
            "Read one version of a resource back",
            "The resource has the bytes that the destination sent.",
            "FhirResource",
        ),
        (
            f"{_BASE}/Patient/{{id}}/$everything",
            "read_fhir_everything",
            "Read everything of the user back",
            "All records of the user in this FHIR version. " + _OF_A_SEARCH,
            "FhirPage",
            _PAGED,
        ),
    )
}
"""The route of `reading`, one path for each FHIR interaction."""

CAPABILITIES_READ: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The CapabilityStatement",
        "content": {
            "application/fhir+json": {
                "schema": _REFERENCES["FhirResource"],
                "examples": {
                    "statement": {"summary": "The first elements", "value": _STATEMENT},
                },
            }
        },
    }
}
