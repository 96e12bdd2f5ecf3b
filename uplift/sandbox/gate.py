"""Who may use `/_sandbox/`: whoever has the token, at an address that no other name leads to.

The control API shows what was pushed. Every account of the machine can reach a port on loopback,
and so can a web page whose own name was made to lead there (DNS rebinding). A page cannot change
the header Host, so a name other than localhost is refused.
"""

import hmac
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from uplift.sandbox.responses import message


class Gate:
    """Lets a request to the control API pass. `/health` needs no token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on, or refuse it."""
        request = Request(scope)
        if not _is_address(request.headers.get("host", "")):
            refusal = message(421, "The control API answers to an IP address or localhost only.")
        elif not self._has_token(request) and not request.url.path.endswith("/health"):
            refusal = message(401, "The control API wants its token: Authorization: Bearer …")
        else:
            await self._app(scope, receive, send)
            return
        await refusal(scope, receive, send)

    def _has_token(self, request: Request) -> bool:
        given = request.headers.get("authorization", "").encode()
        return hmac.compare_digest(given, self._expected)


def _is_address(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or bool(ip_address(name))
    except ValueError:
        return False
