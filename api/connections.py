"""The connections of the process: at most so many, so that nobody can use up all of them."""

from itertools import chain
from typing import Protocol


class Closable(Protocol):
    """A connection that can be closed at once."""

    @property
    def is_known(self) -> bool:
        """Whether the credential of its request is valid."""

    def close_for_room(self) -> None:
        """Close the connection, because another one needs its place."""


class Connections:
    """Which connections there are, and which of them can be closed for a new one.

    The longest idle one is closed first: no request is lost with it. Then the one that has waited
    longest for the rest of a head, or of a body that nobody reads; then the one whose body has
    stood still for longest; then the one that has waited longest for its answer to be read; then
    the one whose request has waited longest without a valid credential. A complete request with a
    credential keeps its connection.
    """

    def __init__(self, limit: int, *, idle_seconds: float, head_seconds: float) -> None:
        self.idle_seconds = idle_seconds
        self.head_seconds = head_seconds
        self._limit = limit
        self._all: set[Closable] = set()
        # Each connection is in one of these four. Dictionaries, because they keep the order.
        self._idle: dict[Closable, None] = {}
        self._late: dict[Closable, None] = {}
        self._receiving: dict[Closable, None] = {}
        self._busy: dict[Closable, None] = {}
        # Some of them, whatever else they do.
        self._unsent: dict[Closable, None] = {}

    def add(self, connection: Closable) -> bool:
        """Count a new connection, which is idle. False if there is no place for it."""
        if len(self._all) >= self._limit:
            strangers = (each for each in self._busy if not each.is_known)
            victim = next(
                chain(self._idle, self._late, self._receiving, self._unsent, strangers), None
            )
            if victim is None:
                return False
            self.remove(victim)
            victim.close_for_room()
        self._all.add(connection)
        self._idle[connection] = None
        return True

    def remove(self, connection: Closable) -> None:
        """Forget a connection that is closed."""
        self._all.discard(connection)
        self._leave(connection)
        self._unsent.pop(connection, None)

    def idle(self, connection: Closable) -> None:
        """The connection waits for a request, from now on."""
        self._move(connection, self._idle)

    def late(self, connection: Closable) -> None:
        """The rest of a head is missing, or of a body whose request is answered already."""
        self._move(connection, self._late)

    def busy(self, connection: Closable) -> None:
        """The connection has a complete request."""
        self._move(connection, self._busy)

    def receiving(self, connection: Closable) -> None:
        """A part of the body of a request came, and the rest is missing."""
        self._receiving.pop(connection, None)  # it has not stood still
        if connection not in self._late:
            self._move(connection, self._receiving)

    def unsent(self, connection: Closable) -> None:
        """The peer does not read its answer, or not as fast as it comes."""
        if connection in self._all:
            self._unsent[connection] = None

    def sent(self, connection: Closable) -> None:
        """The peer goes on to read."""
        self._unsent.pop(connection, None)

    def _move(self, connection: Closable, state: dict[Closable, None]) -> None:
        """From the state that it is in to the end of this one; there it stays where it is."""
        if connection in self._all and connection not in state:
            self._leave(connection)
            state[connection] = None

    def _leave(self, connection: Closable) -> None:
        for state in (self._idle, self._late, self._receiving, self._busy):
            state.pop(connection, None)
