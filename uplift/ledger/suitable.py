"""Is this a database that the ledger can be in? Text in UTF8, and sessions of its own.

PgBouncer in transaction mode gives each transaction another session. There, time limits that a
session sets apply to others' statements, and statements that it prepared are missing. What then
fails are requests, one by one, so it is refused at the start.
"""

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.errors import ConfigurationError
from uplift.ledger.database import Database
from uplift.settings import Settings

# Other clients of a pooler may take the session between our questions.
_TRIES = 3

_NOT_UTF8 = (
    "The database of UPLIFT_DATABASE_URL has the encoding {encoding}, and Uplift needs UTF8. Create"
    " another with `createdb --encoding=UTF8 --template=template0`."
)
_NO_SESSIONS = (
    "UPLIFT_DATABASE_URL leads to a pooler that gives each transaction another session, such as"
    " PgBouncer with pool_mode=transaction. Uplift needs sessions of its own, for prepared"
    " statements and time limits. Set pool_mode=session for this database, or connect to PostgreSQL"
    " itself."
)


async def check_suitable(settings: Settings) -> None:
    """Raise ConfigurationError if the database is not suitable.

    Raises SQLAlchemy's errors if it does not respond.
    """
    database = Database.connect(settings.model_copy(update={"database_connections": 2}))
    try:
        async with database.transaction() as connection:
            encoding = await connection.scalar(text("SELECT current_setting('server_encoding')"))
        if encoding != "UTF8":
            raise ConfigurationError(_NOT_UTF8.format(encoding=encoding))
        for _ in range(_TRIES):
            if not await _has_own_session(database):
                raise ConfigurationError(_NO_SESSIONS)
    finally:
        await database.close()


async def check_at_start(settings: Settings) -> None:
    """Raise ConfigurationError if the database is not suitable. It may be away."""
    try:
        await check_suitable(settings)
    except (SQLAlchemyError, OSError):
        return


async def _has_own_session(database: Database) -> bool:
    """Whether one of two connections keeps its session between its transactions.

    The other one, within a transaction, would have been given a session that is free.
    """
    async with database.reading() as first:
        before = await _session(first)
        async with database.transaction() as second:
            if await _session(second) == before:
                return False
            return await _session(first) == before


async def _session(connection: AsyncConnection) -> int:
    return int((await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one())
