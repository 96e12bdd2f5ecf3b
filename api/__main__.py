"""`python -m uplift.api`: the web process."""

import asyncio
import contextlib
import gc
import socket
import sys

import uvicorn
from fastapi import FastAPI

from uplift.api.app import create_app
from uplift.errors import ConfigurationError
from uplift.settings import Settings
from uplift.wiring import Relay, check, check_keys


class _Server(uvicorn.Server):
    """uvicorn, with the long-polls answered before it waits for connections to close."""

    def __init__(self, app: FastAPI, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what is held, then shut down; uvicorn would answer it 500."""
        relay: Relay = self._app.state.relay
        relay.long_poll.release()
        await super().shutdown(sockets)


def main() -> None:
    """Serve the API until SIGINT or SIGTERM."""
    settings = Settings()
    try:
        check(settings)
        asyncio.run(check_keys(settings))
    except ConfigurationError as error:
        # uvicorn would tell it with a traceback.
        sys.exit(f"The API does not start: {error}")
    app = create_app(settings)
    server = _Server(
        app,
        uvicorn.Config(
            app,
            host=settings.api_host,
            port=settings.api_port,
            # The app configures logging; uvicorn's own would print its way past the allow-list.
            log_config=None,
            # Its lines hold query strings, and those hold people's names and record ids.
            access_log=False,
            server_header=False,
            # For bodies on their way in; those whose upload is not committed by then send again.
            timeout_graceful_shutdown=5,
        ),
    )
    # What is there from the start stays: going through it again and again stops all requests for a
    # tenth of a second each time.
    gc.collect()
    gc.freeze()
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit("The API does not start: the log says why.")


if __name__ == "__main__":
    main()
