"""The OpenAPI description of the API, with problems in place of FastAPI's validation errors."""

from copy import deepcopy
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from uplift.api.openapi_generators import (
    document_headers,
    leave_out_null,
    name_bodies,
    operations,
    say_who_may_ask,
    shorten_schemas,
)
from uplift.api.reading_openapi import OPERATIONS, SCHEMAS
from uplift.problem_types import ProblemType

DESCRIPTION = """
Accepts FHIR resources of a person from a device and delivers them to the person's destination: an
account at 1upHealth, or a FHIR server. **202 means durable**: the upload is committed. Every
accepted upload ends in exactly one final status, which the API shows.
"""
LICENSE = {"name": "Apache 2.0", "identifier": "Apache-2.0"}
TAGS = [
    {"name": "uploads", "description": "Submit a FHIR resource, and see what becomes of it."},
    {"name": "batches", "description": "Submit many resources of one person in one request."},
    {"name": "users", "description": "People, their grants at 1upHealth, and their devices."},
    {"name": "pauses", "description": "Stop sending for a while."},
    {"name": "reading back", "description": "What the destination has of a person, over FHIR."},
    {"name": "health", "description": "Whether a process of the API can work."},
]

_PROBLEM_SCHEMA = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457 problem details.",
    "required": ["type", "code", "title", "status", "detail"],
    "properties": {
        "type": {
            "type": "string",
            "format": "uri-reference",
            "description": "The page about this kind of problem.",
            "examples": [ProblemType.NO_SUCH_UPLOAD.uri],
        },
        "code": {
            "type": "string",
            "description": "The kind of problem, for programs. New codes may come.",
            "examples": [ProblemType.NO_SUCH_UPLOAD.code],
        },
        "title": {
            "type": "string",
            "description": "The kind of problem, in words. It follows from the code.",
            "examples": [ProblemType.NO_SUCH_UPLOAD.title],
        },
        "status": {
            "type": "integer",
            "description": "The HTTP status.",
            "examples": [404],
        },
        "detail": {
            "type": "string",
            "description": "What was wrong, and what to do.",
            "examples": ["There is no such upload."],
        },
        "errors": {
            "type": "array",
            "description": "The wrong fields of the request. Only with status 400.",
            "items": {
                "type": "object",
                "required": ["where", "what"],
                "properties": {
                    "where": {
                        "type": "string",
                        "description": "The field, such as `body.appUserId`.",
                    },
                    "what": {"type": "string", "description": "What is wrong with it."},
                },
            },
        },
    },
}


def describe(app: FastAPI) -> dict[str, Any]:
    """The description of the app. It is made once and then kept."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            license_info=app.license_info,
            tags=app.openapi_tags,
            servers=app.servers,
        )
        for operation in operations(schema):
            if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                del operation["responses"]["422"]
        schema["paths"].update({path: {"get": each} for path, each in OPERATIONS.items()})
        schemas = schema["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        schemas["Problem"] = _PROBLEM_SCHEMA
        schemas.update(SCHEMAS)
        # The parts may be shared with other apps, so they are not changed but copied.
        schema = deepcopy(schema)
        leave_out_null(schema)
        name_bodies(schema)
        shorten_schemas(schema)
        say_who_may_ask(schema)
        document_headers(schema)
        app.openapi_schema = schema
    return app.openapi_schema
