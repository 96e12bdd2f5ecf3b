"""How a destination is logged in to: each person by their grant, or the deployment once for all."""

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from uplift.destinations.destination import BasicLogin
from uplift.destinations.responses import Response, ResponseKind
from uplift.errors import LoginFailed
from uplift.tokens.person import NO_AUTHORIZATION, AccessToken, Person

Ask = Callable[[AccessToken], Awaitable[Response]]

# A file is looked at no more often, in seconds: each request would ask the file system.
_LOOKED_AT_SECONDS = 1.0
_MAX_TOKEN_CHARACTERS = 64 * 1024


class Access(Protocol):
    """Logs in for a request."""

    async def with_token(self, person: Person, ask: Ask) -> Response:
        """Ask with a token that the person may use. On a 401, renew it once and ask again.

        Raises NeedsAuthorization if only the person can give a new grant, and TokenUnavailable.
        """
        ...

    async def close(self) -> None:
        """Wait for what is under way."""
        ...


class LoginSource(Protocol):
    """Gives the deployment's token."""

    async def token(self, *, refused: AccessToken | None = None) -> AccessToken:
        """A token. `refused` is one that got a 401: the same one again if there is no other.

        Raises TokenUnavailable, and LoginFailed if somebody must change a setting.
        """
        ...

    async def close(self) -> None:
        """Wait for what is under way."""
        ...


class DeploymentAccess:
    """Logs the deployment in, whoever's record it is. So no 401 says anything about a person."""

    def __init__(self, source: LoginSource) -> None:
        self._source = source

    async def with_token(self, person: Person, ask: Ask) -> Response:  # noqa: ARG002  one for all
        """As `Access.with_token`. Never raises NeedsAuthorization."""
        token = await self._source.token()
        response = await ask(token)
        if response.kind is not ResponseKind.UNAUTHORIZED:
            return response
        renewed = await self._source.token(refused=token)
        return response if renewed == token else await ask(renewed)

    async def close(self) -> None:
        """Wait for what is under way."""
        await self._source.close()


class FixedLogin:
    """The same header always: none, or a user name and a password."""

    def __init__(self, token: AccessToken = NO_AUTHORIZATION) -> None:
        self._token = token

    @classmethod
    def basic(cls, login: BasicLogin) -> "FixedLogin":
        """A user name and a password: RFC 7617."""
        pair = f"{login.user}:{login.password.get_secret_value()}".encode()
        return cls(AccessToken(base64.b64encode(pair).decode(), 0, "Basic"))

    async def token(self, *, refused: AccessToken | None = None) -> AccessToken:  # noqa: ARG002
        """The header, refused or not."""
        return self._token

    async def close(self) -> None:
        """Nothing is under way."""


class FileLogin:
    """A token from a file, read again when the file changes. `now` is a clock in seconds."""

    def __init__(self, file: Path, *, now: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._now = now
        self._token: AccessToken | None = None
        self._read_as: tuple[int, int, int] | None = None
        self._looked_at = float("-inf")

    async def token(self, *, refused: AccessToken | None = None) -> AccessToken:
        """The file's token.  Raises LoginFailed."""
        recent = self._now() - self._looked_at < _LOOKED_AT_SECONDS
        if self._token is not None and recent and refused is None:
            return self._token
        return await asyncio.to_thread(self._read)

    def _read(self) -> AccessToken:
        self._looked_at = self._now()
        try:
            found = self._file.stat()
            # Whoever replaces a file makes another one; whoever writes it changes its time.
            read_as = (found.st_ino, found.st_mtime_ns, found.st_size)
            if self._token is None or read_as != self._read_as:
                with self._file.open(encoding="utf-8") as text:
                    value = text.read(_MAX_TOKEN_CHARACTERS).strip()
                self._token, self._read_as = AccessToken(value, 0), read_as
        except (OSError, UnicodeDecodeError):
            raise LoginFailed("token_file_unreadable") from None
        if not self._token.value:
            raise LoginFailed("token_file_empty")
        return self._token

    async def close(self) -> None:
        """Nothing is under way."""
