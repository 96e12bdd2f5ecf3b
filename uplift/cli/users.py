"""`uplift users`: people at 1upHealth."""

import re
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.table import Table

from uplift.cli import device_tokens
from uplift.cli.output import echo, print_json, print_table
from uplift.cli.paging import read_pages
from uplift.cli.session import actor, errors, run
from uplift.ledger import users
from uplift.ledger.erasing_upstream import Progress
from uplift.ledger.named_patients import Patients
from uplift.ledger.summary import Summary, summarize
from uplift.ledger.tables import ONEUP
from uplift.ledger.token_pair import TokenPair
from uplift.ledger.users import GrantState, UserRow
from uplift.lifecycle import State
from uplift.users.erase import Erasure, Upstream
from uplift.users.names import wrong_with
from uplift.users.patients import NO_PATIENT_ID, PATIENT_ID, NamedUser
from uplift.wiring import Relay

users_commands = typer.Typer(
    no_args_is_help=True, add_completion=False, help="The people whose records are sent."
)

_Name = Annotated[str, typer.Argument(help="Your own name for the person.")]
_Json = Annotated[bool, typer.Option("--json", help="For programs: one JSON object a line.")]

_PAGE = 500
# What the header that carries a token can hold: RFC 6749, appendix A.12, without the space.
_TOKEN = re.compile(r"[\x21-\x7e]{1,8192}", re.ASCII)


def _show(
    user: UserRow, progress: Progress | None = None, patients: Patients | None = None
) -> None:
    echo(f"user    {user.app_user_id}")
    if user.oneup_user_id or user.destination == ONEUP:
        echo(f"1upHealth user  {user.oneup_user_id or 'unknown'}")
    brought = ", from your backend" if user.grant_origin == "backend" else ""
    echo(f"grant   {user.grant_state or 'none'}{brought}")
    echo(f"destination  {user.destination}")
    for there, resource_id in sorted((patients or {}).items()):
        echo(f"patient  {resource_id} at {there}")
    echo(f"paused  {'yes' if user.paused else 'no'}")
    echo(f"since   {user.created_at:%Y-%m-%d %H:%M} UTC")
    if progress is not None:
        echo(f"erasing at destinations  since {progress.since:%Y-%m-%d %H:%M} UTC")
        echo(f"left upstream  {progress.left + progress.lost}")
        if progress.problem:
            echo(f"last problem  {progress.problem}")


def _json(
    user: UserRow, progress: Progress | None = None, patients: Patients | None = None
) -> dict[str, Any]:
    """The API's names."""
    erasing = None
    if progress is not None:
        left = progress.left + progress.lost
        erasing = {"since": progress.since, "leftUpstream": left, "problem": progress.problem}
    return {
        "erasingSince": user.erasing_upstream_since,
        "erasing": erasing,
        "appUserId": user.app_user_id,
        "oneupUserId": user.oneup_user_id,
        "grant": user.grant_state or GrantState.NONE,
        "grantOrigin": user.grant_origin,
        "destination": user.destination,
        "patients": dict(patients) if patients else None,
        "paused": user.paused,
        "syncToken": user.sync_token,
        "createdAt": user.created_at,
    }


async def _find(relay: Relay, name: str) -> UserRow:
    async with relay.database.transaction() as connection:
        user = await users.find_user(connection, name)
    if user is None:
        errors.print(str(users.no_such_user()))
        raise typer.Exit(1)
    return user


@users_commands.command("list")
def list_(
    grant: Annotated[
        GrantState | None,
        typer.Option(help="Only with this grant. needs_authorization: ask these people again."),
    ] = None,
    json: _Json = False,
) -> None:
    """List all people, in the order in which they were added."""

    async def use(relay: Relay) -> list[UserRow]:
        async def page(last: UserRow | None, size: int) -> list[UserRow]:
            async with relay.database.transaction() as connection:
                return await users.list_users(
                    connection, grant=grant, after=last.id if last else None, limit=size
                )

        return await read_pages(page, page=_PAGE)

    found = run(use)
    if json:
        for user in found:
            print_json(_json(user))
        return
    table = Table("user", "1upHealth user", "grant", "since", box=None)
    for user in found:
        table.add_row(
            user.app_user_id,
            user.oneup_user_id or "",
            user.grant_state or GrantState.NONE,
            f"{user.created_at:%Y-%m-%d %H:%M}",
        )
    print_table(table)


@users_commands.command()
def add(name: _Name) -> None:
    """Add the person. At 1upHealth: create them, or use the one who exists, and obtain a grant."""
    if (why := wrong_with(name)) is not None:
        errors.print(why)
        raise typer.Exit(2)

    async def use(relay: Relay) -> UserRow:
        return (await relay.provisioner.provision(name, by=actor()))[0]

    _show(run(use))


@users_commands.command()
def move(
    name: _Name,
    to: Annotated[str, typer.Option(help="The destination: see `uplift destinations list`.")],
) -> None:
    """Send what the person brings to another destination from now on.

    What was never sent goes there too. What may be at the old one ends there. The person's apps see
    a new sync token, and send everything again.
    """

    async def use(relay: Relay) -> UserRow:
        return await relay.mover.move(name, to, by=actor())

    _show(run(use))


@users_commands.command()
def patient(
    name: _Name,
    resource_id: Annotated[
        str, typer.Option("--id", help="The Patient's id there, without `Patient/`.")
    ],
    destination: Annotated[
        str | None, typer.Option(help="Where it is. Without it: at the person's destination.")
    ] = None,
) -> None:
    """Say which Patient stands for the person at a destination, before anything is sent there.

    The person's records refer to it. Uplift makes no Patient then, and never writes or deletes this
    one.
    """
    if not re.fullmatch(PATIENT_ID, resource_id):
        errors.print(NO_PATIENT_ID)
        raise typer.Exit(2)

    async def use(relay: Relay) -> NamedUser:
        return await relay.patient_namer.name(name, resource_id, destination, by=actor())

    named = run(use)
    _show(named.user, patients=named.patients)


@users_commands.command()
def resend(name: _Name) -> None:
    """Have everything of the person sent once more, when their apps send it again.

    The apps see a new sync token. Nothing is there twice: what is there is updated.
    """

    async def use(relay: Relay) -> UserRow:
        return await relay.mover.resend(name, by=actor())

    _show(run(use))


@users_commands.command()
def show(name: _Name, json: _Json = False) -> None:
    """Show the person, whether their grant works, and how far their erasing is."""

    async def use(relay: Relay) -> tuple[UserRow, Progress | None, Patients]:
        user = await _find(relay, name)
        return user, await relay.eraser.progress(name), relay.patient_namer.of(user)

    user, progress, patients = run(use)
    if json:
        print_json(_json(user, progress, patients))
    else:
        _show(user, progress, patients)


@users_commands.command()
def summary(name: _Name, json: _Json = False) -> None:
    """Count the person's uploads by status. Exit code 0 once all are finished, else 1."""

    async def use(relay: Relay) -> Summary:
        user = await _find(relay, name)
        async with relay.database.transaction() as connection:
            return await summarize(connection, user.id)

    counted = run(use)
    if json:
        by_type = {type_: _counts(states) for type_, states in counted.by_type.items()}
        shown = {"complete": counted.complete, "byStatus": _counts(counted.by_state)}
        print_json({"appUserId": name, **shown, "byType": by_type})
        raise typer.Exit(0 if counted.complete else 1)
    there = [state for state in State if counted.by_state[state]]
    table = Table("type", *there, box=None)
    for resource_type, states in counted.by_type.items():
        table.add_row(resource_type, *(str(states.get(state, "")) for state in there))
    table.add_row("all", *(str(counted.by_state[state]) for state in there))
    print_table(table)
    if counted.by_state[State.PARKED]:
        echo("Parked uploads wait for the person's consent. Once it is given: `uplift users add`.")
    echo("All uploads are finished." if counted.complete else "Some uploads are not finished.")
    raise typer.Exit(0 if counted.complete else 1)


def _counts(states: Mapping[State, int]) -> dict[str, int]:
    return {str(state): count for state, count in states.items()}


@users_commands.command()
def bring_grant(
    name: _Name,
    expires_in: Annotated[
        int,
        typer.Option(
            min=1, max=366 * 24 * 3600, help="How many seconds the access token is valid."
        ),
    ] = 7200,
) -> None:
    """Give the person a grant that you obtained yourself. Adds the person if they are new.

    Asks for the access token and the refresh token, or reads them from standard input, one on each
    line. They are no arguments, because other users of the machine can see those.
    """
    access, refresh = _read_tokens()

    async def use(relay: Relay) -> UserRow:
        tokens = TokenPair(access, refresh or None, float(expires_in))
        return await relay.provisioner.bring_grant(name, tokens, by=actor())

    _show(run(use))


def _read_tokens() -> tuple[str, str]:
    if sys.stdin.isatty():
        access = typer.prompt("Access token", hide_input=True)
        refresh = typer.prompt(
            "Refresh token (Enter if there is none)",
            hide_input=True,
            default="",
            show_default=False,
        )
    else:
        access, refresh = sys.stdin.readline().strip(), sys.stdin.readline().strip()
    for which, token in (("access", access), ("refresh", refresh)):
        if not _TOKEN.fullmatch(token) and (token or which == "access"):
            errors.print(f"The {which} token is not 1 to 8192 visible ASCII characters.")
            raise typer.Exit(2)
    return access, refresh


users_commands.command()(device_tokens.device_token)
users_commands.command()(device_tokens.device_tokens)
users_commands.command()(device_tokens.revoke_device_tokens)


@users_commands.command()
def erase(
    name: _Name,
    upstream: Annotated[
        Upstream | None,
        typer.Option(
            help="delete: what they have at their destinations is deleted first. keep: it stays,"
            " also if it was being deleted. Without it: keep, or what was begun."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete all that Uplift stores about the person, and if asked what their destinations have."""
    if not yes:
        also = " and at their destinations" if upstream is Upstream.DELETE else ""
        typer.confirm(
            f"Erase {name}? This deletes their records, tokens and statuses here{also} for good,"
            " including records that are not delivered yet.",
            abort=True,
        )

    async def use(relay: Relay) -> Erasure:
        # Longer than any lease: after that, a killed worker sends no more.
        return await relay.eraser.erase(
            name, wait=relay.settings.lease_seconds + 10, upstream=upstream, by=actor()
        )

    erasure = run(use)
    for line in erasure.history:
        echo(line)
    if not erasure.done and erasure.upstream is Upstream.DELETE:
        why = f" The last problem: {erasure.problem}." if erasure.problem else ""
        errors.print(
            f"Nothing of theirs is sent any more. At their destinations {erasure.left_upstream}"
            f" records and resources are not gone yet.{why} `uplift beat` goes on with it. Run this"
            " again to check, or `uplift users show`."
        )
        raise typer.Exit(1)
    if not erasure.done:
        errors.print(
            f"Nobody can read their data any more, but workers are still sending {erasure.sending}"
            " uploads. The sweep deletes these when they end. Run this again to check."
        )
        raise typer.Exit(1)
    echo("Erased.")
    if erasure.left_upstream:
        echo(f"Left at their destinations, or perhaps left there: {erasure.left_upstream}.")
    if erasure.unreadable_by is not None:
        echo(f"Nobody can read what backups have of them after {erasure.unreadable_by:%Y-%m-%d}.")
