"""`uplift uploads`: find uploads and show them. The commands that change them are added below."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import typer
from rich.table import Column, Table

from uplift.cli import backlog_by_user
from uplift.cli import upload_filter as only
from uplift.cli.change_uploads import cancel, redrive, try_now
from uplift.cli.output import moment, print_json, print_table
from uplift.cli.paging import read_pages
from uplift.cli.session import errors, run_on_ledger
from uplift.cli.upload_filter import UploadFilter
from uplift.ledger import attempts, uploads
from uplift.ledger.attempts import AttemptRow
from uplift.ledger.database import Database
from uplift.ledger.pages import Order
from uplift.ledger.uploads import UploadRow
from uplift.lifecycle import DEAD_LETTERS

uploads_commands = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Find uploads, redrive dead letters, try now, cancel. Never shows contents.",
)
uploads_commands.command()(redrive)
uploads_commands.command("try-now")(try_now)
uploads_commands.command()(cancel)

_PAGE = 500
_Json = Annotated[bool, typer.Option("--json", help="For programs: one JSON object a line.")]


@uploads_commands.command("list")
def list_(
    user: only.User = "",
    status: only.Status = None,
    reason: only.Why = None,
    resource_type: only.ResourceType = "",
    fhir_version: only.Version = None,
    batch: only.Batch = None,
    updated_since: only.UpdatedSince = None,
    updated_before: only.UpdatedBefore = None,
    order: Annotated[
        Order, typer.Option(help="desc: the newest first. asc: the oldest first.")
    ] = Order.NEWEST_FIRST,
    dead: Annotated[
        bool, typer.Option("--dead", help="Only dead letters: rejected, refused, expired.")
    ] = False,
    by: Annotated[
        Literal["user"] | None,
        typer.Option(help="user: how much each has unfinished, who has most first. No filters."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    json: _Json = False,
) -> None:
    """List uploads by the time of acceptance: the status of each, and its reason."""
    if by == "user":
        backlog_by_user.show(limit=limit, json=json)
        return
    if dead and status:
        errors.print("Use either --dead or --status.")
        raise typer.Exit(2)
    chosen = UploadFilter(
        user=user,
        batch=batch,
        status=sorted(DEAD_LETTERS) if dead else status,
        reason=reason,
        resource_type=resource_type,
        fhir_version=fhir_version,
        updated_since=updated_since,
        updated_before=updated_before,
    )

    async def use(database: Database) -> list[UploadRow]:
        matching = await chosen.find(database)

        async def page(last: UploadRow | None, size: int) -> list[UploadRow]:
            async with database.transaction() as connection:
                return await uploads.list_uploads(
                    connection,
                    matching,
                    order=order,
                    after=last.id if last else None,
                    limit=size,
                )

        return await read_pages(page, page=_PAGE, limit=limit + 1)

    found = run_on_ledger(use)
    if json:
        for row in found[:limit]:
            print_json(_json(row))
    else:
        print_table(_table(found[:limit]))
    if len(found) > limit:
        errors.print(f"There are more than {limit}: narrow the filter, or raise --limit.")


@uploads_commands.command()
def show(
    upload_id: Annotated[UUID, typer.Argument(help="Its id.", metavar="ID")], json: _Json = False
) -> None:
    """Show an upload and its latest 100 attempts: everything but its content and its receipt."""

    async def use(database: Database) -> tuple[UploadRow | None, list[AttemptRow]]:
        async with database.transaction() as connection:
            found = await uploads.get_uploads(connection, [upload_id])
            return found.get(upload_id), await attempts.latest_attempts(connection, upload_id)

    row, tried = run_on_ledger(use)
    if row is None:
        errors.print("There is no such upload.")
        raise typer.Exit(1)
    shown = _json(row)
    if json:
        print_json({**shown, "attemptList": [_attempt_json(attempt) for attempt in tried]})
        return
    table = Table(show_header=False, box=None)
    for name, value in shown.items():
        if name != "issues":
            table.add_row(name, moment(value) if isinstance(value, datetime) else _text(value))
    for issue in shown["issues"].get("issue", []):
        where = ", ".join(issue["expression"])
        table.add_row(issue["severity"], f"{where}: {issue['diagnostics']} [{issue['code']}]")
    print_table(table)
    if tried:
        print_table(_attempts_table(tried))


def _attempts_table(tried: list[AttemptRow]) -> Table:
    table = Table("attempt", "ended", "outcome", "response", "milliseconds", box=None)
    for attempt in tried:
        table.add_row(
            moment(attempt.opened_at),
            moment(attempt.closed_at) if attempt.closed_at else "",
            attempt.outcome or "",
            _text(attempt.status_code),
            _text(attempt.duration_ms),
        )
    return table


def _table(rows: list[UploadRow]) -> Table:
    table = Table(
        Column("id", no_wrap=True),
        "user", "type", "status", "reason", "attempts", "updated", "last response",
        box=None,
    )  # fmt: skip
    for row in rows:
        table.add_row(
            str(row.id),
            row.app_user_id,
            row.resource_type,
            row.state,
            row.reason or "",
            str(row.attempts),
            moment(row.updated_at),
            row.last_response or "",
        )
    return table


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def _json(row: UploadRow) -> dict[str, Any]:
    """The API's names. Not the receipt: it may be a hospital's own id, and it is sealed."""
    return {
        "id": row.id,
        "status": row.state,
        "reason": row.reason,
        "final": row.state.final,
        "user": row.app_user_id,
        "fhirVersion": row.fhir_version,
        "resourceType": row.resource_type,
        "batch": row.batch_id,
        "attempts": row.attempts,
        "possibleDuplicate": row.possible_duplicate,
        "maybeStored": row.maybe_sent,
        "cancelRequested": row.cancel_requested,
        "createdAt": row.created_at,
        "updatedAt": row.updated_at,
        "nextAttemptAt": row.next_attempt_at,
        "deliveredAt": row.delivered_at,
        "lastResponse": row.last_response,
        "issues": row.issues or {},
    }


def _attempt_json(attempt: AttemptRow) -> dict[str, Any]:
    """The API's names."""
    return {
        "openedAt": attempt.opened_at,
        "closedAt": attempt.closed_at,
        "outcome": attempt.outcome,
        "statusCode": attempt.status_code,
        "durationMs": attempt.duration_ms,
    }
