"""Unpacks gzip as it arrives, in small pieces, so that a bomb takes no memory. Pure."""

import zlib
from collections.abc import Iterator

_PIECE_BYTES = 64 * 1024
_MAX_MEMBERS = 100
_GZIP = 31  # zlib's window bits for a gzip header (RFC 1952)


class NotGzipError(Exception):
    """The bytes are not gzip, or the end is missing."""


class Gunzip:
    """One body that arrives."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)
        self._begun = False
        self._members = 1

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What these bytes unpack to, in pieces of at most 64 KiB. Raises NotGzipError."""
        while data:
            if self._member.eof:  # a file of several members is one text (RFC 1952, 2.2)
                self._members += 1
                if self._members > _MAX_MEMBERS:
                    raise NotGzipError
                self._member = zlib.decompressobj(_GZIP)
            self._begun = True
            try:
                piece = self._member.decompress(data, _PIECE_BYTES)
            except zlib.error as error:
                raise NotGzipError from error
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if piece:
                yield piece

    def end(self) -> None:
        """Raises NotGzipError if the body ended too early."""
        if self._begun and not self._member.eof:
            raise NotGzipError
