"""Turns every error of the app into a problem, also those that the router and Starlette raise."""

import asyncio

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uplift.api.operation_outcomes import answer
from uplift.api.problems import Problem, cut_off, problem_of
from uplift.errors import UpliftError
from uplift.problem_types import ProblemType

_HANDLED = (
    Problem,
    UpliftError,
    RequestValidationError,
    HTTPException,
    ClientDisconnect,
    DBAPIError,
    PoolTimeout,
)

_FEW_DIGITS = 6  # of a Content-Length, so less than a megabyte


def install(app: FastAPI) -> None:
    """Answer every error of the app with a problem."""
    for kind in _HANDLED:
        app.add_exception_handler(kind, _problem)
    # These come from the router itself. Routes raise Problems.
    for status in (404, 405):
        app.add_exception_handler(status, _unrouted)
    app.add_middleware(_LastResort)


async def _problem(request: Request, error: Exception) -> JSONResponse:
    response = answer(problem_of(error, request.method), request)
    length = request.headers.get("content-length", "0")
    if "transfer-encoding" in request.headers or len(length) > _FEW_DIGITS:
        # Otherwise the server would read the rest of a large body, only to drop it.
        response.headers["Connection"] = "close"
    return response


async def _unrouted(request: Request, _: Exception) -> JSONResponse:
    allowed = _allowed_methods(request)
    if not allowed:
        problem = Problem(
            ProblemType.NO_SUCH_ADDRESS,
            "There is no such address. /openapi.json lists all addresses.",
        )
    else:
        methods = ", ".join(allowed)
        problem = Problem(
            ProblemType.METHOD_NOT_ALLOWED,
            f"This address accepts {methods}.",
            headers={"Allow": methods},
        )
    return answer(problem, request)


def _allowed_methods(request: Request) -> list[str]:
    """All methods of the address (RFC 9110, 10.2.1). The router knows only those of its first
    route."""
    return [
        method
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        if any(
            route.matches({**request.scope, "method": "GET" if method == "HEAD" else method})[0]
            is Match.FULL
            for route in request.app.routes
        )
    ]


class _LastResort:
    """Answers unexpected errors. Starlette would print a traceback, and the text of an error can
    quote the request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def note_start(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, note_start)
        except Exception as error:
            if scope["type"] != "http" or started:
                raise
            problem = problem_of(error, scope["method"])
            await answer(problem, Request(scope))(scope, receive, send)
        except asyncio.CancelledError:
            # uvicorn cancels what has not ended when it must stop, and would answer 500.
            if scope["type"] != "http" or started or not scope["app"].state.stopping:
                raise
            await answer(cut_off(scope["method"]), Request(scope))(scope, receive, send)
