"""Finds where the body of a request ends, so that what follows is read as a head of its own. Pure.

Source: RFC 9112, 6 and 7.1.
"""

import re
from typing import Protocol

from uplift.api.request_heads import RefusedError, Why

# A size, and extensions, which nobody uses. The size has at most 15 digits, so it cannot overflow.
_SIZE = re.compile(rb"0*([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_MAX_SIZE_LINE = 256
_MAX_TRAILER = 8 * 1024
# Each chunk costs time, however small it is.
_MAX_SMALL_CHUNKS = 1000
_LEAST_MEAN_BYTES = 256


WHOLE_BODY = "uplift.whole_body"
"""In the scope of a request whose body has come completely, so that nobody must be waited for."""


class Body(Protocol):
    """A body that is arriving."""

    complete: bool

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """The part of `data` that the parser may read, and the part after the body.

        Raises RefusedError if the body is not framed as HTTP/1.1 demands.
        """


class CountedBody:
    """A body of so many bytes."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.complete = not length

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """See `Body`."""
        size = len(data)
        if size < self._left:
            self._left -= size
            return data, b""
        left, self._left, self.complete = self._left, 0, True
        return data[:left], data[left:]


class ChunkedBody:
    """A body in chunks. Its extensions and trailer fields are dropped."""

    def __init__(self) -> None:
        self.complete = False
        self._held = b""  # the beginning of a line
        self._left = 0  # of a chunk, with the CR LF after it
        self._trailer: int | None = None  # bytes of it; None before the last chunk
        self._chunks = 0
        self._bytes = 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """See `Body`."""
        parts: list[bytes] = []
        at = 0
        data = self._held + data
        self._held = b""
        while at < len(data) and not self.complete:
            if self._left:
                at += self._take_chunk(data, at, parts)
                continue
            end = data.find(b"\n", at) + 1
            limit = _MAX_SIZE_LINE if self._trailer is None else _MAX_TRAILER
            if (end or len(data)) - at > limit:
                raise _malformed()
            if not end:
                self._held = data[at:]
                break
            self._take_line(data[at:end], parts)
            at = end
        rest = b"" if self._held else data[at:]
        return b"".join(parts), rest

    def _take_chunk(self, data: bytes, at: int, parts: list[bytes]) -> int:
        part = data[at : at + self._left]
        # The end of the line belongs to the framing: it must be there exactly.
        for offset in range(max(0, len(part) - 2), len(part)):
            left = self._left - offset
            if left <= 2 and part[offset : offset + 1] != (b"\r" if left == 2 else b"\n"):
                raise _malformed()
        parts.append(part)
        self._left -= len(part)
        return len(part)

    def _take_line(self, line: bytes, parts: list[bytes]) -> None:
        if self._trailer is not None:
            self._trailer += len(line)
            if not line.endswith(b"\r\n") or self._trailer > _MAX_TRAILER:
                raise _malformed()
            if line == b"\r\n":
                parts.append(b"0\r\n\r\n")
                self.complete = True
            return
        size = _SIZE.fullmatch(line)
        if size is None:
            raise _malformed()
        length = int(size[1], 16)
        if length:
            self._chunks += 1
            self._bytes += length
            if self._chunks > _MAX_SMALL_CHUNKS and self._bytes < _LEAST_MEAN_BYTES * self._chunks:
                raise RefusedError(
                    Why.BODY,
                    f"After {_MAX_SMALL_CHUNKS} chunks, a body has at least {_LEAST_MEAN_BYTES}"
                    " bytes a chunk on average. Send larger chunks, or a Content-Length.",
                )
            parts.append(b"%x\r\n" % length)
            self._left = length + 2
        else:
            self._trailer = 0


def _malformed() -> RefusedError:
    return RefusedError(
        Why.BODY, "The body is not in chunks as HTTP/1.1 defines them (RFC 9112, 7.1)."
    )
