"""The work on one request, as its share of what this process does at once.

It begins with the credential and ends with the head of the response. While a request waits for its
body, for a change or for the destination, it does not count: such waits have limits of their own.
"""

import asyncio

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uplift.api.admission import Admission
from uplift.api.fair_share import Part
from uplift.api.turnstile import Turnstile
from uplift.ledger.credentials import CredentialRow

WORK = "uplift.work"
"""Where the scope of a request holds it."""
_FEW_ROWS = 100
_PAUSE_TIMES = 3


class Work:
    """The work on one request. Before its credential is known, it is nobody's."""

    __slots__ = ("_large", "_large_since", "_part", "_presented", "_turnstile", "credential")

    def __init__(self, turnstile: Turnstile, presented: bytes) -> None:
        self._turnstile = turnstile
        self._presented = presented
        self._part: Part | None = None
        self._large: Part | None = None
        self._large_since = 0.0
        self.credential: CredentialRow | None = None

    async def received(self, size: int) -> None:
        """Return when so many bytes more of a large body leave others their time."""
        await self._turnstile.receive(self._presented, size)

    async def begin(self, admission: Admission, credential: CredentialRow) -> None:
        """Begin to work for this credential. Raises a Problem (503) if it takes too long."""
        self.credential = credential
        self._part = admission.request(credential)
        await self._part.grow(1)

    def pause(self) -> None:
        """Let others work."""
        if self._part is not None:
            self._part.release()
        if self._large is not None:
            self._end_large(self._large)

    async def rest(self) -> None:
        """Let others work between two parts of a large request.

        Beside other credentials, three times as long as the part took: so large requests in a loop
        take a quarter of the time at most, and no request meets many parts of one.
        """
        await asyncio.sleep(self._pause_seconds())
        self._large_since = asyncio.get_running_loop().time()

    def _pause_seconds(self) -> float:
        if self._large is None or not self._turnstile.is_shared:
            return 0.0
        return _PAUSE_TIMES * (asyncio.get_running_loop().time() - self._large_since)

    def _end_large(self, large: Part) -> None:
        """Let the next large request begin, after the rest that this one still owes."""
        pause = self._pause_seconds()
        self._large = None
        asyncio.get_running_loop().call_later(pause, large.release)

    async def resume(self) -> None:
        """Go on. Raises a Problem (503) if it takes too long."""
        if self._part is not None:
            await self._part.grow(1)

    async def resume_as_large(self, admission: Admission) -> None:
        """Go on, as the only large request. Raises a Problem (503) if it takes too long."""
        self.pause()
        assert self.credential is not None  # noqa: S101  it has begun
        self._large = admission.large(self.credential)
        await self._large.grow(1)
        self._large_since = asyncio.get_running_loop().time()
        await self.resume()


def work_of(request: Request) -> Work:
    """The work on this request."""
    work: Work = request.scope[WORK]
    return work


async def resume_for(request: Request, rows: int) -> None:
    """Go on with a request that reads so many rows: with hundreds it is a large one.

    Raises a Problem (503) if it takes too long.
    """
    if rows > _FEW_ROWS:
        await resume_as_large(request)


async def resume_as_large(request: Request) -> None:
    """Go on with a request that costs as much as many. Raises a Problem (503) if it takes too
    long."""
    await work_of(request).resume_as_large(request.app.state.admission)


class CountWork:
    """Lets requests begin fairly. Ends their work with the head of the response, or an error."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._turnstile = Turnstile()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = scope["headers"]
            presented = next((value for name, value in headers if name == b"authorization"), b"")
            await self._turnstile.enter(presented)
        else:
            presented = b""
        work = scope[WORK] = Work(self._turnstile, presented)

        async def ending(message: Message) -> None:
            if message["type"] == "http.response.start":
                work.pause()
            await send(message)

        try:
            await self._app(scope, receive, ending)
        finally:
            work.pause()
