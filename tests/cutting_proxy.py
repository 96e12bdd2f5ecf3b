"""A proxy before a real server that spoils every third answer to a write.

What it forwards is committed there; what the client learns of it is another matter.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import cycle
from typing import Literal

from aiohttp import ClientError, ClientSession, ClientTimeout, web

from chaos.threaded_proxy import ThreadedProxy

Spoiling = Literal["cut", "gateway_timeout", "stall", "late"]
"""`cut`: forwarded, then the connection closes. `gateway_timeout`: forwarded, and 504. `stall`:
forwarded, and no answer until the client gives up. `late`: 504 at once, and forwarded later; only
the first write of a resource, so that it may be overtaken by a second version."""

SPOILINGS: tuple[Spoiling, ...] = ("cut", "gateway_timeout", "stall", "late")
_WRITES = ("PUT", "POST", "DELETE", "PATCH")
_OF_THE_CONNECTION = {
    "connection",
    "content-length",
    "keep-alive",
    "transfer-encoding",
    "upgrade",
    "expect",
}


class CuttingProxy(ThreadedProxy):
    """Forwards to the server at `target`, for one `with` block, in a thread of its own.

    Every `every`-th write is spoiled, in turn by each of `spoilings`; `late` commits come
    `late_seconds` after the request. `spoiled` counts them. Paths that hold one of `spared` are
    left alone. `put` has the body of the last PUT to each path.
    """

    def __init__(
        self,
        target: str,
        *,
        every: int = 3,
        spoilings: tuple[Spoiling, ...] = SPOILINGS,
        late_seconds: float = 1.0,
        stall_seconds: float = 30.0,
        spared: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self._target = target.rstrip("/")
        self._every = every
        self._turn: Iterator[Spoiling] = cycle(spoilings)
        self._late_seconds = late_seconds
        self._stall_seconds = stall_seconds
        self._spared = spared
        self._writes = 0
        self._written: set[str] = set()
        self._late: set[asyncio.Task[None]] = set()
        self.spoiled: Counter[Spoiling] = Counter()
        self.put: dict[str, bytes] = {}
        self.url = ""

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        # Without a pool: a connection that the server has closed would look like a cut.
        async with ClientSession(
            auto_decompress=False,
            timeout=ClientTimeout(total=60),
            headers={"Connection": "close"},
        ) as self._session:
            yield
            for task in self._late:
                task.cancel()
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if request.method == "PUT":
            self.put[request.path] = body
        spoiling = self._spoiling(request)
        if spoiling is None:
            return await self._forward(request, body)
        self.spoiled[spoiling] += 1
        if spoiling == "late":
            task = asyncio.create_task(self._forward_late(request, body))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
            return web.Response(status=504)
        await self._forward(request, body)
        match spoiling:
            case "stall":
                await asyncio.wait(
                    [stop := asyncio.create_task(self._stopping.wait())],
                    timeout=self._stall_seconds,
                )
                stop.cancel()
            case "gateway_timeout":
                return web.Response(status=504)
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=504)

    def _spoiling(self, request: web.Request) -> Spoiling | None:
        if request.method not in _WRITES or any(part in request.path for part in self._spared):
            return None
        is_first = request.path_qs not in self._written
        self._written.add(request.path_qs)
        self._writes += 1
        if self._writes % self._every:
            return None
        spoiling = next(self._turn)
        return next(self._turn) if spoiling == "late" and not is_first else spoiling

    async def _forward_late(self, request: web.Request, body: bytes) -> None:
        await asyncio.sleep(self._late_seconds)
        await self._forward(request, body)

    async def _forward(self, request: web.Request, body: bytes) -> web.StreamResponse:
        headers = [
            (name, value)
            for name, value in request.headers.items()
            if name.lower() not in _OF_THE_CONNECTION
        ]
        try:
            async with self._session.request(
                request.method,
                self._target + request.path_qs,
                headers=headers,
                data=body or None,
                allow_redirects=False,
            ) as answer:
                return web.Response(
                    status=answer.status,
                    headers=[
                        (name, value)
                        for name, value in answer.headers.items()
                        if name.lower() not in _OF_THE_CONNECTION
                    ],
                    body=await answer.read(),
                )
        except ClientError:
            return web.Response(status=502)
