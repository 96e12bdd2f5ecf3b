"""Stands between a client and the API: keeps the bodies that the client sends, and can be busy."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

_HOP_BY_HOP = {"connection", "content-length", "host", "transfer-encoding", "upgrade"}


class Recording:
    """The address of the proxy, and what went through it."""

    def __init__(self, url: str, busy: Sequence[int]) -> None:
        self.url = url
        self.bodies: list[bytes] = []
        self.busy = list(busy)


def _body_of(request: BaseHTTPRequestHandler) -> bytes:
    if request.headers.get("Transfer-Encoding", "").lower() != "chunked":
        return request.rfile.read(int(request.headers.get("Content-Length", 0)))
    chunks = []
    while size := int(request.rfile.readline().split(b";")[0], 16):
        chunks.append(request.rfile.read(size))
        request.rfile.readline()
    request.rfile.readline()
    return b"".join(chunks)


@contextmanager
def recorded(api_url: str, *, busy: Sequence[int] = ()) -> Iterator[Recording]:
    """A proxy in front of that API, for one `with` block.

    The first envelopes get the statuses `busy`, and `Retry-After: 1`.
    """
    upstream = httpx.Client(base_url=api_url, timeout=60, trust_env=False)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = _body_of(self)
            recording.bodies.append(body)
            if recording.busy and (self.command, self.path) == ("POST", "/v1/uploads"):
                self._be_busy(recording.busy.pop(0))
                return
            headers = {
                name: value
                for name, value in self.headers.items()
                if name.lower() not in {*_HOP_BY_HOP, "accept-encoding"}
            }
            answer = upstream.request(self.command, self.path, content=body, headers=headers)
            self.send_response(answer.status_code)
            for name, value in answer.headers.items():
                if name not in _HOP_BY_HOP:
                    self.send_header(name, value)
            # A status without a body (204, 304) has no length either.
            if answer.content or answer.status_code not in (204, 304):
                self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def _be_busy(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Retry-After", "1")
            self.send_header("Content-Type", "application/problem+json")
            problem = json.dumps({"title": "Later", "status": status, "detail": "Not now."})
            self.send_header("Content-Length", str(len(problem)))
            self.end_headers()
            self.wfile.write(problem.encode())

        do_GET = do_POST = do_PUT = do_DELETE = _pass_on  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    recording = Recording(f"http://127.0.0.1:{server.server_port}", busy)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield recording
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        upstream.close()
