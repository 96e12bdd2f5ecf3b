"""What OpenAPI says about submitting a batch."""

from typing import Any

import orjson

from uplift.api.batch_bodies import BUNDLE_TYPES, NDJSON_TYPES
from uplift.api.rate_limits import RATE_LIMIT_HEADERS

_RESOURCE = {"resourceType": "Condition", "id": "A1-77", "code": {"text": "Asthma"}}
_LINE = {
    "fhirVersion": "R4",
    "source": "org.example.hospital",
    "recordId": "A1-77",
    "resource": _RESOURCE,
}
_BUNDLE_SCHEMA: dict[str, Any] = {
    "title": "Bundle",
    "description": "A FHIR Bundle whose `type` is "
    f"{', '.join(BUNDLE_TYPES)}. The `resource` of each `entry` becomes an upload.",
    "type": "object",
    "additionalProperties": True,
}

SUBMIT_BATCH: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "NDJSON with an envelope or a bare resource on each line, or a FHIR Bundle.",
        "content": {
            # First, because some generators know one content type only, and send JSON.
            "application/fhir+json": {
                "schema": _BUNDLE_SCHEMA,
                "examples": {
                    "bundle": {
                        "summary": "A Bundle",
                        "value": {
                            "resourceType": "Bundle",
                            "type": "collection",
                            "entry": [{"resource": _RESOURCE}],
                        },
                    }
                },
            },
            NDJSON_TYPES[0]: {
                "schema": {"type": "string", "format": "binary"},
                "examples": {
                    "envelopes": {
                        "summary": "One envelope on each line",
                        "value": orjson.dumps(_LINE).decode() + "\n",
                    }
                },
            },
        },
    }
}
"""The body of POST /v1/batches."""

BATCH_ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "Every accepted line is committed",
        "headers": {
            "Location": {
                "schema": {"type": "string"},
                "description": "The address of the batch.",
            },
            **RATE_LIMIT_HEADERS,
        },
    }
}

BATCH_READ: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The batch",
        "headers": {
            "Retry-After": {
                "schema": {"type": "integer"},
                "description": "Seconds until you should ask again. Absent if the batch is"
                " settled.",
            }
        },
    }
}
