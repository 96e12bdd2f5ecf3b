"""`uplift users`: people at 1upHealth."""

import re
import sys
from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.table import Table

from uplift.cli.running import actor, errors, run
from uplift.cli.showing import print_json, print_table
from uplift.ledger import credentials, users
from uplift.ledger.summary import Summary, summarize
from uplift.ledger.token_pair import TokenPair
from uplift.ledger.users import GrantState, UserRow
from uplift.lifecycle import State
from uplift.users.erase import Erasure
from uplift.wiring import Relay

users_commands = typer.Typer(no_args_is_help=True, help="People whose records are relayed.")

_Name = Annotated[str, typer.Argument(help="Your own name of the person.")]
_Json = Annotated[bool, typer.Option("--json", help="For programs: one JSON object a line.")]

_PAGE = 500
# What the header that carries a token can hold: RFC 6749, appendix A.12, without the space.
_TOKEN = re.compile(r"[\x21-\x7e]{1,8192}", re.ASCII)


def _show(user: UserRow) -> None:
    typer.echo(f"user    {user.app_user_id}")
    typer.echo(f"1upHealth user  {user.oneup_user_id or 'not known'}")
    brought = ", brought by the backend" if user.grant_origin == "backend" else ""
    typer.echo(f"grant   {user.grant_state or 'none'}{brought}")
    typer.echo(f"paused  {'yes' if user.paused else 'no'}")
    typer.echo(f"since   {user.created_at:%Y-%m-%d %H:%M} UTC")


def _json(user: UserRow) -> dict[str, Any]:
    """The API's names."""
    return {
        "appUserId": user.app_user_id,
        "oneupUserId": user.oneup_user_id,
        "grant": user.grant_state or GrantState.NONE,
        "grantOrigin": user.grant_origin,
        "paused": user.paused,
        "createdAt": user.created_at,
    }


async def _find(relay: Relay, name: str) -> UserRow:
    async with relay.database.transaction() as connection:
        user = await users.find_user(connection, name)
    if user is None:
        errors.print("There is no such user. Create them: `uplift users add`.")
        raise typer.Exit(1)
    return user


@users_commands.command("list")
def list_(
    grant: Annotated[
        GrantState | None,
        typer.Option(help="Only these; needs_authorization are the people to ask again."),
    ] = None,
    json: _Json = False,
) -> None:
    """Everybody, in the order in which they were added."""

    async def use(relay: Relay) -> list[UserRow]:
        found: list[UserRow] = []
        while True:
            async with relay.database.transaction() as connection:
                page = await users.list_users(
                    connection,
                    grant=grant,
                    after=found[-1].id if found else None,
                    limit=_PAGE,
                )
            found += page
            if len(page) < _PAGE:
                return found

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
    """Create the person at 1upHealth, or adopt the one there, and obtain a grant."""

    async def use(relay: Relay) -> UserRow:
        return (await relay.provisioner.provision(name, by=actor()))[0]

    _show(run(use))


@users_commands.command()
def show(name: _Name, json: _Json = False) -> None:
    """The person, and whether their grant works."""

    async def use(relay: Relay) -> UserRow:
        return await _find(relay, name)

    user = run(use)
    if json:
        print_json(_json(user))
    else:
        _show(user)


@users_commands.command()
def summary(name: _Name, json: _Json = False) -> None:
    """How far the person's uploads are. The exit code is 0 once nothing is on its way any more."""

    async def use(relay: Relay) -> Summary:
        user = await _find(relay, name)
        async with relay.database.transaction() as connection:
            return await summarize(connection, user.id)

    counted = run(use)
    if json:
        by_type = {type_: _counts(states) for type_, states in counted.by_type.items()}
        told = {"complete": counted.complete, "byStatus": _counts(counted.by_state)}
        print_json({"appUserId": name, **told, "byType": by_type})
        raise typer.Exit(0 if counted.complete else 1)
    there = [state for state in State if counted.by_state[state]]
    table = Table("type", *there, box=None)
    for resource_type, states in counted.by_type.items():
        table.add_row(resource_type, *(str(states.get(state, "")) for state in there))
    table.add_row("all", *(str(counted.by_state[state]) for state in there))
    print_table(table)
    if counted.by_state[State.PARKED]:
        typer.echo(
            "The parked wait for the person's consent: `uplift users add`, once they gave it."
        )
    typer.echo("Everything has come to its end." if counted.complete else "Some are on their way.")
    raise typer.Exit(0 if counted.complete else 1)


def _counts(states: Mapping[State, int]) -> dict[str, int]:
    return {str(state): count for state, count in states.items()}


@users_commands.command()
def bring_grant(
    name: _Name,
    expires_in: Annotated[
        int, typer.Option(min=1, max=366 * 24 * 3600, help="Seconds the access token is good for.")
    ] = 7200,
) -> None:
    """Give the person a grant that you obtained yourself, and make them a user if they are none.

    The access token, and on a second line the refresh token if there is one, are asked for, or
    read from standard input. On a command line others could see them.
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


@users_commands.command()
def device_token(
    name: _Name,
    seconds: Annotated[int, typer.Option(min=1, help="How long it is valid.")] = 3600,
) -> None:
    """Make a token with which a device submits and reads this person's uploads."""

    async def use(relay: Relay) -> credentials.NewDeviceToken:
        async with relay.database.transaction() as connection:
            user = await users.find_user(connection, name, lock=True)
            if user is None:
                errors.print("There is no such user. Create them: `uplift users add`.")
                raise typer.Exit(1)
            return await credentials.add_device_token(connection, user.id, seconds, by=actor())

    made = run(use)
    typer.echo(made.secret)
    errors.print(
        f"Its id is {made.id}: `uplift users revoke-device-tokens --id` ends it.", markup=False
    )


@users_commands.command()
def revoke_device_tokens(
    name: _Name,
    token_id: Annotated[
        UUID | None, typer.Option("--id", help="Only this one; all of theirs if not given.")
    ] = None,
) -> None:
    """End the person's device tokens at once."""

    async def use(relay: Relay) -> int:
        user = await _find(relay, name)
        async with relay.database.transaction() as connection:
            if token_id is None:
                return await credentials.revoke_device_tokens(connection, user.id, by=actor())
            if not await credentials.is_device_token(connection, token_id, user.id):
                errors.print("The person has no such device token.")
                raise typer.Exit(1)
            return int(await credentials.revoke(connection, token_id, by=actor()))

    typer.echo(f"Revoked: {run(use)}.")


@users_commands.command()
def erase(
    name: _Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Destroy all that Uplift keeps of the person. What 1upHealth has stays there."""
    if not yes:
        typer.confirm(
            f"Erase {name}? Their records, tokens and statuses here are gone for good,"
            " also those not delivered yet.",
            abort=True,
        )

    async def use(relay: Relay) -> Erasure:
        # Longer than any lease: then a worker that was killed no longer counts.
        return await relay.eraser.erase(name, wait=relay.settings.lease_seconds + 10, by=actor())

    erasure = run(use)
    if not erasure.done:
        errors.print(
            f"Nothing of theirs can be read any more, but workers still hold {erasure.sending}"
            " uploads. The sweep erases those as they end; run this again to see."
        )
        raise typer.Exit(1)
    typer.echo("Erased.")
