"""HTTP/1.1 as the API reads it: uvicorn's protocol, which gets only what has one meaning.

The parser gets one whole head at a time, after `request_heads` has checked it, and then the body of
that request and nothing else. So no byte of a body can become a second request, and a second
request is checked like the first.
"""

import asyncio
import http
from typing import Any
from uuid import uuid4

import orjson
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from uplift.api.connections import Connections
from uplift.api.problems import PROBLEM_TYPE, Problem
from uplift.api.refusals import CREDENTIAL
from uplift.api.request_bodies import WHOLE_BODY, Body, ChunkedBody, CountedBody
from uplift.api.request_heads import MAX_HEAD_BYTES, RefusedError, Why, read_head
from uplift.logs import LogLimit
from uplift.metrics import connection_refusals

_log = structlog.get_logger(__name__)

_END = b"\r\n\r\n"
# How long the rest of a body may take whose request is answered already.
_UNREAD_SECONDS = 10.0


class RefusalLog:
    """Logs refusals, but no more than a few lines a second: anybody can cause them."""

    def __init__(self) -> None:
        self._log_limit = LogLimit(lines=5)

    def note(self, why: Why, request: str, peer: str) -> None:
        """Count a refusal, and log it if the second has room. `refused` counts those left out.

        `peer` is the address at the other end: a proxy's, if there is one.
        """
        connection_refusals.labels(why).inc()
        left_out = self._log_limit.take()
        if left_out is not None:
            _log.warning(
                "connection_refused", why=why, request=request, peer=peer, refused=left_out
            )


class HttpProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self, *arguments: Any, places: Connections, refusals: RefusalLog, **named: Any
    ) -> None:
        super().__init__(*arguments, **named)
        self._places = places
        self._refusals = refusals
        self._received = bytearray()  # what comes before or after the current body
        self._body: Body | None = None  # None between requests
        self._empty_line = False  # whether one came before the current head
        self._is_head = False  # whether the current request is a HEAD
        self._deadline: asyncio.TimerHandle | None = None  # of a head, or of a body nobody reads
        self._sending: asyncio.TimerHandle | None = None  # of an answer that is not read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        super().connection_made(transport)  # type: ignore[arg-type]
        if not self._places.add(self):
            self._note(Why.CONNECTIONS)
            self.transport.abort()
            return
        self._wait_idle()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._places.remove(self)
        self._unset_deadline()
        self._unset_sending()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    @property
    def is_known(self) -> bool:
        """See `Connections`."""
        return bool(self.scope) and CREDENTIAL in self.scope

    def close_for_room(self) -> None:
        """See `Connections`."""
        self._note(Why.CONNECTIONS)
        self.transport.abort()

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        super().pause_writing()
        self._watch_sending()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        super().resume_writing()
        self._unset_sending()
        self._places.sent(self)

    def timeout_keep_alive_handler(self) -> None:
        """See HttpToolsProtocol. Waits for nobody who has not read the last answer by now."""
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._unset_keepalive_if_required()
        if self.transport.is_closing():
            return
        try:
            if self._body is not None:
                data = self._feed_body(data)
            if data:
                self._received += data
                self._read_heads()
        except RefusedError as error:
            self._refuse(error)

    def on_response_complete(self) -> None:
        """See HttpToolsProtocol. Goes on with what arrived meanwhile."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._watch_sending()
            return
        self.flow.resume_reading()
        if self._body is not None:
            self._places.late(self)
            self._set_deadline(_UNREAD_SECONDS, self._unread)
        elif self._received:
            self.loop.call_soon(self._go_on)
        else:
            self._wait_idle()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """See HttpToolsProtocol. The parser refused what `request_heads` let through."""
        self._refuse(RefusedError(Why.MALFORMED, "The request is not HTTP/1.1."))

    def _go_on(self) -> None:
        if self.transport.is_closing():
            return
        try:
            self._read_heads()
        except RefusedError as error:
            self._refuse(error)

    def _read_heads(self) -> None:
        """Read the requests that were received, while none is being answered."""
        while self._received and not self.transport.is_closing():
            if self.cycle is not None and not self.cycle.response_complete:
                if len(self._received) > MAX_HEAD_BYTES:
                    self.flow.pause_reading()
                return
            self._pass_over_empty_line()
            self._is_head = self._received.startswith(b"HEAD ")
            size = self._received.find(_END, 0, MAX_HEAD_BYTES) + len(_END)
            if size < len(_END):
                self._wait_for_head()
                return
            self._unset_deadline()
            self._empty_line = False
            self._places.busy(self)
            head = read_head(bytes(self._received[:size]))
            rest = bytes(self._received[size:])
            self._received.clear()
            self._body = ChunkedBody() if head.length is None else CountedBody(head.length)
            super().data_received(head.data)
            if self._body.complete:
                self._body = None
                self.scope[WHOLE_BODY] = True  # type: ignore[literal-required]
            elif rest:
                rest = self._feed_body(rest)
            if self._body is not None:
                self._places.receiving(self)
            self._received += rest

    def _pass_over_empty_line(self) -> None:
        """One may stand before a head (RFC 9112, 2.2). Raises RefusedError for a second one."""
        while self._received.startswith(b"\r\n"):
            if self._empty_line:
                raise RefusedError(Why.MALFORMED, "A head begins with at most one empty line.")
            self._empty_line = True
            del self._received[:2]

    def _wait_for_head(self) -> None:
        if len(self._received) >= MAX_HEAD_BYTES:
            raise RefusedError(
                Why.TOO_LARGE, f"The head of a request has at most {MAX_HEAD_BYTES} bytes."
            )
        if not self._received:  # nothing came but empty lines
            self._unset_deadline()
            self._wait_idle()
        elif self._deadline is None:
            self._places.late(self)
            self._set_deadline(self._places.head_seconds, self._head_is_late)

    def _feed_body(self, data: bytes) -> bytes:
        """Give the parser its part of the data. Returns what comes after the body."""
        assert self._body is not None  # noqa: S101
        part, rest = self._body.feed(data)
        complete = self._body.complete
        if complete:
            self._body = None
            self._places.busy(self)
        else:
            self._places.receiving(self)
        if part:
            super().data_received(part)
        if complete:
            self.scope[WHOLE_BODY] = True  # type: ignore[literal-required]
        if complete and self.cycle.response_complete and not self.transport.is_closing():
            self._unset_deadline()
            if not rest:
                self._wait_idle()
        return rest

    def _wait_idle(self) -> None:
        self._places.idle(self)
        self.timeout_keep_alive_task = self.loop.call_later(
            self._places.idle_seconds, self.timeout_keep_alive_handler
        )

    def _head_is_late(self) -> None:
        seconds = self._places.head_seconds
        self._refuse(
            RefusedError(
                Why.TOO_SLOW,
                f"The head of the request did not arrive within {seconds:g} seconds.",
            )
        )

    def _unread(self) -> None:
        self._note(Why.UNREAD)
        self._close()

    def _set_deadline(self, seconds: float, action: Any) -> None:
        self._unset_deadline()
        self._deadline = self.loop.call_later(seconds, action)

    def _unset_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, error: RefusedError) -> None:
        """Answer with a problem, unless an answer has begun, and close the connection."""
        self._unset_deadline()
        self._received.clear()
        if self.transport.is_closing():
            return
        request = uuid4().hex
        self._note(error.why, request)
        cycle = self.cycle
        # A complete answer was to the request before, unless it is this one's body that is refused.
        if (
            cycle is None
            or not cycle.response_started
            or (cycle.response_complete and error.why is not Why.BODY)
        ):
            self.transport.write(_answer(error, request, is_head=self._is_head))
        self._close()

    def _note(self, why: Why, request: str = "") -> None:
        self._refusals.note(why, request, self.client[0] if self.client else "")

    def _close(self) -> None:
        """Close the connection when the peer has read what was answered, or reads no more."""
        self.transport.close()
        self._watch_sending()

    def _watch_sending(self) -> None:
        """Close the connection if the peer reads nothing for as long as an idle one is kept."""
        self._unset_sending()
        self._places.unsent(self)
        self._sending = self.loop.call_later(
            self._places.idle_seconds, self._check_sending, self.transport.get_write_buffer_size()
        )

    def _check_sending(self, before: int) -> None:
        if self.transport.get_write_buffer_size() < before:
            self._watch_sending()
        else:
            self._note(Why.UNSENT)
            self.transport.abort()

    def _unset_sending(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None


def _answer(error: RefusedError, request: str, *, is_head: bool) -> bytes:
    kind = error.kind
    problem = Problem(kind, error.detail)
    body = orjson.dumps(problem.members())
    head = (
        f"HTTP/1.1 {kind.status} {http.HTTPStatus(kind.status).phrase}\r\n"
        f"content-type: {PROBLEM_TYPE}\r\n"
        f"content-length: {len(body)}\r\n"
        f"x-request-id: {request}\r\n"
        "x-content-type-options: nosniff\r\n"
        "connection: close\r\n\r\n"
    )
    # The answer to a HEAD ends with its head (RFC 9110, 9.3.2).
    return head.encode() + (b"" if is_head else body)
