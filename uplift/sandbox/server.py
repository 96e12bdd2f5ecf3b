"""Runs a sandbox on a socket. When it stops, it ends every wait."""

import functools
import socket
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette

from uplift.sandbox.app import create_app
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.sockets import OpenProtocol

LOOPBACK = "127.0.0.1"


class SandboxProcess(uvicorn.Server):
    """uvicorn, which ends the stalls and delays of the sandbox at shutdown."""

    def __init__(self, app: Starlette, ready: Callable[[], None] | None = None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=OpenProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                # Idle connections must not be closed under a client that is about to use one:
                # cuts are to happen on request only.
                timeout_keep_alive=600,
                timeout_graceful_shutdown=5,
            )
        )
        self._app = app
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, then report it."""
        await super().startup(sockets)
        if self._ready is not None:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Release everything that waits, then shut down."""
        self._app.state.sandbox.faults.stop()
        await super().shutdown(sockets)


def listen(host: str = LOOPBACK, port: int = 0) -> socket.socket:
    """A bound socket; port 0 takes a free one. Raises OSError when the address is taken."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def url_of(listener: socket.socket) -> str:
    """The address of a bound socket, as a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(
    host: str = LOOPBACK,
    port: int = 8090,
    config: SandboxConfig | None = None,
    *,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Run a sandbox until SIGINT or SIGTERM. `ready` is told its URL. Raises OSError."""
    with listen(host, port) as listener:
        started = functools.partial(ready, url_of(listener)) if ready else None
        SandboxProcess(create_app(config), started).run(sockets=[listener])
