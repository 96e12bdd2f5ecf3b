"""`uplift rotate-keys`: moves every user's data key to the master key in use."""

import typer

from uplift.cli.output import echo, progress_bar
from uplift.cli.session import actor, errors, read_settings, run_on_ledger
from uplift.key_check import KeyCheck
from uplift.key_source import read_key_ring
from uplift.ledger.database import Database
from uplift.maintenance.rotate_keys import Rotated, Rotator


def rotate_keys() -> None:
    """Move all users' data keys to the first key of UPLIFT_MASTER_KEYS, while Uplift runs.

    You can stop it at any time; run again, it continues. docs/keys.md has the order in which to
    deploy, promote, rotate and retire a key.

    Exit code 0 if no user is left under another key, 1 if one is, 2 if it could not start.
    """

    async def use(database: Database) -> tuple[str, Rotated]:
        key_ring = read_key_ring(read_settings())
        await KeyCheck(database, key_ring).ensure()
        with progress_bar("Re-wrapping data keys") as bar:
            rotator = Rotator(database, key_ring)
            return key_ring.current, await rotator.rotate(bar.update, by=actor())

    current, rotated = run_on_ledger(use)
    echo(f"{rotated.rewrapped} user(s) moved to the master key {current}.")
    for master_id, users in rotated.left.items():
        errors.print(f"{users} user(s) are left under the master key {master_id}.", markup=False)
    if rotated.unopened:
        errors.print(
            f"The data keys of {len(rotated.unopened)} of them cannot be decrypted, and are"
            " unchanged. Their ids are below. Restore their rows of `users` from a backup, or erase"
            " the users.",
            markup=False,
        )
        for user_id in sorted(rotated.unopened):
            errors.print(f"  {user_id}", markup=False)
    elif rotated.left:
        errors.print(
            "Either another transaction locked them, or a process still adds users under another"
            " first key. Put the key first in every process, and run this again.",
            markup=False,
        )
    raise typer.Exit(int(not rotated.complete))
