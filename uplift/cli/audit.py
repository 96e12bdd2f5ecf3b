"""`uplift audit`: who did what, to whose data, and when."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from uplift.cli.output import echo, json_text
from uplift.cli.session import errors, run_on_ledger
from uplift.ledger import users
from uplift.ledger.audit import Event, list_events
from uplift.ledger.database import Database

_PAGE = 1000


def audit(
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
