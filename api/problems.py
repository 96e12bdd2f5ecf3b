"""From errors to HTTP: no other file does this. Every error is RFC 9457 problem+json."""

from collections.abc import Mapping
from typing import Any

import structlog
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from uplift.api.problem_titles import title_of
from uplift.errors import (
    BacklogFull,
    ConfigurationError,
    Conflict,
    InvalidRead,
    KeyReused,
    NotFound,
    SealError,
    UnreadableUpload,
    UnusableResponse,
    UpliftError,
    UpstreamTimedOut,
    UpstreamUnavailable,
)

_log = structlog.get_logger(__name__)

_RETRY_SECONDS = 5

PROBLEM_TYPE = "application/problem+json"
"""The media type of problems (RFC 9457)."""


class Problem(Exception):
    """An answer that is not a success.

    `detail` says what was wrong and what to do. It never quotes a body. `more` are further members
    of the JSON.
    """

    def __init__(
        self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(title_of(status))
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = more

    def members(self) -> dict[str, Any]:
        """The members of the JSON."""
        return {
            "type": "about:blank",
            "title": title_of(self.status),
            "status": self.status,
            "detail": self.detail,
            **self.more,
        }

    def response(self) -> JSONResponse:
        """The problem as an HTTP response."""
        return JSONResponse(self.members(), self.status, self.headers, media_type=PROBLEM_TYPE)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for the problems that a route can answer."""
    return {
        status: {
            "description": title_of(status),
            "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


def try_later(detail: str, **headers: str) -> Problem:
    """503 for what may go soon, with Retry-After and further headers."""
    return Problem(503, detail, headers={"Retry-After": str(_RETRY_SECONDS), **headers})


def not_found(detail: str) -> Problem:
    """404, the same for what does not exist and for what the caller may not see."""
    return Problem(404, detail)


# The messages of these errors say what to do.
_STATUSES: dict[type, int] = {
    UnreadableUpload: 400,
    InvalidRead: 400,
    NotFound: 404,
    Conflict: 409,
    KeyReused: 422,
    UnusableResponse: 502,
    UpstreamTimedOut: 504,
}


def _status(error: UpliftError) -> int | None:
    return next((_STATUSES[kind] for kind in type(error).__mro__ if kind in _STATUSES), None)


def problem_of(error: Exception, method: str) -> Problem:
    """The problem that answers a request of this method after this error."""
    match error:
        case Problem():
            return error
        case UpliftError() if status := _status(error):
            return Problem(status, str(error))
        case UpstreamUnavailable():
            seconds = max(1, round(error.retry_after or _RETRY_SECONDS))
            return Problem(503, str(error), headers={"Retry-After": str(seconds)})
        case BacklogFull():
            return Problem(
                503,
                f"{error} {_what_now(method)}",
                headers={"Retry-After": str(round(error.retry_after))},
            )
        case RequestValidationError():
            # Where and what, but never the input: it can be a name or a token.
            errors = [
                # Pydantic puts its own words before ours.
                {
                    "where": ".".join(map(str, each["loc"])),
                    "what": each["msg"].removeprefix("Value error, "),
                }
                for each in error.errors()
            ]
            return Problem(400, "Change what `errors` lists.", errors=errors)
        case HTTPException():
            return Problem(error.status_code, str(error.detail), headers=error.headers or {})
        case ClientDisconnect():
            # Nobody reads this answer, and it is not an error of the API.
            return Problem(400, "The connection ended before the whole body arrived.")
        case DBAPIError() | PoolTimeout() | ConfigurationError() | SealError() if not isinstance(
            error, DataError | IntegrityError
        ):
            return _unavailable(error, method)
        case _:
            _log.error("request_failed", error=type(error).__name__)
            return Problem(
                500,
                "The API failed. Its logs name the error under the X-Request-ID of this answer."
                f" {_what_now(method)}",
            )


def _unavailable(error: Exception, method: str) -> Problem:
    keys = isinstance(error, ConfigurationError | SealError)
    _log.error("keys_unfit" if keys else "database_unavailable", error=type(error).__name__)
    why = "The master keys do not fit the database." if keys else "The API cannot use its database."
    return try_later(f"{why} {_what_now(method)}")


def _what_now(method: str) -> str:
    """What the caller should know and do. Only a POST asks the API to accept something."""
    match method:
        case "GET" | "HEAD":
            return "Accepted uploads are safe. Ask again later."
        case "POST":
            return "Nothing was accepted. Send the request again later."
        case _:
            return "Send the request again later. It is safe to repeat."
