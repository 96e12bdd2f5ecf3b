"""Checks the head of a request before any parser reads it. Pure.

A head that two readers can understand in two ways is refused: whoever stands between the caller and
the API, such as a proxy, may have understood the other one. Sources: RFC 9112 (HTTP/1.1 messages),
RFC 9110 (HTTP semantics).
"""

import re
import string
from dataclasses import dataclass
from enum import StrEnum

from uplift.problem_types import ProblemType

MAX_HEAD_BYTES = 64 * 1024
_MAX_FIELDS = 100

# What a name is made of (RFC 9110, 5.6.2), and what a line may contain (RFC 9110, 5.5).
_TOKEN = b"!#$%&'*+-.^_`|~" + (string.ascii_letters + string.digits).encode()
_LINE = bytes(each for each in range(256) if each >= 0x20 and each != 0x7F) + b"\t"
_FIRST_LINE = re.compile(rb"([!-~]+) ([!-~]+) HTTP/([0-9])\.([0-9])")
_ABSOLUTE = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
_HOST = re.compile(rb"(?:[A-Za-z0-9._~%\-]*|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?")
_LENGTH = re.compile(rb"0*([0-9]{1,18})")

_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE"})
# They ask for another protocol on the connection. Uplift offers none, so it ignores them (RFC 9110,
# 7.8). A parser that knows them would stop in front of the body.
_UPGRADES = frozenset({b"upgrade", b"http2-settings"})
# A head with one of these is not passed on as it came.
_CHANGED = _UPGRADES | {b"expect"}
# Those that decide how a request is read.
_FIELDS = _UPGRADES | {
    b"host",
    b"content-length",
    b"transfer-encoding",
    b"expect",
    b"authorization",
}


class Why(StrEnum):
    """Why the API refuses a request, or closes a connection, without asking the application."""

    TOO_LARGE = "head_too_large"
    TOO_SLOW = "head_too_slow"
    MALFORMED = "head_malformed"
    VERSION = "http_version"
    METHOD = "method"
    HOST = "host"
    FRAMING = "framing"
    CODING = "transfer_coding"
    EXPECTATION = "expectation"
    BODY = "body_malformed"
    UNREAD = "body_not_read"
    UNSENT = "answer_not_read"
    CONNECTIONS = "connections"


_KINDS = {
    Why.TOO_LARGE: ProblemType.HEAD_TOO_LARGE,
    Why.TOO_SLOW: ProblemType.HEAD_TOO_SLOW,
    Why.VERSION: ProblemType.UNKNOWN_HTTP_VERSION,
    Why.METHOD: ProblemType.UNKNOWN_METHOD,
    Why.CODING: ProblemType.UNKNOWN_TRANSFER_CODING,
    Why.EXPECTATION: ProblemType.UNKNOWN_EXPECTATION,
}


class RefusedError(Exception):
    """The request is refused. `detail` says what to change."""

    def __init__(self, why: Why, detail: str) -> None:
        super().__init__(detail)
        self.why = why
        self.kind = _KINDS.get(why, ProblemType.MALFORMED_HTTP)
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Head:
    """A head that has one meaning.

    `data` is what the parser may read. `length` is the size of the body in bytes; None if the body
    comes in chunks.
    """

    data: bytes
    length: int | None


def read_head(head: bytes) -> Head:
    """Check a head, with the empty line that ends it. Raises RefusedError."""
    lines = head[:-4].split(b"\r\n")
    first = _FIRST_LINE.fullmatch(lines[0])
    # Only the ends of lines may be left.
    if first is None or head.translate(None, _LINE) != b"\r\n" * (len(lines) + 1):
        raise _malformed()
    if len(lines) > _MAX_FIELDS:
        raise RefusedError(
            Why.TOO_LARGE, f"The head of a request has fewer than {_MAX_FIELDS} header fields."
        )
    fields = [line.partition(b":") for line in lines[1:]]
    known = _known(fields)
    method, target, major, minor = first.groups()
    if major != b"1" or minor not in b"01":
        raise RefusedError(Why.VERSION, "The API speaks HTTP/1.1 and HTTP/1.0.")
    if method not in _METHODS:
        raise RefusedError(Why.METHOD, "The API does not know this method.")
    is_old = minor == b"0"
    _check_host(known.get(b"host", []), is_old=is_old)
    if len(known.get(b"authorization", [])) > 1:
        raise RefusedError(Why.MALFORMED, "A request has at most one Authorization header.")
    length = _length(
        known.get(b"content-length", []), known.get(b"transfer-encoding", []), is_old=is_old
    )
    wanted = _origin_form(target)
    if b"expect" in known:
        fields = _with_expectation(fields, known[b"expect"], is_old=is_old)
    if wanted != target or not _CHANGED.isdisjoint(known):
        head = _written_again(method, wanted, lines[0][-8:], fields)
    return Head(head, length)


def _known(fields: list[tuple[bytes, bytes, bytes]]) -> dict[bytes, list[bytes]]:
    """The values of the fields that decide how a request is read."""
    known: dict[bytes, list[bytes]] = {}
    for name, colon, value in fields:
        # No folded line, and no space before the colon (RFC 9112, 5.1 and 5.2).
        if not name or not colon or name.translate(None, _TOKEN):
            raise _malformed()
        name = name.lower()
        if name in _FIELDS:
            known.setdefault(name, []).append(value.strip(b" \t"))
    return known


def _with_expectation(
    fields: list[tuple[bytes, bytes, bytes]], expected: list[bytes], *, is_old: bool
) -> list[tuple[bytes, bytes, bytes]]:
    if is_old:  # of HTTP/1.0, the expectation is ignored (RFC 9110, 10.1.1)
        return [each for each in fields if each[0].lower() != b"expect"]
    if any(each.lower() != b"100-continue" for each in expected):
        raise RefusedError(Why.EXPECTATION, "The API knows only `Expect: 100-continue`.")
    # A caller that gets its answer before it sent the body may send the body or not, and nobody
    # knows which (RFC 9110, 10.1.1). So nothing may follow on this connection.
    return [*fields, (b"connection", b":", b"close")]


def _malformed() -> RefusedError:
    return RefusedError(
        Why.MALFORMED,
        "The head of the request is not HTTP/1.1. Each line is `Name: value` and ends with CR LF.",
    )


def _check_host(hosts: list[bytes], *, is_old: bool) -> None:
    if len(hosts) > 1 or (not hosts and not is_old):
        raise RefusedError(Why.HOST, "A request has one Host header (RFC 9112, 3.2).")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise RefusedError(Why.HOST, "The Host is not a host name with an optional port.")


def _length(lengths: list[bytes], codings: list[bytes], *, is_old: bool) -> int | None:
    if codings:
        tokens = [each.strip(b" \t").lower() for each in b",".join(codings).split(b",")]
        if any(each != b"chunked" for each in tokens):
            raise RefusedError(Why.CODING, "The API knows no transfer coding but `chunked`.")
        if len(tokens) > 1 or lengths or is_old:
            raise RefusedError(
                Why.FRAMING,
                "A body has either one Content-Length or one `Transfer-Encoding: chunked`, and"
                " HTTP/1.0 knows only Content-Length (RFC 9112, 6).",
            )
        return None
    if not lengths:
        return 0
    length = _LENGTH.fullmatch(lengths[0])
    if len(lengths) > 1 or length is None:
        raise RefusedError(Why.FRAMING, "A request has one Content-Length of decimal digits.")
    return int(length[1])


def _origin_form(target: bytes) -> bytes:
    """The path and query of a request target, from a proxy's absolute form as well."""
    absolute = _ABSOLUTE.match(target)
    wanted = target[absolute.end() :] if absolute else target
    if absolute and not wanted.startswith(b"/"):
        wanted = b"/" + wanted
    if not wanted.startswith(b"/") or b"#" in wanted:
        raise RefusedError(Why.MALFORMED, "The address of the request is not a path.")
    return wanted


def _written_again(
    method: bytes, target: bytes, version: bytes, fields: list[tuple[bytes, bytes, bytes]]
) -> bytes:
    lines = [b" ".join((method, target, version))]
    for name, colon, value in fields:
        if name.lower() == b"connection":
            tokens = [each.strip(b" \t") for each in value.split(b",")]
            lines.append(
                b"connection: " + b", ".join(t for t in tokens if t.lower() not in _UPGRADES)
            )
        elif name.lower() not in _UPGRADES:
            lines.append(name + colon + value)
    return b"\r\n".join((*lines, b"", b""))
