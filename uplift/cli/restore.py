"""`uplift recover`: after a restore or a failover that lost commits."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from uplift.cli.running import actor, errors, read_settings, run_on_ledger
from uplift.ledger.database import Database
from uplift.maintenance.restore import Restored, Restorer

_LOOK_DAYS = 7.0


def recover(
    since: Annotated[
        datetime,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"],
            help="Up to when the ledger is whole, in UTC: when the backup began, or the last commit"
            " that was replayed. Rather some minutes too early than too late.",
        ),
    ],
    look_days: Annotated[
        float,
        typer.Option(
            min=0,
            max=3650,
            help="For so many days whatever comes in is looked up before it is sent: it may be sent"
            " again by those whose upload was lost.",
        ),
    ] = _LOOK_DAYS,
) -> None:
    """Mark what may have been sent since the ledger went back in time, so that it is looked up.

    Run it after a restore from a backup, and after a failover to a replica that may lack the last
    commits, BEFORE workers start. Safe to run any number of times, and to stop and run again.
    docs/operations.md has what else to do.

    Exit code 0 if all was marked, 1 if some uploads were in other hands, 2 if it could not start.
    """
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("Marking uploads"),
        BarColumn(),
        MofNCompleteColumn(),
        console=console,
        disable=not console.is_terminal,
    )

    async def use(database: Database) -> Restored:
        with bar:
            task = bar.add_task("", total=None)
            return await Restorer(database, read_settings()).mark(
                since if since.tzinfo else since.replace(tzinfo=UTC),
                look_seconds=look_days * 86_400,
                by=actor(),
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )

    recovered = run_on_ledger(use)
    for line in _said(recovered):
        typer.echo(line)
    if recovered.locked:
        errors.print(
            f"{recovered.locked} upload(s) were in other hands and are not marked. Stop `worker`,"
            " `bulk` and `beat`, and run this again.",
            markup=False,
        )
    raise typer.Exit(int(bool(recovered.locked)))


def _said(recovered: Restored) -> list[str]:
    lines = [
        f"{recovered.unfinished} upload(s) that wait are looked up before they are sent.",
        f"{recovered.ended} upload(s) that ended undelivered are looked up if they are redriven.",
        f"What comes in until {recovered.look_until:%Y-%m-%d %H:%M} UTC is looked up as well.",
        "Next:",
        "  Erase again whom you erased since the backup: uplift users erase NAME",
        "  Revoke again what you revoked since: uplift keys revoke ID; make again what you made.",
        "  Start web, worker, bulk and beat; then: uplift doctor",
        "  Let devices send again what answers 404: what came in after the backup is not here.",
    ]
    if recovered.grants:
        lines.append(
            f"  {recovered.grants} grant(s) may hold tokens that 1upHealth has ended since. Each"
            " then takes one user-management call; uploads wait as `paced` while those are spent."
        )
    if recovered.brought:
        lines.append(
            f"  {recovered.brought} grant(s) were brought by your backend. Those that 1upHealth"
            " refuses park their uploads until it brings others (PUT /v1/users/NAME/grant):"
            " uplift users list --grant needs_authorization"
        )
    return lines
