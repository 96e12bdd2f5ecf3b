"""What OpenAPI says about submitting an upload. The route reads its query and body by hand, because
FastAPI's own way is too slow for it."""

from typing import Any

from uplift.api.idempotency import KEY_PATTERN
from uplift.api.rate_limits import RATE_LIMIT_HEADERS
from uplift.users.names import PRINTABLE

_RESOURCE_EXAMPLE = {
    "resourceType": "Condition",
    "id": "A1-77",
    "code": {"text": "Asthma"},
    "subject": {"reference": "Patient/1"},
}
_RESOURCE_SCHEMA: dict[str, Any] = {
    "title": "Resource",
    "description": "A FHIR resource, with a `resourceType` of letters. A worker validates its"
    " content later.",
    "type": "object",
    # Without `properties`, because a Java class that has some and is a map sends either or.
    "additionalProperties": True,
    "examples": [_RESOURCE_EXAMPLE],
}
_ENVELOPE_EXAMPLE = {
    "user": "alice",
    "fhirVersion": "R4",
    "source": "org.example.hospital",
    "recordId": "A1-77",
    "sourceUrl": "https://fhir.example.org/r4/Condition/A1-77",
    "receivedAt": "2026-11-23T10:00:00Z",
    "resource": _RESOURCE_EXAMPLE,
}

_USER = "The backend's name for the person (`appUserId`)."
_FHIR_VERSION = "DSTU2, STU3, R4, 1.0.2, 3.0.1 or 4.0.1."
VERSION_PATTERN = r"^(DSTU2|STU3|R4|1\.0(\.[0-9]{1,3})?|3\.0(\.[0-9]{1,3})?|4\.0(\.[0-9]{1,3})?)$"
_SOURCE = "Where the record comes from."
_RECORD_ID = "The record's id at its source."
_SOURCE_URL = "The address of the record at its FHIR server. Never in a query."
_RECEIVED_AT = "When the phone got the record: a time of ISO 8601, with its zone."
_FORCE = "An older version takes the place of a newer one."

_LABEL_SCHEMA = {"type": ["string", "null"], "maxLength": 1024}
_ENVELOPE_SCHEMA: dict[str, Any] = {
    "title": "Envelope",
    "description": "A resource together with the labels that otherwise are in the query.",
    "type": "object",
    "required": ["resource"],
    "properties": {
        "user": {
            "type": ["string", "null"],
            "description": _USER,
            "minLength": 1,
            "maxLength": 256,
        },
        "fhirVersion": {
            "type": ["string", "null"],
            "description": _FHIR_VERSION,
            "pattern": VERSION_PATTERN,
        },
        "source": {**_LABEL_SCHEMA, "description": _SOURCE},
        "recordId": {**_LABEL_SCHEMA, "description": _RECORD_ID},
        "sourceUrl": {"type": ["string", "null"], "description": _SOURCE_URL, "maxLength": 4096},
        "receivedAt": {
            "type": ["string", "null"],
            "description": _RECEIVED_AT,
            "format": "date-time",
        },
        "force": {"type": ["boolean", "null"], "description": _FORCE},
        "resource": _RESOURCE_SCHEMA,
    },
    "examples": [_ENVELOPE_EXAMPLE],
}

_LABELS: dict[str, tuple[str, dict[str, Any]]] = {
    "user": (_USER, {"minLength": 1, "maxLength": 256, "pattern": PRINTABLE}),
    "fhirVersion": (_FHIR_VERSION, {"pattern": VERSION_PATTERN}),
    "source": (_SOURCE, {"maxLength": 1024}),
    "recordId": (_RECORD_ID, {"maxLength": 1024}),
    "receivedAt": (_RECEIVED_AT, {"format": "date-time"}),
    "force": (_FORCE, {"enum": ["true", "false"]}),
}

SUBMIT: dict[str, Any] = {
    "parameters": [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": description,
            "schema": {"type": "string", **limits},
        }
        for name, (description, limits) in _LABELS.items()
    ]
    + [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "Your own name for this request. The same request with the same key gets"
            " the same answer for 24 hours.",
            "schema": {
                "type": "string",
                "minLength": 1,
                "maxLength": 255,
                "pattern": KEY_PATTERN,
            },
            "example": '"8e03978e-40d5-43e8-bc93-6894a57f9324"',
        }
    ],
    "requestBody": {
        "required": True,
        "description": "A FHIR resource, or an envelope around one. As `application/json`, both are"
        " accepted; the labels of a bare resource are in the query.",
        # One form for each type: a generated client that has to choose among forms drops elements.
        "content": {
            "application/json": {
                "schema": _ENVELOPE_SCHEMA,
                "examples": {"envelope": {"summary": "An envelope", "value": _ENVELOPE_EXAMPLE}},
            },
            "application/fhir+json": {
                "schema": _RESOURCE_SCHEMA,
                "examples": {
                    "resource": {"summary": "A bare resource", "value": _RESOURCE_EXAMPLE}
                },
            },
        },
    },
}
"""The parameters and the body of POST /v1/uploads."""

ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "The upload is committed",
        "headers": {
            "Location": {
                "schema": {"type": "string"},
                "description": "The address of the upload's status.",
            },
            "Idempotent-Replayed": {
                "schema": {"type": "string", "enum": ["true"]},
                "description": "The request came before with the same Idempotency-Key, and this is"
                " its answer. Absent otherwise.",
            },
            **RATE_LIMIT_HEADERS,
        },
    }
}

IF_NONE_MATCH: dict[str, Any] = {
    "parameters": [
        {
            "name": "If-None-Match",
            "in": "header",
            "required": False,
            "description": "The ETag of the status that you know, or several with commas between.",
            "schema": {"type": "string"},
            "example": '"3"',
        }
    ]
}
"""A header of GET /v1/uploads/{id}."""

_STATUS_HEADERS = {
    "ETag": {
        "schema": {"type": "string"},
        "description": "The revision of the status. Send it as If-None-Match.",
    },
    "Retry-After": {
        "schema": {"type": "integer"},
        "description": "Seconds until you should ask again. Absent if the status is final.",
    },
}
STATUS_READ: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The status",
        "headers": _STATUS_HEADERS,
    },
    304: {
        "description": "The status is still the one that If-None-Match names",
        "headers": _STATUS_HEADERS,
    },
}
