"""Many rows, or many ids, as one parameter of a statement.

The statement's text is then the same for any number of them, so PostgreSQL plans it once.
"""

import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any
from uuid import UUID

import orjson
from psycopg import adapters
from psycopg.adapt import Dumper
from psycopg.pq import Format
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    SQLColumnExpression,
    TextClause,
    Uuid,
    any_,
    bindparam,
    text,
)

from uplift.ledger.direct_statements import DirectStatement


class Rows:
    """Rows that a statement gets as one binary array for each column.

    `name` begins the names of the parameters, and `columns` are the SQL types of the columns by
    their names. psycopg writes lists as text, and PostgreSQL reads JSON slowly: both take several
    times as long as these arrays.
    """

    def __init__(self, name: str, /, **columns: str) -> None:
        self._name = name
        self._types = columns
        self._read = attrgetter(*columns)
        # The series makes the planner expect many rows. The subquery hides how many from it: else
        # a plan for fewer would seem better each time, and PostgreSQL would plan each time.
        functions = ", ".join(
            [
                f"generate_series(1, (SELECT CAST(:{name} AS int)))",
                *(
                    f"unnest(CAST(:{name}_{column} AS {type_}[]))"
                    for column, type_ in columns.items()
                ),
            ]
        )
        names = ", ".join(columns)
        self._query = f"(SELECT {names} FROM ROWS FROM ({functions}) AS j(nth, {names}))"  # noqa: S608  names from our own code
        # Cast once more, or `ANY` would take it for a subquery of rows.
        self._arrays = {
            f"{{{name}.{column}}}": (
                f"CAST((SELECT CAST(:{name}_{column} AS {type_}[])) AS {type_}[])"
            )
            for column, type_ in columns.items()
        }

    def statement(self, sql: str) -> TextClause:
        """The statement of that text, in which `{name}` stands for the rows as a subquery, and
        `{name.column}` for a column as an array.

        A large table that is joined to the rows must be looked up by index: where `ANY` of such an
        array restricts it, or it is in a LATERAL subquery with an OFFSET. To PostgreSQL, which
        expects a thousand rows, it seems better to read it whole and hash it, and it keeps that
        plan while the table grows.
        """
        return text(self.within(sql))

    def direct(self, sql: str, *, plan_each_time: bool = False) -> DirectStatement:
        """`statement`, for what runs many times a second."""
        return DirectStatement(self.within(sql), plan_each_time=plan_each_time)

    def within(self, sql: str) -> str:
        """That text with the subquery, for a statement that takes rows of another kind, too."""
        sql = sql.replace(f"{{{self._name}}}", self._query)
        for written, array in self._arrays.items():
            sql = sql.replace(written, array)
        return sql

    def parameter(self, rows: Iterable[object]) -> dict[str, object]:
        """The parameters with these rows: mappings, or objects with an attribute for each column.

        What a mapping lacks is null.
        """
        listed = list(rows)
        columns: dict[str, Sequence[Any]]
        if listed and isinstance(listed[0], Mapping):
            columns = {name: [row.get(name) for row in listed] for name in self._types}  # type: ignore[attr-defined]
        else:
            columns = dict(
                zip(self._types, zip(*map(self._read, listed), strict=True), strict=False)
            )
        return self.columns(len(listed), **columns)

    def columns(self, count: int, /, **columns: Sequence[Any]) -> dict[str, object]:
        """`parameter` of so many rows, by columns. A column that lacks is null."""
        nulls = [None] * count
        return {
            self._name: count,
            **{
                f"{self._name}_{name}": array(type_, columns.get(name, nulls))
                for name, type_ in self._types.items()
            },
        }


@dataclass(frozen=True, slots=True)
class _Array:
    """An array in PostgreSQL's binary format."""

    content: bytes


class _ArrayDumper(Dumper):
    """Passes an array on. Its type is the one that the statement casts it to."""

    format = Format.BINARY

    def dump(self, obj: _Array) -> bytes:
        return obj.content


adapters.register_dumper(_Array, _ArrayDumper)

_int = struct.Struct(">i").pack
_float = struct.Struct(">d").pack
_header = struct.Struct(">5i").pack
_NULL = _int(-1)

# By SQL type: its number in PostgreSQL's catalog, and a value in its binary format.
_TYPES: dict[str, tuple[int, Callable[[Any], bytes]]] = {
    "bool": (16, lambda value: b"\1" if value else b"\0"),
    "bytea": (17, bytes),
    "int": (23, _int),
    "bigint": (20, struct.Struct(">q").pack),
    "text": (25, str.encode),
    "float8": (701, _float),
    "uuid": (2950, lambda value: value.bytes),
    "jsonb": (3802, lambda value: b"\1" + orjson.dumps(value)),
}


def array(type_: str, values: Collection[Any]) -> object:
    """The parameter of a statement, which casts it to an array of that SQL type."""
    number, encode = _TYPES[type_]
    count = len(values)
    if not count:
        return _Array(_header(0, 0, number, 0, 0)[:12])
    values = values if isinstance(values, Sequence) else list(values)
    first = values[0]
    # Much of a group is the same in all rows.
    if first is values[-1] and all(value is first for value in values):
        content = _element(encode, first) * count
    else:
        content = b"".join([_element(encode, value) for value in values])
    return _Array(_header(1, 1, number, count, 1) + content)


def _element(encode: Callable[[Any], bytes], value: Any) -> bytes:
    if value is None:
        return _NULL
    encoded = encode(value)
    return _int(len(encoded)) + encoded


def is_among(column: SQLColumnExpression[UUID], name: str = "ids") -> ColumnElement[bool]:
    """Whether the column is one of the ids that the parameter `name` lists."""
    return column == any_(bindparam(name, type_=ARRAY(Uuid)))
