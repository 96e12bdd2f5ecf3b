"""A route that is found first, and called without FastAPI's dependencies.

FastAPI describes it, and would serve it as well. But to find it among the included routers, and to
solve what it depends on, takes longer than the rest of its HTTP.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

Serve = Callable[[Request], Awaitable[Response]]


class DirectRoute(BaseRoute):
    """Serves the requests of one route, whose address has no parameters, by `serve`."""

    def __init__(self, route: APIRoute, serve: Serve) -> None:
        # What a list of all routes shows.
        self.path, self.methods = route.path, frozenset(route.methods or ())
        # What else reads of a request's route.
        self._found: dict[str, Any] = {"route": route, "endpoint": route.endpoint}
        self._serve = serve

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See BaseRoute."""
        if (
            scope["type"] == "http"
            and scope["path"] == self.path
            and scope["method"] in self.methods
        ):
            return Match.FULL, self._found
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See BaseRoute. Errors are answered by the application, as those of all routes."""
        response = await self._serve(Request(scope, receive, send))
        await response(scope, receive, send)


def serve_directly(app: FastAPI, router: APIRouter, endpoint: Any, serve: Serve) -> None:
    """Let `serve` answer the requests of that endpoint, before any router is asked."""
    (route,) = (
        each for each in router.routes if isinstance(each, APIRoute) and each.endpoint is endpoint
    )
    app.router.routes.insert(0, DirectRoute(route, serve))
