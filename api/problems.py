"""From errors to HTTP: no other file does this. Every error is RFC 9457 problem+json."""

import errno
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from uplift.api.plain_words import what_is_wrong
from uplift.errors import (
    BacklogFull,
    ConfigurationError,
    RequestError,
    SealError,
)
from uplift.ledger.database import CommitUnknown
from uplift.problem_types import ProblemType

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
        self,
        kind: ProblemType,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(kind.title)
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = more

    def members(self) -> dict[str, Any]:
        """The members of the JSON."""
        return {
            "type": self.kind.uri,
            "code": self.kind.code,
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
            **self.more,
        }

    def response(self) -> JSONResponse:
        """The problem as an HTTP response."""
        return JSONResponse(self.members(), self.kind.status, self.headers, media_type=PROBLEM_TYPE)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for the problems that a route can answer."""
    return {
        status: {
            "description": f"{HTTPStatus(status).phrase}. `code` says why.",
            "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


def try_later(kind: ProblemType, detail: str, **headers: str) -> Problem:
    """503 for what may go soon, with Retry-After and further headers."""
    return Problem(kind, detail, headers={"Retry-After": str(_RETRY_SECONDS), **headers})


def invalid_request(errors: list[dict[str, str]]) -> Problem:
    """400 for parameters or fields that are wrong: `where` each is, and `what` is wrong."""
    return Problem(ProblemType.INVALID_REQUEST, "Change what `errors` lists.", errors=errors)


_FROM_THE_ROUTER = {
    404: ProblemType.NO_SUCH_ADDRESS,
    405: ProblemType.METHOD_NOT_ALLOWED,
}


def problem_of(error: Exception, method: str) -> Problem:
    """The problem that answers a request of this method after this error."""
    match error:
        case Problem():
            return error
        case RequestError():
            headers = {}
            if error.problem.status in (429, 503):
                seconds = max(1, round(error.retry_after or _RETRY_SECONDS))
                headers["Retry-After"] = str(seconds)
            detail = (
                f"{error} {_what_now(method)}" if isinstance(error, BacklogFull) else str(error)
            )
            return Problem(error.problem, detail, headers=headers)
        case RequestValidationError():
            # Where and what, but never the input: it can be a name or a token.
            errors = [
                {"where": ".".join(map(str, each["loc"])), "what": what_is_wrong(each)}
                for each in error.errors()
            ]
            return invalid_request(errors)
        case HTTPException():
            kind = _FROM_THE_ROUTER.get(error.status_code, ProblemType.INVALID_REQUEST)
            return Problem(kind, str(error.detail), headers=error.headers or {})
        case ClientDisconnect():
            # Nobody reads this answer, and it is not an error of the API.
            return Problem(
                ProblemType.BODY_INCOMPLETE, "The connection ended before the whole body arrived."
            )
        case CommitUnknown() if method == "POST":
            _log.error("commit_unknown", error=type(error).__name__)
            return try_later(
                ProblemType.COMMIT_UNKNOWN,
                f"The database did not say whether the request was accepted. {_SAME_AGAIN}",
            )
        case DBAPIError() | PoolTimeout() | ConfigurationError() | SealError() if not _is_ours(
            error
        ):
            return _unavailable(error, method)
        case OSError(errno=errno.EMFILE | errno.ENFILE):
            _log.error("no_file_descriptor")
            return try_later(
                ProblemType.BUSY, f"The API can open no connection now. {_what_now(method)}"
            )
        case _:
            _log.error("request_failed", error=type(error).__name__)
            return Problem(
                ProblemType.INTERNAL_ERROR,
                "The API failed. Its logs name the error under the X-Request-ID of this answer."
                f" {_what_now(method)}",
            )


# SQLSTATE foreign_key_violation (PostgreSQL, appendix A).
_FOREIGN_KEY_VIOLATION = "23503"

_SAME_AGAIN = (
    "Send it again later with the same Idempotency-Key, or with the same content: what was accepted"
    " is not accepted twice."
)


def cut_off(method: str) -> Problem:
    """The problem that answers a request of this method that a stop has cut off."""
    if method == "POST":
        return try_later(
            ProblemType.COMMIT_UNKNOWN,
            f"The API stopped before it knew whether the request was accepted. {_SAME_AGAIN}",
        )
    return try_later(ProblemType.STOPPING, "The API stopped before it could answer. Ask again.")


def _is_ours(error: Exception) -> bool:
    """Whether the database answered as it should, so what was asked of it is wrong.

    Not if what the request wrote or found just now is there no more: then a standby without the
    last commits was promoted meanwhile. No content of a request leads there.
    """
    if isinstance(error, IntegrityError):
        return getattr(error.orig, "sqlstate", None) != _FOREIGN_KEY_VIOLATION
    return isinstance(error, DataError)


def _unavailable(error: Exception, method: str) -> Problem:
    keys = isinstance(error, ConfigurationError | SealError)
    _log.error("keys_unfit" if keys else "database_unavailable", error=type(error).__name__)
    kind = ProblemType.KEYS_UNFIT if keys else ProblemType.DATABASE_UNAVAILABLE
    why = "The master keys do not fit the database." if keys else "The API cannot use its database."
    return try_later(kind, f"{why} {_what_now(method)}")


def _what_now(method: str) -> str:
    """What the caller should know and do. Only a POST asks the API to accept something."""
    match method:
        case "GET" | "HEAD":
            return "Accepted uploads are safe. Ask again later."
        case "POST":
            return "Nothing was accepted. Send the request again later."
        case _:
            return "Send the request again later. It is safe to repeat."
