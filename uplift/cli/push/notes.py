"""What a person must know about the input besides its records."""

from dataclasses import dataclass, field

_MAX_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Note:
    """A part of the input that is not a record, and why it was not used."""

    label: str
    reason: str


@dataclass(slots=True)
class Notes:
    """Fills while the input is read. Bounded: an index can have millions of bad elements."""

    passed_over: list[Note] = field(default_factory=list)
    """Parts that are no clinical record. No record is lost with them."""
    passed_over_total: int = 0
    unread: list[Note] = field(default_factory=list)
    """Parts that cannot be read; records may be lost with them."""
    unread_total: int = 0

    def pass_over(self, label: str, reason: str) -> None:
        """A part that has no record in it."""
        self.passed_over_total += 1
        if len(self.passed_over) < _MAX_KEPT:
            self.passed_over.append(Note(label, reason))

    def lose(self, label: str, reason: str) -> None:
        """A part that may have had records."""
        self.unread_total += 1
        if len(self.unread) < _MAX_KEPT:
            self.unread.append(Note(label, reason))
