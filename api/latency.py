"""How long requests take, by route."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uplift.metrics import of_requests

_METHODS = frozenset({"GET", "POST", "PUT", "DELETE"})


class Latency:
    """Measures each request until the end of its answer.

    Its body arrives meanwhile, and a long poll waits: their time is in it. A HEAD counts as a GET.
    An address without a route counts as `none`, and a method that no route has as `other`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            if status:  # else the caller went away
                of_requests(
                    getattr(scope.get("route"), "path_format", "none"),
                    scope["method"] if scope["method"] in _METHODS else "other",
                    status // 100,
                ).observe(time.perf_counter() - began)
