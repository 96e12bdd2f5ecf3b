"""The admin port of a process: `/metrics` for Prometheus, `/healthz` for health checks."""

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import orjson
import prometheus_client
from prometheus_client.exposition import ThreadingWSGIServer

from uplift.errors import ConfigurationError
from uplift.settings import Settings

Check = Callable[[], str | None]
"""Why the process does not work, in a few words; None if it does."""


@contextmanager
def served(settings: Settings, check: Check = lambda: None) -> Iterator[None]:
    """Within, UPLIFT_ADMIN_PORT answers for this process; if it is not set, nothing listens.

    `/healthz` answers 200, or 503 with the words of `check`, which runs in a thread of its own.
    Raises ConfigurationError if the port is taken.
    """
    if settings.admin_port is None:
        yield
        return
    try:
        server = make_server(
            settings.admin_host,
            settings.admin_port,
            _pages(check),
            ThreadingWSGIServer,
            handler_class=_Quiet,
        )
    except OSError as error:
        raise ConfigurationError(
            f"UPLIFT_ADMIN_PORT {settings.admin_port} cannot be opened ({error.strerror})."
            " Each process needs an admin port of its own."
        ) from None
    thread = threading.Thread(
        target=server.serve_forever, args=(0.1,), name="admin port", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def loop_responds(loop: asyncio.AbstractEventLoop, seconds: float = 5.0) -> bool:
    """Whether a running loop calls a function within this time. For other threads."""
    called = threading.Event()
    try:
        loop.call_soon_threadsafe(called.set)
    except RuntimeError:  # it is closed
        return False
    return called.wait(seconds)


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log nothing: a scrape every few seconds is no event."""


def _pages(check: Check) -> Callable[[dict[str, Any], Any], Iterable[bytes]]:
    metrics: Callable[[dict[str, Any], Any], Iterable[bytes]] = prometheus_client.make_wsgi_app()

    def page(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/metrics":
                return metrics(environ, start_response)
            case "/healthz":
                why = check()
                status = "200 OK" if why is None else "503 Service Unavailable"
                start_response(status, [("Content-Type", "application/json")])
                told = {"status": "alive"} if why is None else {"status": "failing", "why": why}
                return [orjson.dumps(told)]
            case _:
                start_response("404 Not Found", [("Content-Type", "text/plain")])
                return [b"/metrics or /healthz\n"]

    return page
