"""Rows reach PostgreSQL as they are."""

from typing import Any
from uuid import uuid4

import pytest

from uplift.ledger.database import Database
from uplift.ledger.parameters import Rows
from uplift.lifecycle import State

_ALL = Rows(
    "all", a="uuid", b="text", c="bytea", d="int", e="bool", f="float8", g="jsonb", version="int"
)
_READ = _ALL.statement("SELECT a, b, c, d, e, f, g FROM {all} AS x ORDER BY version")


def row(**values: Any) -> dict[str, Any]:
    usual = {"a": uuid4(), "b": "ä\\,{}\"'", "c": bytes(range(256)), "d": -7, "e": True, "f": 0.5}
    return {**usual, "g": {"x": [1, "ü", None]}, **values}


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([], id="none"),
        pytest.param([row()], id="one"),
        pytest.param([row(), row(b="", c=b"", d=2**31 - 1, e=False, f=-1e300, g=[])], id="two"),
        pytest.param([dict.fromkeys("abcdefg"), row(), row(b=None)], id="nulls"),
        pytest.param([row(a=None, b="x", d=number) for number in range(300)], id="much the same"),
        pytest.param([row(b=State.QUEUED)], id="an enumeration"),
    ],
)
async def test_rows_of_every_type_come_as_they_are(
    database: Database, rows: list[dict[str, Any]]
) -> None:
    numbered = [{**each, "version": number} for number, each in enumerate(rows)]
    async with database.transaction() as connection:
        found = await connection.execute(_READ, _ALL.parameter(numbered))
        assert [dict(each._mapping) for each in found] == rows


async def test_a_column_that_a_row_lacks_is_null(database: Database) -> None:
    async with database.transaction() as connection:
        found = await connection.execute(_READ, _ALL.parameter([{"d": 1, "version": 1}]))
        assert found.one()._mapping["d"] == 1
        found = await connection.execute(_READ, _ALL.columns(2, d=[1, 2], version=[2, 1]))
        assert [each._mapping["d"] for each in found] == [2, 1]
