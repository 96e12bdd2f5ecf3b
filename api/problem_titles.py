"""The title of each problem: it follows from the HTTP status alone (RFC 9457, 4.2.1)."""

TITLES = {
    400: "The request is malformed",
    401: "No valid credential",
    403: "Not allowed with this credential",
    404: "Not found",
    405: "Method not allowed",
    408: "The request did not arrive in time",
    409: "Conflict",
    413: "The body is too large",
    415: "Content type not accepted",
    417: "Expectation not known",
    422: "Idempotency-Key already used",
    429: "Too many requests",
    431: "The head of the request is too large",
    500: "Internal error",
    501: "Not implemented",
    502: "No usable response from 1upHealth",
    503: "Not available now",
    504: "1upHealth did not respond in time",
    505: "HTTP version not supported",
}


def title_of(status: int) -> str:
    """The title of a problem with this status."""
    return TITLES.get(status, "The request cannot be served")
