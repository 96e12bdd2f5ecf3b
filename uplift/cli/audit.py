"""`uplift audit`: who did what, to whose data, and when; and whether that is still what it was."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from uplift.cli.output import echo, json_text
from uplift.cli.session import errors, read_settings, run_on_ledger
from uplift.key_source import read_key_ring
from uplift.ledger import users
from uplift.ledger.audit import Event, list_events
from uplift.ledger.database import Database
from uplift.maintenance.verify_trail import Verified, verify_trail

_PAGE = 1000

audit_commands = typer.Typer(add_completion=False, help="The audit trail.")


@audit_commands.callback(invoke_without_command=True)
def audit(
    context: typer.Context,
    user: Annotated[
        str, typer.Option(help="Only about this person, by your own name for them.")
    ] = "",
    since: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"],
            help="Only at or after this time, in UTC.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Print the audit trail, oldest first.

    It names each person by a random pseudonym. When a person is erased, the link from their name
    to the pseudonym is destroyed. Their events stay, and nobody can tell whose they were.
    """
    if context.invoked_subcommand is not None:
        return

    async def use(database: Database) -> None:
        async with database.transaction() as connection:
            person = await users.find_user(connection, user) if user else None
        if user and person is None:
            errors.print(
                "There is no such user. Events of an erased user can no longer be found by name."
            )
            raise typer.Exit(1)
        after = 0
        while True:
            async with database.transaction() as connection:
                page = await list_events(
                    connection,
                    user_id=person.id if person else None,
                    since=since.replace(tzinfo=UTC) if since else None,
                    after=after,
                    limit=_PAGE,
                )
            for event in page:
                echo(json_text(_json(event)) if json else _line(event))
            if len(page) < _PAGE:
                return
            after = page[-1].id

    run_on_ledger(use)


@audit_commands.command()
def verify(
    last: Annotated[
        str,
        typer.Option(
            help="The last seal that the log of beat has (audit_sealed, seal), or its number: it"
            " must be there. Without it, nobody sees that the end of the trail was removed.",
        ),
    ] = "",
) -> None:
    """Compare the audit trail with its seals: was an event changed, removed or added?

    Exit code 0 if all is as it was sealed, 1 if not, 2 if it could not compare.
    """

    async def use(database: Database) -> Verified:
        return await verify_trail(database, read_key_ring(read_settings()), last=last)

    found = run_on_ledger(use)
    for problem in found.problems:
        errors.print(problem, markup=False)
    echo(
        f"{found.seals} seal(s) over {found.events} event(s) compared. {found.unsealed} event(s)"
        " are not sealed yet."
    )
    raise typer.Exit(int(bool(found.problems)))


def _json(event: Event) -> dict[str, object]:
    return {
        "id": event.id,
        "at": event.at,
        "actor": event.actor,
        "action": event.action,
        "pseudonym": event.pseudonym,
        "upload": event.upload_id,
        "credential": event.credential_id,
    }


def _line(event: Event) -> str:
    parts = [
        f"{event.at:%Y-%m-%d %H:%M:%S}",
        event.actor,
        event.action,
        f"user {event.pseudonym}" if event.pseudonym else "",
        f"upload {event.upload_id}" if event.upload_id else "",
        f"credential {event.credential_id}" if event.credential_id else "",
    ]
    return "  ".join(filter(None, parts))
