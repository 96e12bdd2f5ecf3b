"""`uplift pause` and `uplift resume`: stop sending, for one person or for everybody."""

from typing import Annotated

import typer
from rich.table import Table

from uplift.cli.output import echo, moment, print_json, print_table
from uplift.cli.session import actor, errors, run_on_ledger
from uplift.control.pause import Pauser
from uplift.ledger.database import Database
from uplift.ledger.pauses import PauseRow

_Name = Annotated[
    str,
    typer.Argument(help="Your own name for the person; everybody if not given.", metavar="USER"),
]
_Yes = Annotated[bool, typer.Option("--yes", help="Do not ask before pausing everybody.")]


def pause(
    name: _Name = "",
    yes: _Yes = False,
    list_: Annotated[bool, typer.Option("--list", help="Only list who is paused.")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="With --list, for programs: one JSON object a line.")
    ] = False,
) -> None:
    """Stop sending, for one person or for everybody, until `uplift resume`.

    Uploads are still accepted. Attempts that are under way finish. No upload expires meanwhile:
    the time of the pause does not count.
    """
    if list_:
        _list(json=json)
        return
    if not (name or yes):
        typer.confirm("Pause sending for everybody?", abort=True, err=True)

    async def use(database: Database) -> PauseRow:
        return await Pauser(database).pause(name or None, by=actor())

    row = run_on_ledger(use)
    echo(f"Paused since {moment(row.since)} UTC: {row.app_user_id or 'everybody'}.")


def _list(*, json: bool) -> None:
    async def use(database: Database) -> list[PauseRow]:
        return await Pauser(database).list()

    rows = run_on_ledger(use)
    if json:
        for row in rows:
            print_json({"user": row.app_user_id, "since": row.since})
        return
    table = Table("user", "paused since", box=None)
    for row in rows:
        table.add_row(row.app_user_id or "(everybody)", moment(row.since))
    print_table(table)


def resume(name: _Name = "") -> None:
    """Send again, for one person or for everybody. Waiting uploads continue within seconds.

    `uplift resume` alone ends only the pause for everybody: a person who was paused by name stays
    paused. `uplift resume USER` does not end the pause for everybody.
    """

    async def use(database: Database) -> tuple[bool, list[PauseRow]]:
        pauser = Pauser(database)
        return await pauser.resume(name or None, by=actor()), await pauser.list()

    ended, left = run_on_ledger(use)
    echo("Resumed." if ended else "There was no such pause.")
    if left:
        errors.print(f"Still paused: {len(left)}. See `uplift pause --list`.")
