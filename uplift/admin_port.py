"""The operator port of a process: its counts at `/metrics`, whether it is alive at `/healthz`."""

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
"""What keeps the process from its work, in a few words; None if it is well."""


@contextmanager
def served(settings: Settings, check: Check = lambda: None) -> Iterator[None]:
    """Within, operators can read this process at UPLIFT_ADMIN_PORT.

    `/healthz` answers 200, or 503 with what `check`, which runs in a thread of its own, says.
    Does nothing if no port is set. Raises ConfigurationError if the port cannot be had.
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
            f"UPLIFT_ADMIN_PORT {settings.admin_port} cannot be listened on"
            f" ({error.strerror}). Each process needs one of its own."
        ) from None
    thread = threading.Thread(
        target=server.serve_forever, args=(0.1,), name="operator port", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def loop_responds(loop: asyncio.AbstractEventLoop, seconds: float = 5.0) -> bool:
    """Whether a running loop does something new within this time. For other threads."""
    turned = threading.Event()
    try:
        loop.call_soon_threadsafe(turned.set)
    except RuntimeError:  # it is closed
        return False
    return turned.wait(seconds)


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  its name there
        """Nothing: a scrape each few seconds says nothing."""


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
