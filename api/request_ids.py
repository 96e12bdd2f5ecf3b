"""A request id for each request: it is in every answer, and in every log line of the request."""

import logging
import re

from asgi_correlation_id import CorrelationIdMiddleware
from asgi_correlation_id.context import correlation_id
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, reset_contextvars
from uuid_utils import uuid4

from uplift.metrics import of_responses

# What proxies make: a UUID, or as many hexadecimal digits. Nothing else, because the id is logged:
# a caller's mistake must not put a person's name into the logs.
_SAFE = re.compile("[0-9a-fA-F-]{16,64}")


def is_safe(request_id: str) -> bool:
    """Whether an id from a caller can be logged. Others are replaced."""
    return _SAFE.fullmatch(request_id) is not None


def install(app: FastAPI) -> None:
    """Accept or make the X-Request-ID of each request, log it, and answer with it."""
    # The library warns about each id that it replaces. Any caller could fill the logs with that.
    logging.getLogger("asgi_correlation_id").setLevel(logging.ERROR)
    app.add_middleware(_Observed)
    app.add_middleware(
        CorrelationIdMiddleware,
        generator=_new_id,
        validator=is_safe,
        transformer=None,
        update_request_header=False,
    )


def _new_id() -> str:
    """A request id. The library's own takes ten times as long: each is a system call."""
    return uuid4().hex


class _Observed:
    """Binds the request id to the logs of the request, and counts the answers by status."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                of_responses(message["status"]).inc()
            await send(message)

        # Not `bound_contextvars`, which reads the whole context before and after.
        before = bind_contextvars(request=correlation_id.get())
        try:
            await self._app(scope, receive, counted)
        finally:
            reset_contextvars(**before)
