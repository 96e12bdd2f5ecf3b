"""From errors to HTTP: the only place that does. RFC 9457 problem+json, always."""

from collections.abc import Mapping
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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


class Problem(Exception):
    """An answer that is not a success. `detail` says what to do; it never quotes a body."""

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = more

    def response(self) -> JSONResponse:
        """The problem as an HTTP response."""
        return JSONResponse(
            {
                "type": "about:blank",
                "title": self.title,
                "status": self.status,
                "detail": self.detail,
                **self.more,
            },
            self.status,
            self.headers,
            media_type="application/problem+json",
        )


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for the problems that a route may answer."""
    return {
        status: {
            "description": TITLES[status],
            "content": {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            },
        }
        for status in statuses
    }


TITLES = {
    400: "The request is malformed",
    401: "No valid credential",
    403: "This credential may not do that",
    404: "Not found",
    405: "Method not allowed",
    408: "The body did not arrive",
    409: "Conflict",
    413: "The body is too large",
    415: "The content type is not accepted",
    422: "The Idempotency-Key is used already",
    429: "Too many requests",
    500: "Something went wrong here",
    502: "1upHealth gave no usable answer",
    503: "Not available now",
    504: "1upHealth did not answer in time",
}

PROBLEM_SCHEMA = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457 problem details.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "examples": ["about:blank"]},
        "title": {"type": "string", "examples": ["Not found"]},
        "status": {"type": "integer", "examples": [404]},
        "detail": {"type": "string", "examples": ["There is no such upload."]},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["where", "what"],
                "properties": {"where": {"type": "string"}, "what": {"type": "string"}},
            },
        },
    },
}


def not_found(detail: str) -> Problem:
    """404, for what is not there and for what is not the caller's to see alike."""
    return Problem(404, TITLES[404], detail)


def install(app: FastAPI) -> None:
    """Make every error of the app a problem."""

    async def problem(_: Request, error: Exception) -> JSONResponse:
        return problem_of(error).response()

    async def unrouted(request: Request, _: Exception) -> JSONResponse:
        allowed = _allowed_methods(request)
        if not allowed:
            return not_found("There is no such address. /openapi.json lists them.").response()
        return Problem(
            405,
            TITLES[405],
            f"This address takes {', '.join(allowed)}.",
            headers={"Allow": ", ".join(allowed)},
        ).response()

    for kind in (
        Problem,
        UnreadableUpload,
        InvalidRead,
        NotFound,
        Conflict,
        KeyReused,
        BacklogFull,
        UnusableResponse,
        UpstreamTimedOut,
        UpstreamUnavailable,
        RequestValidationError,
        HTTPException,
        ClientDisconnect,
        ConfigurationError,
        SealError,
        DBAPIError,
        PoolTimeout,
    ):
        app.add_exception_handler(kind, problem)
    # What the router says itself, by status: Uplift's own answers are Problems.
    for status in (404, 405):
        app.add_exception_handler(status, unrouted)
    app.add_middleware(_LastResort)


def _allowed_methods(request: Request) -> list[str]:
    """The methods of the address; the router knows only those of the first route (RFC 9110,
    10.2.1)."""
    return [
        method
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


# Errors whose own words say what is to be done.
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


def problem_of(error: Exception) -> Problem:
    """The problem that an error is to the caller."""
    match error:
        case Problem():
            return error
        case UpliftError() if status := _status(error):
            return Problem(status, TITLES[status], str(error))
        case UpstreamUnavailable():
            seconds = max(1, round(error.retry_after or _RETRY_SECONDS))
            return Problem(503, TITLES[503], str(error), headers={"Retry-After": str(seconds)})
        case BacklogFull():
            return Problem(
                503,
                TITLES[503],
                f"{error} Nothing was accepted; send again later.",
                headers={"Retry-After": str(round(error.retry_after))},
            )
        case RequestValidationError():
            # Where and what, but not the input: it may be a name or a token.
            errors = [
                # Before our own words Pydantic puts its own.
                {
                    "where": ".".join(map(str, each["loc"])),
                    "what": each["msg"].removeprefix("Value error, "),
                }
                for each in error.errors()
            ]
            return Problem(400, TITLES[400], "See errors for what to change.", errors=errors)
        case HTTPException():
            title = TITLES.get(error.status_code, "The request cannot be served")
            return Problem(error.status_code, title, str(error.detail), headers=error.headers or {})
        case ClientDisconnect():
            # Nobody reads it, and it is no failure of ours.
            return Problem(400, TITLES[400], "The request ended before its body did.")
        case DBAPIError() | PoolTimeout() | ConfigurationError() | SealError() if not isinstance(
            error, DataError | IntegrityError
        ):
            return _unusable(error)
        case _:
            _log.error("request_failed", error=type(error).__name__)
            return Problem(
                500, TITLES[500], "Nothing was accepted. The operators see this in the logs."
            )


def _unusable(error: Exception) -> Problem:
    keys = isinstance(error, ConfigurationError | SealError)
    _log.error("keys_unfit" if keys else "database_unavailable", error=type(error).__name__)
    why = "The master keys do not fit the ledger." if keys else "The ledger does not answer."
    return Problem(
        503,
        TITLES[503],
        f"{why} Nothing was accepted; send again later.",
        headers={"Retry-After": str(_RETRY_SECONDS)},
    )


class _LastResort:
    """Answers what nothing else did. Starlette's own way prints a traceback, and text of an error
    may quote the request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception as error:
            if scope["type"] != "http" or started:
                raise
            await problem_of(error).response()(scope, receive, send)
