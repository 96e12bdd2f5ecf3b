"""`uplift uploads`: find uploads, have dead letters begin anew, cancel."""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.table import Column, Table

from uplift.cli.running import actor, errors, find_person, read_settings, run_on_ledger
from uplift.cli.showing import bar, moment, print_json, print_table
from uplift.control.cancel import Canceller
from uplift.control.redrive import Redriver, Tally
from uplift.errors import Conflict, NotFound
from uplift.ledger import uploads
from uplift.ledger.cancelling import Cancelled
from uplift.ledger.database import Database
from uplift.ledger.filters import Filter
from uplift.ledger.uploads import UploadRow
from uplift.lifecycle import DEAD_LETTERS, Reason, State

uploads_commands = typer.Typer(
    no_args_is_help=True, help="Uploads: find them, redrive dead letters, cancel. Never contents."
)

_PAGE = 500

_TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
_Ids = Annotated[list[UUID] | None, typer.Argument(help="Only these uploads.")]
_User = Annotated[str, typer.Option(help="Only of this person, by your own name of them.")]
_Batch = Annotated[UUID | None, typer.Option(help="Only those that this batch made.")]
_Status = Annotated[list[State] | None, typer.Option(help="Only in this status; may be repeated.")]
_Why = Annotated[Reason | None, typer.Option(help="Only with this reason.")]
_Type = Annotated[str, typer.Option("--type", help="Only of this resource type.")]
_Since = Annotated[
    datetime | None, typer.Option(formats=_TIMES, help="Only changed at or after this, in UTC.")
]
_Before = Annotated[
    datetime | None, typer.Option(formats=_TIMES, help="Only changed before this, in UTC.")
]
_All = Annotated[bool, typer.Option("--all", help="Every one there is.")]
_Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
_Json = Annotated[bool, typer.Option("--json", help="For programs: one JSON object a line.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """The filter as it was typed."""

    user: str
    batch: UUID | None
    status: list[State] | None
    reason: Reason | None
    type_: str
    since: datetime | None
    before: datetime | None

    @property
    def narrows(self) -> bool:
        return bool(self.user) or self._filter(None).narrows

    def _filter(self, user_id: UUID | None) -> Filter:
        return Filter(
            states=self.status or [],
            reason=self.reason,
            resource_type=self.type_ or None,
            user_id=user_id,
            batch_id=self.batch,
            since=self.since.replace(tzinfo=UTC) if self.since else None,
            before=self.before.replace(tzinfo=UTC) if self.before else None,
        )

    async def find(self, database: Database) -> Filter:
        """The ledger's filter. Ends the command if there is no such user."""
        return self._filter(await find_person(database, self.user))


@uploads_commands.command("list")
def list_(
    user: _User = "",
    status: _Status = None,
    reason: _Why = None,
    type_: _Type = "",
    batch: _Batch = None,
    since: _Since = None,
    before: _Before = None,
    dead: Annotated[
        bool, typer.Option("--dead", help="Only dead letters: rejected, refused, expired.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    json: _Json = False,
) -> None:
    """Uploads in the order of acceptance: where each is, and why."""
    if dead and status:
        errors.print("Say either --dead or --status.")
        raise typer.Exit(2)
    wanted = _Wanted(
        user=user,
        batch=batch,
        status=sorted(DEAD_LETTERS) if dead else status,
        reason=reason,
        type_=type_,
        since=since,
        before=before,
    )

    async def use(database: Database) -> tuple[list[UploadRow], bool]:
        matching = await wanted.find(database)
        found: list[UploadRow] = []
        while True:
            size = min(_PAGE, limit + 1 - len(found))
            async with database.transaction() as connection:
                page = await uploads.list_uploads(
                    connection, matching, after=found[-1].id if found else None, limit=size
                )
            found += page
            if len(page) < size or len(found) > limit:
                return found[:limit], len(found) > limit

    found, more = run_on_ledger(use)
    if json:
        for row in found:
            print_json(_json(row))
    else:
        table = Table(
            Column("id", no_wrap=True),
            "user", "type", "status", "reason", "tried", "changed", "last answer",
            box=None,
        )  # fmt: skip
        for row in found:
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
        print_table(table)
    if more:
        errors.print(f"There are more than {limit}: narrow the filter, or raise --limit.")


@uploads_commands.command()
def show(
    upload_id: Annotated[UUID, typer.Argument(help="Its id.", metavar="ID")], json: _Json = False
) -> None:
    """All that is known of an upload but its content and its receipt."""

    async def use(database: Database) -> UploadRow | None:
        async with database.transaction() as connection:
            return (await uploads.get_uploads(connection, [upload_id])).get(upload_id)

    row = run_on_ledger(use)
    if row is None:
        errors.print("There is no such upload.")
        raise typer.Exit(1)
    told = _json(row)
    if json:
        print_json(told)
        return
    table = Table(show_header=False, box=None)
    for name, value in told.items():
        if name != "issues":
            table.add_row(name, moment(value) if isinstance(value, datetime) else _text(value))
    for issue in told["issues"].get("issue", []):
        where = ", ".join(issue["expression"])
        table.add_row(issue["severity"], f"{where}: {issue['diagnostics']} [{issue['code']}]")
    print_table(table)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def _json(row: UploadRow) -> dict[str, Any]:
    """The API's names, without the receipt: it may be a hospital's own id, and is sealed."""
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


@uploads_commands.command()
def redrive(
    ids: _Ids = None,
    user: _User = "",
    status: Annotated[
        list[State] | None, typer.Option(help="rejected, refused or expired; may be repeated.")
    ] = None,
    reason: _Why = None,
    type_: _Type = "",
    batch: _Batch = None,
    since: _Since = None,
    before: _Before = None,
    all_: _All = False,
    yes: _Yes = False,
    json: _Json = False,
) -> None:
    """Have dead letters begin anew: these, those that the options find, or --all.

    Rejected, refused and expired uploads are queued with a fresh time to give up. One that a newer
    version of its record overtook is superseded instead. Run it again at will.

    Exit code 1 if some stay as they are; the output says why.
    """
    wanted = _Wanted(
        user=user, batch=batch, status=status, reason=reason, type_=type_, since=since,
        before=before,
    )  # fmt: skip
    _check_how_far(ids, wanted, all_=all_)
    if status and not DEAD_LETTERS.issuperset(status):
        errors.print("Only what is rejected, refused or expired can be redriven.")
        raise typer.Exit(2)

    async def use(database: Database) -> tuple[Tally, list[str]]:
        redriver = Redriver(database, read_settings())
        if ids:
            return await _redrive_these(redriver, ids)
        matching = await wanted.find(database)
        total = await redriver.count(matching)
        _confirm(f"{total} uploads begin anew. Go on?", yes or not total)
        with bar("Redriving", total) as progress:
            tally = await redriver.redrive_all(matching, by=actor(), progress=progress)
        return tally, []

    tally, refusals = run_on_ledger(use)
    left = {str(why): number for why, number in tally.left.items()}
    if json:
        print_json({"queued": tally.queued, "superseded": tally.superseded, "left": left})
    else:
        typer.echo(f"Begin anew: {tally.queued}. Superseded: {tally.superseded}.")
        for why, number in left.items():
            typer.echo(f"Left as they are: {number} ({why}).")
    for line in refusals:
        errors.print(line, markup=False)
    raise typer.Exit(int(bool(left or refusals)))


async def _redrive_these(redriver: Redriver, ids: list[UUID]) -> tuple[Tally, list[str]]:
    tally, refusals = Tally(), []
    for id_ in ids:
        try:
            outcome = await redriver.redrive(id_, by=actor())
        except (Conflict, NotFound) as error:
            refusals.append(f"{id_}: {error}")
        else:
            tally.queued += outcome is State.QUEUED
            tally.superseded += outcome is State.SUPERSEDED
    return tally, refusals


@uploads_commands.command()
def cancel(
    ids: _Ids = None,
    user: _User = "",
    status: Annotated[
        list[State] | None, typer.Option(help="queued, sending or parked; may be repeated.")
    ] = None,
    reason: _Why = None,
    type_: _Type = "",
    batch: _Batch = None,
    since: _Since = None,
    before: _Before = None,
    all_: _All = False,
    yes: _Yes = False,
    json: _Json = False,
) -> None:
    """Withdraw uploads that have not ended: these, those that the options find, or --all.

    What was not sent is cancelled at once, and its body is gone. What may have been is looked for
    first; a worker ends it, delivered or cancelled. Run it again at will.

    Exit code 1 if some had ended otherwise before.
    """
    wanted = _Wanted(
        user=user, batch=batch, status=status, reason=reason, type_=type_, since=since,
        before=before,
    )  # fmt: skip
    _check_how_far(ids, wanted, all_=all_)

    async def use(database: Database) -> tuple[Counter[Cancelled], list[str]]:
        canceller = Canceller(database)
        if ids:
            return await _cancel_these(canceller, ids)
        matching = await wanted.find(database)
        total = await canceller.count(matching)
        _confirm(f"{total} uploads are cancelled, and their bodies gone. Go on?", yes or not total)
        with bar("Cancelling", total) as progress:
            return await canceller.cancel_all(matching, by=actor(), progress=progress), []

    answered, refusals = run_on_ledger(use)
    done, requested = answered[Cancelled.DONE], answered[Cancelled.REQUESTED]
    too_late = answered[Cancelled.TOO_LATE]
    if json:
        print_json({"cancelled": done, "requested": requested, "tooLate": too_late})
    else:
        typer.echo(f"Cancelled: {done}. Asked for, and looked for first: {requested}.")
    for line in refusals:
        errors.print(line, markup=False)
    raise typer.Exit(int(bool(refusals)))


async def _cancel_these(
    canceller: Canceller, ids: list[UUID]
) -> tuple[Counter[Cancelled], list[str]]:
    answered, refusals = Counter[Cancelled](), []
    for id_ in ids:
        try:
            done = await canceller.cancel(id_, by=actor())
            answered[Cancelled.DONE if done else Cancelled.REQUESTED] += 1
        except (Conflict, NotFound) as error:
            answered[Cancelled.TOO_LATE] += isinstance(error, Conflict)
            refusals.append(f"{id_}: {error}")
    return answered, refusals


def _check_how_far(ids: list[UUID] | None, wanted: _Wanted, *, all_: bool) -> None:
    """Exactly one of ids, options and --all says what is meant."""
    if [bool(ids), wanted.narrows, all_].count(True) != 1:
        errors.print("Name uploads by their ids, or by options, or say --all: one of the three.")
        raise typer.Exit(2)


def _confirm(question: str, sure: bool) -> None:
    if not sure:
        typer.confirm(question, abort=True, err=True)
