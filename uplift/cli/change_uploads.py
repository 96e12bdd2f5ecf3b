"""`uplift uploads redrive`, `uplift uploads try-now` and `uplift uploads cancel`."""

from collections import Counter
from typing import Annotated
from uuid import UUID

import typer

from uplift.cli import upload_filter as only
from uplift.cli.output import echo, print_json, progress_bar
from uplift.cli.session import actor, errors, read_settings, run_on_ledger
from uplift.cli.upload_filter import UploadFilter, require_one_choice
from uplift.control.cancel import Canceller
from uplift.control.redrive import Redriver, Tally
from uplift.control.try_now import TryNow
from uplift.errors import Conflict, NotFound
from uplift.ledger.cancelling import Cancelled
from uplift.ledger.database import Database
from uplift.lifecycle import DEAD_LETTERS, State

_Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
_Json = Annotated[bool, typer.Option("--json", help="For programs: one JSON object a line.")]


def redrive(
    ids: only.Ids = None,
    user: only.User = "",
    status: Annotated[
        list[State] | None, typer.Option(help="rejected, refused or expired. May be repeated.")
    ] = None,
    reason: only.Why = None,
    resource_type: only.ResourceType = "",
    fhir_version: only.Version = None,
    batch: only.Batch = None,
    updated_since: only.UpdatedSince = None,
    updated_before: only.UpdatedBefore = None,
    everything: only.All = False,
    yes: _Yes = False,
    json: _Json = False,
) -> None:
    """Retry dead letters: those with these ids, those that the options find, or --all.

    Rejected, refused and expired uploads are queued again, with a new time to give up. If a newer
    version of the same record was accepted since, the upload is superseded instead. It is safe to
    run this again.

    Exit code 1 if some stay as they are; the output says why.
    """
    chosen = UploadFilter(
        user=user,
        batch=batch,
        status=status,
        reason=reason,
        resource_type=resource_type,
        fhir_version=fhir_version,
        updated_since=updated_since,
        updated_before=updated_before,
    )
    require_one_choice(ids, chosen, everything=everything)
    if status and not DEAD_LETTERS.issuperset(status):
        errors.print("Only rejected, refused and expired uploads can be redriven.")
        raise typer.Exit(2)

    async def use(database: Database) -> tuple[Tally, list[str]]:
        redriver = Redriver(database, read_settings())
        if ids:
            return await _redrive_these(redriver, ids)
        matching = await chosen.find(database)
        total = await redriver.count(matching)
        _confirm(f"Retry {total} uploads?", yes or not total)
        with progress_bar("Redriving", total) as bar:
            tally = await redriver.redrive_all(matching, by=actor(), progress=bar.advance)
        return tally, []

    tally, refusals = run_on_ledger(use)
    left = {str(why): number for why, number in tally.left.items()}
    if json:
        print_json({"queued": tally.queued, "superseded": tally.superseded, "left": left})
    else:
        echo(f"Queued again: {tally.queued}. Superseded: {tally.superseded}.")
        for why, number in left.items():
            echo(f"Unchanged: {number} ({why}).")
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


def try_now(
    ids: only.Ids = None,
    user: only.User = "",
    reason: only.Why = None,
    resource_type: only.ResourceType = "",
    fhir_version: only.Version = None,
    batch: only.Batch = None,
    updated_since: only.UpdatedSince = None,
    updated_before: only.UpdatedBefore = None,
    everything: only.All = False,
    json: _Json = False,
) -> None:
    """Try queued uploads now that wait for a later attempt, when the cause of the wait is gone.

    Those with these ids, those that the options find, or --all. An upload that may be at the
    destination still waits until a look-up can tell. It is safe to run this again.
    """
    chosen = UploadFilter(
        user=user,
        batch=batch,
        status=None,
        reason=reason,
        resource_type=resource_type,
        fhir_version=fhir_version,
        updated_since=updated_since,
        updated_before=updated_before,
    )
    require_one_choice(ids, chosen, everything=everything)

    async def use(database: Database) -> int:
        trying = TryNow(database, read_settings())
        if ids:
            return sum([await trying.one(id_, by=actor()) for id_ in ids])
        matching = await chosen.find(database)
        with progress_bar("Trying", await trying.count(matching)) as bar:
            return await trying.all(matching, by=actor(), progress=bar.advance)

    tried = run_on_ledger(use)
    if json:
        print_json({"tried": tried})
    else:
        echo(f"Due earlier than before: {tried}.")


def cancel(
    ids: only.Ids = None,
    user: only.User = "",
    status: Annotated[
        list[State] | None, typer.Option(help="queued, sending or parked. May be repeated.")
    ] = None,
    reason: only.Why = None,
    resource_type: only.ResourceType = "",
    fhir_version: only.Version = None,
    batch: only.Batch = None,
    updated_since: only.UpdatedSince = None,
    updated_before: only.UpdatedBefore = None,
    everything: only.All = False,
    yes: _Yes = False,
    json: _Json = False,
) -> None:
    """Cancel unfinished uploads: those with these ids, those that the options find, or --all.

    An upload that was never sent is cancelled at once, and its body is deleted. One that may have
    been sent is looked up first; then a worker makes it delivered or cancelled. It is safe to run
    this again.

    Exit code 1 if some were finished before.
    """
    chosen = UploadFilter(
        user=user,
        batch=batch,
        status=status,
        reason=reason,
        resource_type=resource_type,
        fhir_version=fhir_version,
        updated_since=updated_since,
        updated_before=updated_before,
    )
    require_one_choice(ids, chosen, everything=everything)

    async def use(database: Database) -> tuple[Counter[Cancelled], list[str]]:
        canceller = Canceller(database)
        if ids:
            return await _cancel_these(canceller, ids)
        matching = await chosen.find(database)
        total = await canceller.count(matching)
        _confirm(f"Cancel {total} uploads and delete their bodies?", yes or not total)
        with progress_bar("Cancelling", total) as bar:
            return await canceller.cancel_all(matching, by=actor(), progress=bar.advance), []

    counted, refusals = run_on_ledger(use)
    done, requested = counted[Cancelled.DONE], counted[Cancelled.REQUESTED]
    too_late = counted[Cancelled.TOO_LATE]
    if json:
        print_json({"cancelled": done, "requested": requested, "tooLate": too_late})
    else:
        echo(f"Cancelled: {done}. Requested, to be looked up first: {requested}.")
    for line in refusals:
        errors.print(line, markup=False)
    raise typer.Exit(int(bool(refusals)))


async def _cancel_these(
    canceller: Canceller, ids: list[UUID]
) -> tuple[Counter[Cancelled], list[str]]:
    counted, refusals = Counter[Cancelled](), []
    for id_ in ids:
        try:
            done = await canceller.cancel(id_, by=actor())
            counted[Cancelled.DONE if done else Cancelled.REQUESTED] += 1
        except (Conflict, NotFound) as error:
            counted[Cancelled.TOO_LATE] += isinstance(error, Conflict)
            refusals.append(f"{id_}: {error}")
    return counted, refusals


def _confirm(question: str, sure: bool) -> None:
    if not sure:
        typer.confirm(question, abort=True, err=True)
