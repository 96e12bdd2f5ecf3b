"""The process `api`: what `uplift api` runs."""

import asyncio
import contextlib
import gc
import resource
import socket
import sys
from functools import partial

import uvicorn
from fastapi import FastAPI

from uplift.api.app import create_app
from uplift.api.connections import Connections
from uplift.api.http_protocol import HttpProtocol, RefusalLog
from uplift.errors import ConfigurationError
from uplift.settings import Settings
from uplift.wiring import Relay, check, check_ledger

# For PostgreSQL, Redis, logs and libraries.
_OTHER_FILES = 200
# Some systems have no limit, or one of a thousand million.
_MAX_FILES = 65_536


class ApiServer(uvicorn.Server):
    """uvicorn with our protocol. It answers all long polls before connections close."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        self._app = app
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
                # Time for bodies that are arriving. A caller whose upload is not committed by then
                # gets no answer, and sends it again.
                timeout_graceful_shutdown=5,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer the long polls, then shut down. uvicorn alone would answer them with 500."""
        relay: Relay = self._app.state.relay
        relay.long_poll.release()
        await super().shutdown(sockets)


def _raise_file_limit(settings: Settings) -> None:
    """Let the process open as many files as it may. Each connection is one.

    Raises SystemExit if that is too few for `api_max_connections`.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.api_max_connections + _OTHER_FILES
    limit = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
    if limit < wanted:
        sys.exit(
            f"The API does not start: it may open {limit} files and needs {wanted}. Raise the limit"
            " (`ulimit -n`, systemd's LimitNOFILE), or lower UPLIFT_API_MAX_CONNECTIONS."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def main() -> None:
    """Serve the API until SIGINT or SIGTERM.

    Raises SystemExit with a sentence for a person if the API cannot start.
    """
    settings = Settings()
    try:
        check(settings)
        asyncio.run(check_ledger(settings))
    except ConfigurationError as error:
        # uvicorn would print a traceback.
        sys.exit(f"The API does not start: {error}")
    app = create_app(settings)
    _raise_file_limit(settings)
    server = ApiServer(app, settings)
    # Objects from the start-up live as long as the process. Each collection that visits them would
    # stop all requests for a tenth of a second.
    gc.collect()
    gc.freeze()
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit("The API does not start. The log says why.")
