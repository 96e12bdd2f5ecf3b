"""Traces for OpenTelemetry: one from the request that brings an upload to 1upHealth's answer.

Off unless UPLIFT_TRACES_URL is set; the libraries are the extra `uplift[traces]`, and are imported
only then. An upload carries the context of its request in the ledger, as W3C's `traceparent`, which
is random and says nothing of anybody. What a span may hold is what a log line may hold (`logs`).
"""

import re
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, Protocol

from uplift.errors import ConfigurationError
from uplift.logs import FIELDS
from uplift.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

# https://www.w3.org/TR/trace-context/#traceparent-header, of which version 00 is the only one.
_PARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}")
_CLOSE_SECONDS = 2.0


Name = Literal["request", "attempt", "call"]
"""Of the API, of a worker, and of a worker at 1upHealth."""

_KINDS = {"request": "SERVER", "attempt": "CONSUMER", "call": "CLIENT"}


class Noted(Protocol):
    """A span, or nothing."""

    def note(self, **attributes: str | int) -> None:
        """Add what a log line may hold as well. Everything else is dropped."""


class _Nothing:
    def note(self, **attributes: str | int) -> None:
        """Nobody traces."""


_NOTHING = _Nothing()
_NO_SPAN: AbstractContextManager[Noted] = nullcontext(_NOTHING)


class _Span:
    def __init__(self, span: "Span") -> None:
        self._span = span

    def note(self, **attributes: str | int) -> None:
        self._span.set_attributes({k: v for k, v in attributes.items() if k in FIELDS})


_tracer: "Tracer | None" = None


def check(settings: Settings) -> None:
    """Raise ConfigurationError if `tracing` does."""
    if settings.traces_url is not None and find_spec("opentelemetry.exporter") is None:
        raise ConfigurationError(
            "UPLIFT_TRACES_URL is set, and OpenTelemetry is not installed. Install uplift[traces]."
        )


@contextmanager
def tracing(settings: Settings, process: str) -> Iterator[None]:
    """Within, spans are sent to UPLIFT_TRACES_URL, if that is set.

    `process` is `api`, `worker` or `bulk`. Raises ConfigurationError if the libraries are missing.
    At the end, what is not sent yet has two seconds.
    """
    global _tracer
    check(settings)
    if settings.traces_url is None:
        yield
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

    provider = TracerProvider(
        # By the trace's id alone: no caller decides what is sent.
        sampler=TraceIdRatioBased(settings.traces_share),
        resource=Resource.create({"service.name": f"uplift-{process}"}),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(settings.traces_url)))
    _tracer = provider.get_tracer("uplift")
    try:
        yield
    finally:
        _tracer = None
        # By itself it would wait for a collector that is away.
        closing = threading.Thread(target=provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)


@contextmanager
def span(name: Name, *, parent: str | None = None, **attributes: str | int) -> Iterator[Noted]:
    """A span around the block. Nothing, if nobody traces.

    It is a part of the span around it, else of `parent`, a `traceparent`. An error ends it as
    failed; neither its text nor its traceback is kept.
    """
    if _tracer is None:
        yield _NOTHING
        return
    from opentelemetry.trace import SpanKind, Status, StatusCode

    with _tracer.start_as_current_span(
        name,
        kind=SpanKind[_KINDS[name]],
        context=_context(parent),
        record_exception=False,
        set_status_on_exception=False,
    ) as opened:
        noted = _Span(opened)
        noted.note(**attributes)
        try:
            yield noted
        except BaseException:
            opened.set_status(Status(StatusCode.ERROR))
            raise


def part(
    name: Name, *, parent: str | None = None, **attributes: str | int
) -> AbstractContextManager[Noted]:
    """A span like `span`, but only within a trace: of the span around it, or of `parent`."""
    if _tracer is None or (parent is None and current() is None):
        return _NO_SPAN
    return span(name, parent=parent, **attributes)


def note(**attributes: str | int) -> None:
    """Add to the span around this what a log line may hold as well. Nothing, if nobody traces."""
    if _tracer is None:
        return
    from opentelemetry.trace import get_current_span

    _Span(get_current_span()).note(**attributes)


def current() -> str | None:
    """The `traceparent` of the span around this, if that is sent; None otherwise."""
    if _tracer is None:
        return None
    from opentelemetry.trace import get_current_span

    context = get_current_span().get_span_context()
    if not context.is_valid or not context.trace_flags.sampled:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-01"


def _context(parent: str | None) -> "Context | None":
    found = _PARENT.fullmatch(parent) if parent else None
    if found is None:
        return None
    from opentelemetry.trace import (
        NonRecordingSpan,
        SpanContext,
        TraceFlags,
        set_span_in_context,
    )

    trace, span_id = (int(each, 16) for each in found.groups())
    return set_span_in_context(
        NonRecordingSpan(SpanContext(trace, span_id, True, TraceFlags(TraceFlags.SAMPLED)))
    )
