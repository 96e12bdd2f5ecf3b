"""An OpenTelemetry collector for tests: it takes OTLP over HTTP on a loopback port."""

import gzip
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """A running collector for one `with` block."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.received.append(body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """For UPLIFT_TRACES_URL."""
        return f"http://127.0.0.1:{self._server.server_port}/v1/traces"

    @property
    def spans(self) -> list[tuple[str, Span]]:
        """What was received: each span with the name of its service."""
        found = []
        for body in self.received:
            for of_process in ExportTraceServiceRequest.FromString(body).resource_spans:
                [service] = [
                    each.value.string_value
                    for each in of_process.resource.attributes
                    if each.key == "service.name"
                ]
                found += [
                    (service, span) for scope in of_process.scope_spans for span in scope.spans
                ]
        return found

    def until(self, *names: str) -> list[tuple[str, Span]]:
        """The spans, as soon as there is one of each name."""
        until = time.monotonic() + 30
        while not {span.name for _, span in self.spans}.issuperset(names):
            assert time.monotonic() < until, [span.name for _, span in self.spans]
            time.sleep(0.1)
        return self.spans

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def attributes(span: Span) -> dict[str, str | int]:
    """The attributes of a span."""
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}
