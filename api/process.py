"""The process `api`: what `uplift api` runs."""

import asyncio
import contextlib
import signal
import socket
import sys
import time
from functools import partial
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from uplift.api.app import create_app
from uplift.api.connections import Connections
from uplift.api.http_protocol import HttpProtocol, RefusalLog
from uplift.errors import ConfigurationError
from uplift.file_limit import files_of_api, raise_file_limit
from uplift.garbage import freeze_what_is_here
from uplift.settings import Settings
from uplift.stopping import limit_stop
from uplift.wiring import Relay, check, check_ledger

_log = structlog.get_logger(__name__)


class ApiServer(uvicorn.Server):
    """uvicorn with our protocol.

    After SIGTERM it is not ready and listens on for UPLIFT_DRAIN_SECONDS, so that a load balancer
    sends nothing to a closed port. It answers all long polls before connections close.
    """

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        self._app = app
        self._drain_seconds = settings.drain_seconds
        self._drained_at: float | None = None  # on time.monotonic
        places = Connections(
            settings.api_max_connections,
            idle_seconds=settings.api_idle_seconds,
            head_seconds=settings.api_head_seconds,
        )
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.api_host,
                port=settings.api_port,
                http=partial(HttpProtocol, places=places, refusals=RefusalLog()),  # type: ignore[arg-type]
                ws="none",
                # The app configures logging. uvicorn's own set-up goes around the allow-list.
                log_config=None,
                # Access lines contain query strings, and those contain people's names and record
                # ids.
                access_log=False,
                server_header=False,
                # Time for what has begun, such as bodies that are arriving. A caller whose upload
                # is not committed by then is told so, and sends it again.
                timeout_graceful_shutdown=8,
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A first SIGTERM begins to drain. Ctrl-C and a second signal do not wait."""
        self._app.state.stopping = True
        if sig != signal.SIGTERM or self._drained_at is not None:
            super().handle_exit(sig, frame)
            return
        limit_stop()
        _log.info("stop_began")
        self._drained_at = time.monotonic() + self._drain_seconds
        self._captured_signals.append(sig)

    async def on_tick(self, counter: int) -> bool:
        """Whether to shut down now."""
        if self._drained_at is not None and time.monotonic() >= self._drained_at:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer the long polls, then shut down. uvicorn alone would answer them with 500."""
        relay: Relay = self._app.state.relay
        relay.long_poll.release()
        await super().shutdown(sockets)


def main() -> None:
    """Serve the API until SIGINT or SIGTERM.

    Raises SystemExit with a sentence for a person if the API cannot start.
    """
    settings = Settings()
    try:
        raise_file_limit(files_of_api(settings))
        check(settings)
        asyncio.run(check_ledger(settings))
    except ConfigurationError as error:
        # uvicorn would print a traceback.
        sys.exit(f"The API does not start: {error}")
    app = create_app(settings)
    server = ApiServer(app, settings)
    freeze_what_is_here()
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit("The API does not start. The log says why.")
