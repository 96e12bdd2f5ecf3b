"""Names with a slash in addresses: `/v1/users/Patient%2F1` is the user `Patient/1`.

Servers decode the path before the router sees it, and a decoded slash splits the name. ASGI's
`raw_path` still has the slash encoded.
"""

import re
from typing import Annotated
from urllib.parse import unquote

from fastapi import Path
from pydantic import BeforeValidator
from starlette.types import ASGIApp, Receive, Scope, Send

from uplift.api.schemas import AppUserId

# A lone surrogate. No decoded path can contain one, so it never means itself.
_STAND_IN = "\udc2f"
_SLASH = re.compile("%2f", re.IGNORECASE)


class KeepSlashes:
    """Routes an encoded slash as a part of a name."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            parts = _SLASH.split(scope.get("raw_path", b"").decode("latin-1"))
            if len(parts) > 1:
                scope = {**scope, "path": _STAND_IN.join(map(unquote, parts))}
        await self._app(scope, receive, send)


def with_slashes(name: str) -> str:
    """A name from a path that `KeepSlashes` routed, with its slashes."""
    return name.replace(_STAND_IN, "/")


UserInPath = Annotated[
    AppUserId,
    BeforeValidator(with_slashes),
    Path(description="The backend's name for the person (`appUserId`)."),
]
