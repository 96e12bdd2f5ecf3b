"""Reads a request's body, up to the cap and no further."""

from fastapi import Request

from api.problems import Problem

JSON_TYPES = ("application/json", "application/fhir+json", "application/json+fhir")


async def read_json_body(request: Request, most: int) -> bytes:
    """The body of a JSON request.

    Raises a Problem: 415 for another content type or a compressed body, 413 once more than `most`
    bytes are announced or arrive.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in JSON_TYPES:
        raise Problem(
            415,
            "The content type is not accepted",
            "Send application/fhir+json or application/json.",
            headers={"Accept": ", ".join(JSON_TYPES)},
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(
            415,
            "The content type is not accepted",
            "Send the body without a Content-Encoding.",
            headers={"Accept-Encoding": "identity"},
        )
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced) > most:
        raise _too_large(most)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise _too_large(most)
    return bytes(body)


def _too_large(most: int) -> Problem:
    return Problem(
        413,
        "The body is too large",
        f"At most {most} bytes are taken in one request (UPLIFT_MAX_BODY_BYTES).",
        # The rest of the body is not read; the connection cannot be used again.
        headers={"Connection": "close"},
    )
