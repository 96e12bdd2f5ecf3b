"""`uplift users`: people at 1upHealth."""

from typing import Annotated

import typer

from cli.running import errors, run
from relay.ledger import credentials, users
from relay.ledger.users import UserRow
from relay.wiring import Relay

users_commands = typer.Typer(no_args_is_help=True, help="People whose records are relayed.")

_Name = Annotated[str, typer.Argument(help="Your own name of the person.")]


def _show(user: UserRow) -> None:
    typer.echo(f"user    {user.app_user_id}")
    typer.echo(f"1upHealth user  {user.oneup_user_id or 'not known'}")
    typer.echo(f"grant   {user.grant_state or 'none'}")
    typer.echo(f"since   {user.created_at:%Y-%m-%d %H:%M} UTC")


async def _find(relay: Relay, name: str) -> UserRow:
    async with relay.database.transaction() as connection:
        user = await users.find_user(connection, name)
    if user is None:
        errors.print("There is no such user. Create them: `uplift users add`.")
        raise typer.Exit(1)
    return user


@users_commands.command()
def add(name: _Name) -> None:
    """Create the person at 1upHealth, or adopt the one there, and obtain a grant."""

    async def use(relay: Relay) -> UserRow:
        return (await relay.provisioner.provision(name))[0]

    _show(run(use))


@users_commands.command()
def show(name: _Name) -> None:
    """The person, and whether their grant works."""

    async def use(relay: Relay) -> UserRow:
        return await _find(relay, name)

    _show(run(use))


@users_commands.command()
def device_token(
    name: _Name,
    seconds: Annotated[int, typer.Option(min=1, help="How long it is valid.")] = 3600,
) -> None:
    """Make a token with which a device submits and reads this person's uploads."""

    async def use(relay: Relay) -> str:
        user = await _find(relay, name)
        async with relay.database.transaction() as connection:
            return (await credentials.add_device_token(connection, user.id, seconds))[0]

    typer.echo(run(use))
