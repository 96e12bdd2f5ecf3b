"""`uplift process-ended`: a supervisor notes that a worker process has ended.

What the process had is then looked up UPLIFT_SETTLE_SECONDS later. Without it, Uplift waits until
the silent process cannot send any more: it may only stand still.
"""

from typing import Annotated
from uuid import UUID

import typer

from uplift.cli.output import echo
from uplift.cli.session import run_on_ledger
from uplift.ledger import processes
from uplift.ledger.database import Database


def process_ended(
    process_id: Annotated[UUID, typer.Argument(help="Its UPLIFT_PROCESS_ID.")],
) -> None:
    """Note that a worker process has ended, and sends nothing more.

    Run it only after the process is gone. It does nothing if the process noted its end itself.
    """

    async def use(database: Database) -> bool:
        async with database.transaction() as connection:
            return await processes.note_end(connection, process_id, crashed=True)

    noted = run_on_ledger(use)
    echo("Noted." if noted else "Nothing to note: it claimed nothing, or its end is noted.")
