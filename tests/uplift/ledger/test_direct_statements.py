"""What goes around SQLAlchemy is part of its transaction, and fails as its own statements do."""

import asyncio
from typing import NamedTuple

import pytest
from sqlalchemy import bindparam, func, literal, select, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from bench.sent_statements import sent_by
from uplift.ledger.database import Database, is_away
from uplift.ledger.direct_statements import DirectStatement, built
from uplift.ledger.parameters import array

_ADD = DirectStatement("INSERT INTO audit_events (actor, action) VALUES ('a', :action)")
_PID = DirectStatement("SELECT pg_backend_pid()")
_FAIL = DirectStatement("SELECT 1 / :zero::int, :name::text")


class _Pair(NamedTuple):
    first: int
    second: str


async def test_rows_come_with_their_names_or_as_they_are_made(database: Database) -> None:
    values = {"ids": array("int", [1, 2]), "text": "50 % ::text $1 :x"}
    sql = (
        "SELECT id, :text::text AS second FROM unnest(CAST(:ids AS int[])) AS id WHERE :text <> ''"
    )
    async with database.transaction() as connection:
        rows = await DirectStatement(sql).rows(connection, values)
        assert [(row.id, row.second) for row in rows] == [(1, values["text"]), (2, values["text"])]
        assert await DirectStatement(sql).column(connection, values) == [1, 2]
        made = await DirectStatement(sql, row=_Pair._make).rows(connection, values)
        assert made[0] == _Pair(1, "50 % ::text $1 :x")
        assert await _ADD.rows(connection, {"action": "none"}) == []


async def test_a_composed_statement_keeps_its_constants(database: Database) -> None:
    statement = built(
        select(func.coalesce(bindparam("given"), "nothing"), literal("a'%:b")), "given"
    )
    async with database.transaction() as connection:
        assert await statement.rows(connection, {"given": "x"}) == [("x", "a'%:b")]
        assert await statement.rows(connection, {"given": None}) == [("nothing", "a'%:b")]


async def test_it_is_committed_and_undone_with_its_transaction(database: Database) -> None:
    async with database.transaction() as connection:
        await _ADD.rows(connection, {"action": "kept"})

    async def fail() -> None:
        async with database.transaction() as connection:
            await _ADD.rows(connection, {"action": "undone"})
            await _ADD.rows(connection, {"action": None})

    with pytest.raises(IntegrityError):
        await fail()
    async with database.transaction() as connection:
        found = await connection.scalars(text("SELECT action FROM audit_events"))
        assert found.all() == ["kept"]


async def test_its_error_is_sqlalchemys_and_names_no_parameter(database: Database) -> None:
    with pytest.raises(DataError) as caught:
        async with database.transaction() as connection:
            await _FAIL.rows(connection, {"zero": 0, "name": "canary"})
    assert not is_away(caught.value)
    assert "canary" not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize(
    "first",
    [
        pytest.param("SELECT pg_terminate_backend(pg_backend_pid())", id="the session is ended"),
        pytest.param("SET TRANSACTION READ ONLY", id="the server became a standby"),
    ],
)
async def test_it_leaves_a_server_that_is_away(database: Database, first: str) -> None:
    async def fail() -> None:
        async with database.transaction() as connection:
            await DirectStatement(first).rows(connection, {})
            await _ADD.rows(connection, {"action": "lost"})

    with pytest.raises(DBAPIError) as caught:
        await fail()
    assert is_away(caught.value)
    async with database.transaction() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM audit_events")) == 0


async def test_an_error_that_ends_the_session_keeps_its_sqlstate(database: Database) -> None:
    # Not away: only this transaction was idle for too long.
    async def idle() -> None:
        async with database.transaction() as connection:
            await connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 50"))
            await asyncio.sleep(0.3)
            await _PID.rows(connection, {})

    with pytest.raises(DBAPIError) as caught:
        await idle()
    assert getattr(caught.value.orig, "sqlstate", None) == "25P03"
    assert not is_away(caught.value)
    async with database.transaction() as connection:
        assert await connection.scalar(text("SELECT 1")) == 1


async def test_the_connection_of_a_cancelled_statement_is_not_used_again(
    database: Database,
) -> None:
    pids: list[int] = []

    async def slow() -> None:
        async with database.transaction() as connection:
            pids.extend(await _PID.column(connection, {}))
            await DirectStatement("SELECT pg_sleep(30)").rows(connection, {})

    async with asyncio.timeout(10):
        for _ in range(6):  # more often than there are connections
            task = asyncio.create_task(slow())
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with database.transaction() as connection:
                pids.extend(await _PID.column(connection, {}))
    assert all(before != after for before, after in zip(pids[::2], pids[1::2], strict=True))


async def test_a_plan_is_kept_unless_it_is_made_each_time(database: Database) -> None:
    async with database.transaction() as connection:
        for _ in range(10):
            await DirectStatement("SELECT 'kept'").rows(connection, {})
            await DirectStatement("SELECT 'made'", plan_each_time=True).rows(connection, {})
        prepared = await connection.scalars(text("SELECT statement FROM pg_prepared_statements"))
        kept = prepared.all()
    assert "SELECT 'kept'" in kept
    assert "SELECT 'made'" not in kept


async def test_a_text_goes_as_it_is_and_its_parameters_once_each(database: Database) -> None:
    async with database.transaction() as connection:
        with sent_by(connection) as sent:
            await DirectStatement("SELECT :a::int + :b::int + :a::int").rows(
                connection, {"b": 2, "a": 1, "unused": 3}
            )
    assert sent == [("SELECT $1::int + $2::int + $1::int", [1, 2])]
