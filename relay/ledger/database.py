"""The connection to Postgres, and the only place that commits."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import make_url
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from relay.errors import ConfigurationError
from relay.settings import Settings


def is_away(error: Exception) -> bool:
    """Whether the database could not be reached, so that any other use of it would fail as well."""
    return isinstance(error, OperationalError | InterfaceError | PoolTimeout)


class Database:
    """A pool of connections. Every use of the ledger is inside one `transaction`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @classmethod
    def connect(cls, settings: Settings) -> "Database":
        """A pool for UPLIFT_DATABASE_URL; connections open at first use.

        Raises ConfigurationError if no URL is set.
        """
        if settings.database_url is None:
            raise ConfigurationError(
                "UPLIFT_DATABASE_URL is not set. `uplift up` starts an embedded PostgreSQL;"
                " every other command needs the address of one."
            )
        url = make_url(settings.database_url.get_secret_value())
        return cls(
            create_async_engine(
                url.set(drivername="postgresql+psycopg"),
                pool_size=settings.database_connections,
                max_overflow=0,
                pool_timeout=10,
                # A connection that Postgres dropped while idle is found before it is used.
                pool_pre_ping=True,
                # SQL errors print their parameters, and ours are sealed bodies and names.
                hide_parameters=True,
                connect_args={
                    "connect_timeout": 5,
                    "options": "-c timezone=UTC -c statement_timeout=30000"
                    " -c idle_in_transaction_session_timeout=30000",
                },
            )
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: committed at the end of the block, rolled back if it raises."""
        async with self._engine.begin() as connection:
            yield connection

    async def close(self) -> None:
        """Close the pool."""
        await self._engine.dispose()
