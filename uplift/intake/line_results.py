"""What became of the lines of a batch, as far as its answer need not be read from the ledger."""

from array import array
from collections.abc import Iterator, Sequence
from uuid import UUID

_ID_BYTES = 16


class LineResults:
    """The lines of one batch, in their order.

    Nearly always each line is the first upload of its record. Then all of them are queued, and
    their numbers and ids are kept: twenty bytes a line. After the first group of which that is not
    so, nothing is kept, because a later line can change what became of an earlier one.
    """

    def __init__(self) -> None:
        self._groups: list[tuple[array[int], bytes]] = []
        self.complete = True

    def note(self, lines: Sequence[int], ids: Sequence[UUID]) -> None:
        """A group of lines that all became first uploads."""
        if self.complete:
            self._groups.append((array("I", lines), b"".join([each.bytes for each in ids])))

    def note_others(self) -> None:
        """A group of which that is not so. The ledger has what became of all lines."""
        self.complete = False
        self._groups.clear()

    def queued(self) -> Iterator[list[tuple[int, str]]]:
        """The lines, in groups: their numbers, and the ids of their uploads."""
        for lines, ids in self._groups:
            digits = ids.hex()
            starts = range(0, len(digits), 2 * _ID_BYTES)
            yield [
                (line, _text(digits[start : start + 2 * _ID_BYTES]))
                for line, start in zip(lines, starts, strict=True)
            ]


def _text(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
