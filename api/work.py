"""The work on one request, as its share of what this process does at once.

It begins with the credential and ends with the head of the response. While a request waits for its
body, for a change or for 1upHealth, it does not count: such waits have limits of their own.
"""

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uplift.api.admission import Admission
from uplift.api.fair_share import Part
from uplift.ledger.credentials import CredentialRow

WORK = "uplift.work"
"""Where the scope of a request holds it."""
_FEW_ROWS = 100


class Work:
    """The work on one request. Before its credential is known, it is nobody's."""

    __slots__ = ("_part", "credential")

    def __init__(self) -> None:
        self._part: Part | None = None
        self.credential: CredentialRow | None = None

    async def begin(self, admission: Admission, credential: CredentialRow) -> None:
        """Begin to work for this credential. Raises a Problem (503) if it takes too long."""
        self.credential = credential
        self._part = admission.request(credential)
        await self._part.grow(1)

    def pause(self) -> None:
        """Let others work."""
        if self._part is not None:
            self._part.release()

    async def resume(self, size: int = 1) -> None:
        """Go on, as so many requests. Raises a Problem (503) if it takes too long."""
        if self._part is not None:
            self._part.release()
            await self._part.grow(size)


def work_of(request: Request) -> Work:
    """The work on this request."""
    work: Work = request.scope[WORK]
    return work


async def resume_for(request: Request, rows: int) -> None:
    """Go on with a request that reads so many rows: with hundreds it counts as several.

    Raises a Problem (503) if it takes too long.
    """
    if rows > _FEW_ROWS:
        await resume_as_large(request)


async def resume_as_large(request: Request) -> None:
    """Go on with a request that costs as much as several. Raises a Problem (503) if it takes too
    long."""
    admission: Admission = request.app.state.admission
    await work_of(request).resume(admission.large)


class EndWork:
    """Ends the work of each request with the head of its response, or with its error."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = scope[WORK] = Work()

        async def ending(message: Message) -> None:
            if message["type"] == "http.response.start":
                work.pause()
            await send(message)

        try:
            await self._app(scope, receive, ending)
        finally:
            work.pause()
