"""Statements that run many times a second. They go to psycopg itself: SQLAlchemy would compute
longer than PostgreSQL does."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg
from psycopg import AsyncRawCursor
from psycopg.rows import AsyncRowFactory, namedtuple_row
from sqlalchemy import Select
from sqlalchemy.dialects.postgresql.psycopg import dialect
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.database import driver_of, raise_in_sqlalchemy


class DirectStatement:
    """A statement as psycopg gets it.

    It is part of the transaction of the connection, and its errors are SQLAlchemy's.
    """

    def __init__(
        self,
        sql: str,
        *,
        row: Callable[[Sequence[Any]], Any] | None = None,
        constants: Mapping[str, Any] | None = None,
        plan_each_time: bool = False,
    ) -> None:
        """Parameters are written as `:name`; `constants` are the values of some.

        `row` makes the rows that are returned; else they are named tuples. PostgreSQL plans a
        statement a few times and keeps a plan, unless it has to `plan_each_time`.
        """
        self._constants = constants or {}
        self._names = list(dict.fromkeys(_PARAMETER.findall(sql)))
        # As PostgreSQL has parameters: psycopg would look for its own in the text each time.
        numbers = {name: number for number, name in enumerate(self._names, start=1)}
        self._sql = _PARAMETER.sub(lambda found: f"${numbers[found[1]]}", sql)
        self._rows: AsyncRowFactory[Any] = namedtuple_row if row is None else lambda _: row
        self._prepare = False if plan_each_time else None

    async def rows(self, connection: AsyncConnection, values: Mapping[str, Any]) -> list[Any]:
        """Run it with these parameters; its rows.

        Raises SQLAlchemyError as SQLAlchemy's own statements do.
        """
        try:
            cursor = AsyncRawCursor(driver_of(connection), row_factory=self._rows)
            parameters = {**self._constants, **values}
            await cursor.execute(
                self._sql,
                [parameters[name] for name in self._names],
                prepare=self._prepare,
                binary=True,
            )
            return [] if cursor.rownumber is None else await cursor.fetchall()
        except psycopg.Error as error:
            await raise_in_sqlalchemy(connection, error)
            raise
        except asyncio.CancelledError:
            # PostgreSQL may hear of it so late that it cancels the next statement instead.
            await connection.invalidate()
            raise

    async def column(self, connection: AsyncConnection, values: Mapping[str, Any]) -> list[Any]:
        """The first value of each of its `rows`."""
        return [row[0] for row in await self.rows(connection, values)]


_PARAMETER = re.compile(r"(?<![:\w]):([a-z]\w*)")


def built(
    statement: Select[Any], *names: str, row: Callable[[Sequence[Any]], Any] | None = None
) -> DirectStatement:
    """A composed statement, whose text is made once. `names` are those of its parameters."""
    compiled = statement.params(dict.fromkeys(names)).compile(
        dialect=dialect(paramstyle="named"),  # type: ignore[no-untyped-call]  # as in a text
        compile_kwargs={"render_postcompile": True},
    )
    constants = {name: value for name, value in compiled.params.items() if name not in names}
    return DirectStatement(compiled.string, row=row, constants=constants)
