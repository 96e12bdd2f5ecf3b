"""A span for each request, if the process is traced."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uplift.traces import span


class TracedRequests:
    """Begins a trace with each request, or goes on with the caller's (`traceparent`)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        parent = next((value for name, value in scope["headers"] if name == b"traceparent"), b"")
        with span("request", parent=parent.decode("latin-1"), method=scope["method"]) as noted:

            async def with_status(message: Message) -> None:
                if message["type"] == "http.response.start":
                    # The template: an address itself has people's names.
                    route = getattr(scope.get("route"), "path_format", "none")
                    noted.note(status=message["status"], route=route)
                await send(message)

            await self._app(scope, receive, with_status)
