"""The shapes of 1upHealth's responses. They are mixed, and so are these."""

from typing import Any

import orjson
from starlette.responses import Response

LOGIN_PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Sign in</body></html>"


def response(
    content: Any, status: int = 200, headers: dict[str, str] | None = None, *, fhir: bool = False
) -> Response:
    """JSON, as `application/fhir+json` when it is a resource."""
    return Response(
        orjson.dumps(content),
        status,
        headers,
        media_type="application/fhir+json" if fhir else "application/json",
    )


def message(status: int, text: str) -> Response:
    """A gateway's shape."""
    return response({"message": text}, status)


def oauth_error(error: str, description: str, status: int = 400) -> Response:
    """RFC 6749's shape, section 5.2."""
    return response({"error": error, "error_description": description}, status)


def operation_outcome(status: int, code: str, text: str) -> Response:
    """FHIR's shape, with the text where 1upHealth puts it: `issue[].details.text`."""
    issue = {"severity": "error", "code": code, "details": {"text": text}}
    return response({"resourceType": "OperationOutcome", "issue": [issue]}, status, fhir=True)


def not_successful(status: int, error: str) -> Response:
    """User management's shape."""
    return response({"success": False, "error": error}, status)


_GATEWAY = {
    401: "Unauthorized",
    403: "Forbidden",
    429: "Too Many Requests",
    503: "Service Unavailable",
    504: "Endpoint request timed out",
}


def for_status(status: int) -> Response:
    """The likeliest body for a status that a fault asks for."""
    if status in _GATEWAY:
        return message(status, _GATEWAY[status])
    if status >= 500:
        return oauth_error("server_error", "Internal server error", status)
    if status >= 400:
        return operation_outcome(status, "processing", f"Simulated refusal with status {status}")
    return Response(status_code=status)
