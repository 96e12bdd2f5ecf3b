"""A proxy that can lose packets: a connection stays open, and nothing comes through.

So it is after a firewall forgot it, or a machine vanished: nobody is told. What is lost stays lost.
When packets flow again, only new connections work.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from chaos.threaded_proxy import ThreadedProxy

_HOST = "127.0.0.1"
_CHUNK = 65_536
# For so long the server keeps its end of a connection whose client has given up.
_LINGERS = 15.0


class _Connection:
    """A client's connection, and whether its packets are lost."""

    def __init__(self, *, lost: bool) -> None:
        self.lost = lost

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None) -> None:
        """Pass on what comes, until it ends. What is lost is read as well: nobody notices."""
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                if not self.lost and writer is not None:
                    writer.write(data)
                    await writer.drain()


class SwallowingProxy(ThreadedProxy):
    """Forwards to the server at `port` of this machine, for one `with` block, in its own thread."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._target = port
        self._swallows = False
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @contextmanager
    def swallowing(self) -> Iterator[None]:
        """Within, every packet is lost, and for good those of the connections there are."""
        self._loop.call_soon_threadsafe(self._swallow)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._flow)

    def _swallow(self) -> None:
        self._swallows = True
        for connection in self._connections:
            connection.lost = True

    def _flow(self) -> None:
        self._swallows = False

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._accept, _HOST, 0)
        self.port = server.sockets[0].getsockname()[1]
        yield
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  the server runs it as one
        self._tasks.add(task)
        connection = _Connection(lost=self._swallows)
        self._connections.add(connection)
        try:
            await self._connect(connection, reader, writer)
        finally:
            self._connections.discard(connection)
            self._tasks.discard(task)
            writer.close()

    async def _connect(
        self,
        connection: _Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        if connection.lost:
            await connection.pump(reader, None)
            return
        try:
            from_server, to_server = await asyncio.open_connection(_HOST, self._target)
        except OSError:
            return  # the client sees its connection closed, nearly as if it had been refused
        try:
            ends = [
                asyncio.ensure_future(connection.pump(reader, to_server)),
                asyncio.ensure_future(connection.pump(from_server, writer)),
            ]
            client, _ = ends
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                if connection.lost:
                    # Neither end hears that the other has closed.
                    await client
                    await asyncio.sleep(_LINGERS)
            finally:
                for end in ends:
                    end.cancel()
        finally:
            to_server.close()
