"""`uplift uploads list --by user`: who has how much unfinished."""

from dataclasses import asdict
from typing import Any

from rich.table import Table

from uplift.cli.output import print_json, print_table
from uplift.cli.session import run_on_ledger
from uplift.ledger import backlog
from uplift.ledger.backlog import OfUser
from uplift.ledger.database import Database


def show(*, limit: int, json: bool) -> None:
    """Print it, who has most first."""

    async def use(database: Database) -> list[OfUser]:
        async with database.transaction() as connection:
            return await backlog.by_user(connection, limit=limit)

    rows = run_on_ledger(use)
    if json:
        for row in rows:
            print_json(_json(row))
        return
    table = Table(
        "user", "due", "oldest due, seconds", "queued", "sending", "parked", "bytes", box=None
    )
    for row in rows:
        name, *numbers = _json(row).values()
        table.add_row(name, *map(str, numbers))
    print_table(table)


def _json(row: OfUser) -> dict[str, Any]:
    shown = asdict(row)
    return {
        "user": shown["app_user_id"],
        "due": shown["due"],
        "dueSeconds": round(shown["due_seconds"]),
        "queued": shown["queued"],
        "sending": shown["sending"],
        "parked": shown["parked"],
        "bytes": shown["body_bytes"],
    }
