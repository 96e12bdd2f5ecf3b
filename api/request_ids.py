"""A name for each request: in every answer, and in every line that is logged on its way."""

import re
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from uplift.metrics import http_responses

_HEADER = b"x-request-id"

# What proxies make: a UUID, or as many hexadecimal digits. Nothing wider, since it is logged: a
# caller's mistake must not put a person's name there.
_REQUEST_ID = re.compile(rb"[0-9a-fA-F-]{16,64}")


class RequestIds:
    """Takes the X-Request-ID that a request comes with, or makes one, and answers with it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == _HEADER), b"")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex.encode()

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (_HEADER, request_id)]
                http_responses.labels(str(message["status"])).inc()
            await send(message)

        with bound_contextvars(request=request_id.decode()):
            await self._app(scope, receive, named)
