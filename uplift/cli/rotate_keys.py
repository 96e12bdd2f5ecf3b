"""`uplift rotate-keys`: every user's data key under the master key in use."""

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from uplift.cli.running import actor, errors, read_settings, run_on_ledger
from uplift.key_check import KeyCheck
from uplift.ledger.database import Database
from uplift.maintenance.rotate_keys import Rotated, Rotator
from uplift.wiring import read_key_ring


def rotate_keys() -> None:
    """Move all users' data keys under the first key of UPLIFT_MASTER_KEYS, while Uplift runs.

    Stop it at any time and run it again; it goes on where it was. docs/keys.md has the order of
    deploying, promoting, rotating and retiring a key.

    Exit code 0 if nobody is left under another key, 1 if somebody is, 2 if it could not start.
    """
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("Re-wrapping data keys"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )

    async def use(database: Database) -> tuple[str, Rotated]:
        key_ring = read_key_ring(read_settings())
        await KeyCheck(database, key_ring).ensure()
        with bar:
            task = bar.add_task("", total=None)

            def progress(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            return key_ring.current, await Rotator(database, key_ring).rotate(progress, by=actor())

    current, rotated = run_on_ledger(use)
    typer.echo(f"{rotated.rewrapped} user(s) moved to the master key {current}.")
    for master_id, users in rotated.left.items():
        errors.print(f"{users} user(s) are left under the master key {master_id}.", markup=False)
    if rotated.unopened:
        errors.print(
            f"The data keys of {len(rotated.unopened)} of them do not open, and were left as they"
            " are. Their ids are below: restore their rows of `users` from a backup, or erase"
            " them.",
            markup=False,
        )
        for user_id in sorted(rotated.unopened):
            errors.print(f"  {user_id}", markup=False)
    elif rotated.left:
        errors.print(
            "Either another transaction held them, or a process whose ring has another key in"
            " front still adds users. Promote the key everywhere, and run this again.",
            markup=False,
        )
    raise typer.Exit(int(not rotated.complete))
