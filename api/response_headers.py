"""The headers that every answer has, and the answers that are refusals."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uplift.api.refusals import REFUSED, Refusals

_CACHE_CONTROL = b"cache-control"
# A browser must not run an answer as something else than its content type says.
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")
# Nearly every answer names a person, or says what became of a person's record, or has a token.
_NO_STORE = (_CACHE_CONTROL, b"no-store")


class ResponseHeaders:
    """Adds `X-Content-Type-Options`, and `Cache-Control: no-store` to answers without their own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._refusals = Refusals()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                if message["status"] in REFUSED:
                    self._refusals.note(scope, message["status"])
                headers = [*message["headers"], _NO_SNIFFING]
                if not any(name == _CACHE_CONTROL for name, _ in headers):
                    headers.append(_NO_STORE)
                message["headers"] = headers
            await send(message)

        await self._app(scope, receive, with_headers)
