"""The connections to PostgreSQL, and the only place that commits."""

import select
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection as AsyncPGConnection
from sqlalchemy import event, make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from uplift.errors import ConfigurationError
from uplift.settings import Settings

# SQLSTATE: class 08 is a broken connection; 57P01 to 57P05 a server that stops, crashed, does not
# take connections yet, lost its database, or ended an idle session (PostgreSQL, appendix A).
_AWAY = ("08", "57P")


def is_away(error: Exception) -> bool:
    """Whether the database could not be reached, so any other use of it would fail as well.

    True for a connection that was refused or lost, and for a pool that has none left. False for an
    error about one statement: a deadlock, a time-out, a failed serialization.
    """
    if isinstance(error, PoolTimeout):
        return True
    if not isinstance(error, OperationalError | InterfaceError):
        return False
    # Errors of psycopg itself, such as a refused connection, have none.
    sqlstate = getattr(error.orig, "sqlstate", None)
    return sqlstate is None or sqlstate.startswith(_AWAY)


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


# Of every session. Not by the connection's `options`: these would replace those of the address, and
# PgBouncer refuses them.
_SET_UP = """
    SELECT set_config('TimeZone', 'UTC', false),
           set_config('statement_timeout', '30000', false),
           set_config('idle_in_transaction_session_timeout', '30000', false)
"""


def _set_up(dbapi_connection: Any, _: ConnectionPoolEntry) -> None:
    cursor = dbapi_connection.cursor()
    cursor.execute(_SET_UP)
    cursor.close()
    dbapi_connection.commit()


class Database:
    """A pool of connections. Every use of the ledger is inside one `transaction`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")

    @classmethod
    def connect(cls, settings: Settings) -> "Database":
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
                pool_timeout=10,
                # The connection used last has its statements prepared.
                pool_use_lifo=True,
                # SQL errors print their parameters, and ours have names in them.
                hide_parameters=True,
                # Of a database in SQL_ASCII, psycopg would give bytes for text.
                connect_args={"connect_timeout": 5, "client_encoding": "utf8"},
            )
        except (ArgumentError, ValueError):
            # Not from it: its text may quote the address, with its password.
            raise ConfigurationError(
                "UPLIFT_DATABASE_URL is not an address. Write"
                " postgresql://user:password@host/name; in a password, % stands for itself as"
                " %25, / as %2F and @ as %40."
            ) from None
        event.listen(engine.sync_engine, "connect", _set_up)
        event.listen(engine.sync_engine, "checkout", _check_open)
        return cls(engine)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: committed at the end of the block, rolled back if it raises."""
        async with self._engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """For statements that only read: each is a transaction of its own."""
        async with self._autocommit.connect() as connection:
            yield connection

    async def close(self) -> None:
        """Close the pool."""
        await self._engine.dispose()
