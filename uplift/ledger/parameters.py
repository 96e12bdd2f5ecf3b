"""Many rows, or many ids, as one parameter of a statement.

The statement's text is then the same for any number of them, so PostgreSQL plans it once.
"""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    CursorResult,
    Select,
    SQLColumnExpression,
    TextClause,
    Uuid,
    any_,
    bindparam,
    text,
)
from sqlalchemy.dialects.postgresql.psycopg import dialect
from sqlalchemy.ext.asyncio import AsyncConnection


class Rows:
    """Rows that a statement gets as one JSON parameter.

    `name` is the parameter's name, and `columns` are the SQL types of the columns by their names.
    JSON and no arrays: psycopg writes arrays as text, which takes both sides several times as
    long. A `bytea` column travels as hexadecimal digits, so it is for keys and digests. Bodies
    are a parameter of their own.
    """

    def __init__(self, name: str, /, **columns: str) -> None:
        self._name = name
        types = ", ".join(
            f"{column} {'text' if type_ == 'bytea' else type_}" for column, type_ in columns.items()
        )
        values = ", ".join(
            f"decode(j.{column}, 'hex') AS {column}" if type_ == "bytea" else f"j.{column}"
            for column, type_ in columns.items()
        )
        rows = f"json_to_recordset(CAST(:{name} AS json)) AS j({types})"
        self._query = f"(SELECT {values} FROM {rows})"  # noqa: S608  names from our own code

    def statement(self, sql: str) -> TextClause:
        """The statement of that text, in which `{name}` stands for the rows as a subquery."""
        return text(sql.replace(f"{{{self._name}}}", self._query))

    def parameter(self, rows: Iterable[object]) -> dict[str, str]:
        """The parameter with these rows: mappings, or dataclasses. What a row lacks is null."""
        return {self._name: orjson.dumps(list(rows), default=_hex).decode()}


class Built:
    """A composed statement whose text is made once: to look it up takes SQLAlchemy longer than
    PostgreSQL to run it. `names` are those of its parameters."""

    def __init__(self, statement: Select[Any], *names: str) -> None:
        compiled = statement.params(dict.fromkeys(names)).compile(
            dialect=dialect(),  # type: ignore[no-untyped-call]
            compile_kwargs={"render_postcompile": True},
        )
        self._sql = compiled.string
        self._constants = {
            name: value
            for name, value in compiled.params.items()
            if f"%({name})s" in self._sql and name not in names
        }

    async def execute(
        self, connection: AsyncConnection, values: Mapping[str, Any]
    ) -> CursorResult[Any]:
        """Run it with these parameters."""
        return await connection.exec_driver_sql(self._sql, {**self._constants, **values})


def _hex(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"A {type(value).__name__} is no value of a row.")


def is_among(column: SQLColumnExpression[UUID], name: str = "ids") -> ColumnElement[bool]:
    """Whether the column is one of the ids that the parameter `name` lists."""
    return column == any_(bindparam(name, type_=ARRAY(Uuid)))
