"""The connections to PostgreSQL, and the only place that commits.

PostgreSQL may be frozen, cut off, or a standby now. Every transaction has a time limit, which this
process keeps itself: a server that does not answer keeps none. A server that cannot be written is
one to leave, with all connections of the pool to it.
"""

import asyncio
import math
import os
import select
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import AsyncConnection as AsyncPGConnection
from sqlalchemy import URL, ExceptionContext, event, make_url
from sqlalchemy.engine.interfaces import ExecutionContext
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    InvalidatePoolError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from uplift.errors import ConfigurationError
from uplift.settings import Settings

# SQLSTATE: class 08 is a broken connection; 57P01 to 57P05 a server that stops, crashed, does not
# take connections yet, lost its database, or ended an idle session; 25006 one that became a standby
# (PostgreSQL, appendix A).
_READ_ONLY = "25006"
_AWAY = ("08", "57P", _READ_ONLY)
SLOW = ("57014", "55P03")
"""SQLSTATE of a statement that took too long, such as behind a lock."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a transaction may take, and how long it waits for a connection before. In seconds.

    Together with the 2 s in which libpq connects, that is how late an answer may be.
    """

    transaction: float
    pool: float


FOR_A_CALLER = Patience(transaction=3.0, pool=2.0)
FOR_AN_ATTEMPT = Patience(transaction=8.0, pool=5.0)
FOR_NOBODY = Patience(transaction=30.0, pool=10.0)

# The server's own limit comes first, and ends a slow statement alone. Ours ends the connection.
_SERVER_FIRST = 0.9

# Of libpq, unless the address says otherwise. Packets that vanish end a connection after 5 s: half
# open, it would last for 16 minutes. libpq waits no less than 2 s for a connection.
_LIBPQ = {
    "connect_timeout": 2,
    "keepalives": 1,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 5000,
    # Of several hosts, the one that can be written; of one name that moves, not the old one.
    "target_session_attrs": "read-write",
}


class CommitUnknown(OperationalError):
    """The connection was lost during a commit: nobody knows whether it is committed."""


def is_away(error: Exception) -> bool:
    """Whether the database could not be reached, so any other use of it would fail as well.

    True for a connection that was refused or lost, and for a pool that has none left. False for an
    error about one statement: a deadlock, a time-out, a failed serialization.
    """
    if isinstance(error, PoolTimeout):
        return True
    sqlstate = getattr(getattr(error, "orig", None), "sqlstate", None)
    if sqlstate is not None:
        return str(sqlstate).startswith(_AWAY)
    # Errors of psycopg itself, such as a refused connection, have none.
    return isinstance(error, OperationalError | InterfaceError)


def is_slow(error: Exception) -> bool:
    """Whether a statement took too long, such as behind a lock. Another one may not."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) in SLOW


def _check_open(dbapi_connection: Any, _: ConnectionPoolEntry, __: PoolProxiedConnection) -> None:
    """Let the pool open another connection if PostgreSQL ended this one while it was idle.

    A server that dies or restarts closes its sockets, and a closed socket is readable. To ask the
    server, as `pool_pre_ping` does, would cost a round trip for each transaction.
    """
    connection: AsyncPGConnection = dbapi_connection.driver_connection
    poller = select.poll()
    poller.register(connection.pgconn.socket, select.POLLIN)
    if poller.poll(0):
        raise InvalidatePoolError


def _leave_read_only(context: ExceptionContext) -> None:
    """A server that became a standby stays one: drop this connection and its pool's siblings."""
    if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
        context.is_disconnect = True


def driver_of(connection: AsyncConnection) -> AsyncPGConnection:
    """psycopg's connection under SQLAlchemy's, in the same transaction."""
    driver: AsyncPGConnection = connection.sync_connection.connection.driver_connection  # type: ignore[union-attr, assignment]
    return driver


_MET = "uplift_met"


async def raise_in_sqlalchemy(connection: AsyncConnection, error: psycopg.Error) -> None:
    """Raise an error of `driver_of` as SQLAlchemy raises its own: it sorts errors, and leaves a
    connection that is lost and a server that is away."""
    try:
        await connection.exec_driver_sql("", execution_options={_MET: error})
    except DBAPIError as raised:
        # Of a connection that is closed, SQLAlchemy hears only that.
        raised.orig = error
        raise


def _raise_met(_: Any, __: str, ___: Any, context: ExecutionContext) -> None:
    met = context.execution_options.get(_MET)
    if met is not None:
        raise met


@contextmanager
def _time_limit(connection: AsyncConnection, seconds: float) -> Iterator[None]:
    """Within, the connection is lost when so many seconds have passed.

    A cancelled statement would wait for the server to confirm that, for ever.
    """
    driver = driver_of(connection)

    def lose() -> None:
        with suppress(OSError), socket.socket(fileno=os.dup(driver.pgconn.socket)) as shared:
            shared.shutdown(socket.SHUT_RDWR)

    if seconds == math.inf:
        yield
        return
    timer = asyncio.get_running_loop().call_later(seconds, lose)
    try:
        yield
    finally:
        timer.cancel()


def _connect_args(url: URL) -> dict[str, Any]:
    """Arguments of libpq beside those of the address, which go first."""
    # Of a database in SQL_ASCII, psycopg would give bytes for text.
    return {name: _LIBPQ[name] for name in _LIBPQ if name not in url.query} | {
        "client_encoding": "utf8"
    }


# Of every session. Not by the connection's `options`: these would replace those of the address, and
# PgBouncer refuses them.
_SET_UP = """
    SELECT set_config('TimeZone', 'UTC', false),
           set_config('statement_timeout', %(milliseconds)s, false),
           set_config('idle_in_transaction_session_timeout', %(milliseconds)s, false)
"""


def _set_up(seconds: float) -> Callable[[Any, ConnectionPoolEntry], None]:
    """What sets up a new connection whose transactions may take so many seconds."""
    milliseconds = str(round(seconds * _SERVER_FIRST * 1000))

    def set_up(dbapi_connection: Any, _: ConnectionPoolEntry) -> None:
        cursor = dbapi_connection.cursor()
        cursor.execute(_SET_UP, {"milliseconds": milliseconds})
        cursor.close()
        dbapi_connection.commit()

    return set_up


class Database:
    """A pool of connections. Every use of the ledger is inside one `transaction`."""

    def __init__(self, engine: AsyncEngine, patience: Patience) -> None:
        self._engine = engine
        self._seconds = patience.transaction
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")

    @classmethod
    def connect(
        cls,
        settings: Settings,
        patience: Patience = FOR_NOBODY,
    ) -> "Database":
        """A pool for UPLIFT_DATABASE_URL; connections open at first use.

        Raises ConfigurationError if no URL is set, or it is malformed.
        """
        if settings.database_url is None:
            raise ConfigurationError(
                "UPLIFT_DATABASE_URL is not set. `uplift up` starts an embedded PostgreSQL;"
                " every other command needs the address of one."
            )
        try:
            url = make_url(settings.database_url.get_secret_value())
            engine = create_async_engine(
                url.set(drivername="postgresql+psycopg"),
                pool_size=settings.database_connections,
                max_overflow=0,
                pool_timeout=patience.pool,
                # The connection used last has its statements prepared.
                pool_use_lifo=True,
                # SQL errors print their parameters, and ours have names in them.
                hide_parameters=True,
                connect_args=_connect_args(url),
            )
        except (ArgumentError, ValueError):
            # Not from it: its text may quote the address, with its password.
            raise ConfigurationError(
                "UPLIFT_DATABASE_URL is not an address. Write"
                " postgresql://user:password@host/name; in a password, % stands for itself as"
                " %25, / as %2F and @ as %40."
            ) from None
        event.listen(engine.sync_engine, "connect", _set_up(patience.transaction))
        event.listen(engine.sync_engine, "checkout", _check_open)
        event.listen(engine.sync_engine, "handle_error", _leave_read_only)
        event.listen(engine.sync_engine, "do_execute", _raise_met)
        return cls(engine, patience)

    @asynccontextmanager
    async def transaction(self, *, unlimited: bool = False) -> AsyncIterator[AsyncConnection]:
        """One transaction: committed at the end of the block, rolled back if it raises.

        `unlimited` is for a migration, which sets the server's limits itself. Raises CommitUnknown
        if PostgreSQL does not say whether it is committed.
        """
        async with self._engine.connect() as connection:
            with _time_limit(connection, math.inf if unlimited else self._seconds):
                committing = False
                try:
                    async with connection.begin():
                        yield connection
                        committing = True
                except OperationalError as error:
                    if committing and error.orig is not None and is_away(error):
                        raise CommitUnknown(None, None, error.orig) from None
                    raise

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """For statements that only read: each is a transaction of its own."""
        async with self._autocommit.connect() as connection:
            with _time_limit(connection, self._seconds):
                yield connection

    async def close(self) -> None:
        """Close the pool."""
        await self._engine.dispose()
