"""`uplift batches`: the records of one request, and the status of each."""

from typing import Annotated, Any
from uuid import UUID

import typer
from rich.table import Column, Table

from uplift.cli.output import moment, print_json, print_table
from uplift.cli.paging import read_pages
from uplift.cli.session import errors, find_person, run_on_ledger
from uplift.ledger import batches
from uplift.ledger.batches import BatchRow, LineRow
from uplift.ledger.database import Database
from uplift.lifecycle import State

batches_commands = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Batches: many records in one request."
)

_PAGE = 500
_LINES = 1000

_Json = Annotated[bool, typer.Option("--json", help="For programs: one JSON object a line.")]


@batches_commands.command("list")
def list_(
    user: Annotated[str, typer.Option(help="Only of this person, by your own name for them.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    json: _Json = False,
) -> None:
    """List batches, the newest first."""

    async def use(database: Database) -> list[BatchRow]:
        user_id = await find_person(database, user)

        async def page(last: BatchRow | None, size: int) -> list[BatchRow]:
            async with database.transaction() as connection:
                return await batches.list_batches(
                    connection, user_id=user_id, after=last.id if last else None, limit=size
                )

        return await read_pages(page, page=_PAGE, limit=limit)

    found = run_on_ledger(use)
    if json:
        for row in found:
            print_json(_json(row))
        return
    table = Table(
        Column("id", no_wrap=True),
        "user", "created", "lines", "accepted", "duplicates", "problems", "input",
        box=None,
    )  # fmt: skip
    for row in found:
        table.add_row(
            str(row.id),
            row.app_user_id,
            moment(row.created_at),
            str(row.lines),
            str(row.accepted),
            str(row.duplicates),
            str(row.problems),
            _input(row),
        )
    print_table(table)


@batches_commands.command()
def show(
    batch_id: Annotated[UUID, typer.Argument(help="Its id.", metavar="ID")],
    lines: Annotated[
        bool, typer.Option("--lines", help="Also show the status of each line.")
    ] = False,
    json: _Json = False,
) -> None:
    """Show a batch, and how many of its uploads are in each status."""

    async def use(
        database: Database,
    ) -> tuple[BatchRow | None, dict[State, int], list[LineRow]]:
        async with database.transaction() as connection:
            row = await batches.get_batch(connection, batch_id)
            counted = await batches.count_by_state(connection, batch_id)

        async def page(last: LineRow | None, size: int) -> list[LineRow]:
            async with database.transaction() as connection:
                return await batches.list_lines(
                    connection, batch_id, after=last.line if last else 0, limit=size
                )

        found = await read_pages(page, page=_LINES) if row is not None and lines else []
        return row, counted, found

    row, counted, found = run_on_ledger(use)
    if row is None:
        errors.print("There is no such batch.")
        raise typer.Exit(1)
    by_status = {state.value: counted[state] for state in State if counted.get(state)}
    if json:
        print_json({**_json(row), "byStatus": by_status})
        for line in found:
            print_json(_line_json(line))
        return
    table = Table(show_header=False, box=None)
    for name, value in (
        ("id", row.id),
        ("user", row.app_user_id),
        ("created", moment(row.created_at)),
        ("updated", moment(row.updated_at)),
        ("input", _input(row)),
        ("lines", row.lines),
        ("accepted", row.accepted),
        ("duplicates", row.duplicates),
        ("problems", row.problems),
        *by_status.items(),
    ):
        table.add_row(name, str(value))
    print_table(table)
    if lines:
        table = Table("line", Column("upload", no_wrap=True), "status", "problem", box=None)
        for line in found:
            table.add_row(
                str(line.line),
                str(line.upload_id or ""),
                _status(line),
                f"{line.problem_code}: {line.problem}" if line.problem else "",
            )
        print_table(table)


def _status(line: LineRow) -> str:
    if line.upload_id is None:
        return ""
    status = line.state.value if line.state else "no longer kept"
    return f"{status}, duplicate" if line.duplicate else status


def _input(row: BatchRow) -> str:
    if row.broken:
        return "broken"
    return "open" if row.closed_at is None else "complete"


def _json(row: BatchRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "user": row.app_user_id,
        "total": row.lines,
        "accepted": row.accepted,
        "duplicates": row.duplicates,
        "problems": row.problems,
        "closed": row.closed_at is not None,
        "broken": row.broken,
        "createdAt": row.created_at,
        "updatedAt": row.updated_at,
        "closedAt": row.closed_at,
    }


def _line_json(line: LineRow) -> dict[str, Any]:
    if line.upload_id is None:
        return {
            "line": line.line,
            "problem": {"code": line.problem_code, "detail": line.problem},
        }
    return {
        "line": line.line,
        "id": line.upload_id,
        "status": line.state,
        "duplicate": line.duplicate,
    }
