"""`uplift restore`: after a restore from a backup, or a failover that lost commits."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from uplift.cli.output import echo, progress_bar
from uplift.cli.session import actor, errors, read_settings, run_on_ledger
from uplift.ledger.database import Database
from uplift.maintenance.restore import Restored, Restorer

_LOOKUP_DAYS = 7.0


def restore(
    since: Annotated[
        datetime,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"],
            help="The time, in UTC, up to which the ledger is complete: when the backup began, or"
            " the last commit that was replayed. It is for the records of the operator: what is"
            " newer at the destination is not overwritten, whatever it says.",
        ),
    ],
    lookup_days: Annotated[
        float,
        typer.Option(
            min=0,
            max=3650,
            help="For this many days, new uploads are looked up before they are sent: devices may"
            " send again what the ledger has lost.",
        ),
    ] = _LOOKUP_DAYS,
) -> None:
    """Mark the uploads that may have been sent since `--since`, so that they are looked up.

    Run it after a restore from a backup, and after a failover to a replica that may lack the last
    commits, BEFORE workers start. It is safe to stop it and to run it again.
    docs/operations.md says what else to do.

    Exit code 0 if all are marked, 1 if some uploads were locked, 2 if it could not start.
    """

    async def use(database: Database) -> Restored:
        with progress_bar("Marking uploads") as bar:
            return await Restorer(database, read_settings()).mark(
                since if since.tzinfo else since.replace(tzinfo=UTC),
                look_seconds=lookup_days * 86_400,
                by=actor(),
                progress=bar.update,
            )

    restored = run_on_ledger(use)
    for line in _report(restored):
        echo(line)
    if restored.locked:
        errors.print(
            f"{restored.locked} upload(s) were locked by another process and are not marked. Stop"
            " `worker`, `bulk` and `beat`, and run this again.",
            markup=False,
        )
    raise typer.Exit(int(bool(restored.locked)))


def _report(restored: Restored) -> list[str]:
    lines = [
        f"{restored.unfinished} unfinished upload(s) are looked up before they are sent.",
        f"{restored.ended} upload(s) that ended undelivered are looked up if they are redriven.",
        f"New uploads until {restored.look_until:%Y-%m-%d %H:%M} UTC are looked up as well.",
        "Next:",
        "  Erase again the people you erased since the backup: uplift users erase NAME",
        "  Revoke again the keys you revoked since: uplift keys revoke ID",
        "  Make again the keys and device tokens you made since.",
        "  Start api, worker, bulk and beat; then: uplift doctor",
        "  Let devices send everything again: their people's syncToken is another one now.",
        (
            "  What no look-up can tell is marked as a possible duplicate once it is delivered:"
            " uplift uploads list --status delivered --reason cannot_look_up"
        ),
    ]
    if restored.grants:
        lines.append(
            f"  {restored.grants} grant(s) may hold tokens that 1upHealth has ended since. Each"
            " then takes one user-management call. Uploads wait as `awaiting_token` while the"
            " quota of these calls is spent."
        )
    if restored.brought:
        lines.append(
            f"  {restored.brought} grant(s) came from your backend. If 1upHealth refuses one, its"
            " uploads are parked until your backend brings another"
            " (PUT /v1/users/NAME/grant): uplift users list --grant needs_authorization"
        )
    return lines
