"""Reads lines from a stream of NDJSON, wherever it is cut into chunks. Pure.

NDJSON (https://github.com/ndjson/ndjson-spec): JSON texts, each on a line. Readers accept `\\n` and
`\\r\\n`, and may skip empty lines. A byte order mark at the start is skipped, too.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_BLANK = re.compile(rb"[ \t\r\n]*\n")
_SPACE = ord(" ")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Line:
    """A line that is not blank, with its number from 1; without its text if that is too long."""

    number: int
    text: bytes | None


class LineReader:
    """Takes chunks and gives the lines that they complete. It keeps `limit` bytes, and a chunk."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._number = 1
        self._begun = bytearray()
        self._too_long = False
        self._blank = 0

    @property
    def blank(self) -> int:
        """How many blank lines came so far."""
        return self._blank

    @property
    def buffered(self) -> int:
        """How many bytes of the unfinished line it keeps."""
        return len(self._begun)

    def feed(self, chunk: bytes) -> Iterator[Line]:
        """The lines that end in this chunk."""
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            if self._begun or self._too_long:
                self._add(chunk[start:end])
                line = self._end_begun()
            else:
                # All blank lines of a run at once: a chunk can hold thousands.
                run = _BLANK.match(chunk, start) if chunk[start] <= _SPACE else None
                if run is not None:
                    count = chunk.count(b"\n", start, run.end())
                    self._blank += count
                    self._number += count
                    start = run.end()
                    continue
                line = self._end_line(chunk[start:end])
            if line is not None:
                yield line
            start = end + 1
        self._add(chunk[start:])

    def end(self) -> Iterator[Line]:
        """The last line, if no newline ended it."""
        if (self._begun or self._too_long) and (line := self._end_begun()):
            yield line

    def _add(self, part: bytes) -> None:
        # One byte more for the carriage return, which does not count.
        if self._too_long or len(self._begun) + len(part) > self._limit + len(_BOM) + 1:
            self._too_long = True
            self._begun.clear()
        else:
            self._begun += part

    def _end_begun(self) -> Line | None:
        text, too_long = bytes(self._begun), self._too_long
        self._begun.clear()
        self._too_long = False
        return self._end_line(text, too_long=too_long)

    def _end_line(self, text: bytes, *, too_long: bool = False) -> Line | None:
        number = self._number
        self._number = number + 1
        if number == 1:
            text = text.removeprefix(_BOM)
        text = text.removesuffix(b"\r")
        if too_long or len(text) > self._limit:
            return Line(number, None)
        if text and not text.isspace():
            return Line(number, text)
        self._blank += 1
        return None
