"""The connections of the process: at most so many, so that nobody can use up all of them."""

from typing import Protocol


class Closable(Protocol):
    """A connection that can be closed at once."""

    def close_for_room(self) -> None:
        """Close the connection, because another one needs its place."""


class Connections:
    """Which connections there are, and which of them can be closed for a new one.

    The longest idle one is closed first: no request is lost with it. Then the one whose head has
    been incomplete for longest. A request that was read keeps its connection.
    """

    def __init__(self, limit: int, *, idle_seconds: float, head_seconds: float) -> None:
        self.idle_seconds = idle_seconds
        self.head_seconds = head_seconds
        self._limit = limit
        self._all: set[Closable] = set()
        # Dictionaries, because they keep the order.
        self._idle: dict[Closable, None] = {}
        self._in_head: dict[Closable, None] = {}

    def __len__(self) -> int:
        return len(self._all)

    def add(self, connection: Closable) -> bool:
        """Count a new connection, which is idle. False if there is no place for it."""
        if len(self._all) >= self._limit:
            victim = next(iter(self._idle), None) or next(iter(self._in_head), None)
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
        self._idle.pop(connection, None)
        self._in_head.pop(connection, None)

    def idle(self, connection: Closable) -> None:
        """The connection waits for a request, from now on."""
        if connection in self._all:
            self._idle[connection] = None

    def in_head(self, connection: Closable) -> None:
        """The head of a request is arriving."""
        if self._idle.pop(connection, self) is None:
            self._in_head[connection] = None

    def busy(self, connection: Closable) -> None:
        """The connection has a request."""
        self._idle.pop(connection, None)
        self._in_head.pop(connection, None)
