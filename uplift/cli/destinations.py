"""`uplift destinations`: where records go, and what to do when an address has changed."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import orjson
import typer
from rich.table import Table

from uplift.cli.output import echo, json_text, print_json, print_table
from uplift.cli.session import actor, errors, read_settings, run_on_ledger
from uplift.destinations.configured import configured_destinations
from uplift.errors import ConfigurationError
from uplift.ledger import destinations
from uplift.ledger.database import Database
from uplift.ledger.destinations import DestinationRow
from uplift.tokens.login_keys import shown_keys
from uplift.tokens.signing_keys import key_set, new_key, write_key

destinations_commands = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Where records go."
)

_MAX_ROWS = 10_000  # in one transaction


class _Algorithm(StrEnum):
    """typer wants choices as an enumeration."""

    ES384 = "ES384"
    RS384 = "RS384"


def _addresses() -> dict[str, Any]:
    """The addresses of the settings, by the destinations' names."""
    found = configured_destinations(read_settings())
    return {name: orjson.loads(each.address) for name, each in found.items()}


@destinations_commands.command("list")
def list_(
    json: Annotated[
        bool, typer.Option("--json", help="For programs: one JSON object a line.")
    ] = False,
) -> None:
    """List the destinations that the ledger knows. Exit code 1 if an address has changed."""
    addresses = _addresses()

    async def use(database: Database) -> list[DestinationRow]:
        async with database.transaction() as connection:
            return await destinations.list_destinations(connection)

    rows = run_on_ledger(use)
    changed = [row.name for row in rows if addresses.get(row.name, row.address) != row.address]
    if json:
        for row in rows:
            shown = {"name": row.name, "address": row.address, "since": row.since}
            counts = {"users": row.users, "unfinished": row.unfinished}
            print_json({**shown, **counts, "changed": row.name in changed})
    else:
        table = Table("name", "mode", "bases", "users", "unfinished", "state", box=None)
        for row in rows:
            table.add_row(
                row.name,
                str(row.address["mode"]),
                " ".join(f"{key}={value}" for key, value in row.address["bases"].items()),
                str(row.users),
                str(row.unfinished),
                _state(row.name, addresses, changed),
            )
        print_table(table)
    if changed:
        errors.print(
            "Nothing is sent where the address changed. If the server has what was delivered:"
            " uplift destinations moved NAME --same-data. If it is an empty one: --empty.",
            markup=False,
        )
    raise typer.Exit(int(bool(changed)))


def _state(name: str, addresses: dict[str, Any], changed: list[str]) -> str:
    if name not in addresses:
        return "not in the settings"
    return "ADDRESS CHANGED" if name in changed else "in use"


@destinations_commands.command()
def moved(
    name: Annotated[str, typer.Argument(help="The destination's name.")],
    same_data: Annotated[
        bool, typer.Option("--same-data", help="It has what was delivered: go on.")
    ] = False,
    empty: Annotated[
        bool, typer.Option("--empty", help="It has nothing: forget what was delivered there.")
    ] = False,
) -> None:
    """Decide about a destination whose address changed. The settings have its new address.

    With --empty its users get a new sync token, so that their apps send everything again.
    """
    if same_data == empty:
        errors.print("Say either --same-data or --empty.")
        raise typer.Exit(2)
    addresses = _addresses()
    if name not in addresses:
        errors.print(f"The settings have no such destination. They have: {', '.join(addresses)}.")
        raise typer.Exit(2)

    async def use(database: Database) -> int:
        if empty:
            await _forget(database, name)
        async with database.transaction() as connection:
            await destinations.change_address(
                connection, name, orjson.dumps(addresses[name]).decode(), by=actor()
            )
            return await destinations.ask_for_all(connection, [name]) if empty else 0

    users = run_on_ledger(use)
    echo(f"{name} has a new address. Processes send to it within seconds.")
    if empty:
        echo(f"What was delivered is forgotten. {users} user(s) have a new sync token.")


@destinations_commands.command("new-key")
def new_key_(
    file: Annotated[Path, typer.Argument(help="Where to write it. It must not be there yet.")],
    algorithm: Annotated[
        _Algorithm, typer.Option(help="ES384: a P-384 key. RS384: an RSA key of 3072 bits.")
    ] = _Algorithm.ES384,
) -> None:
    """Make a key for the login private_key_jwt, and print the JWKS to register at the server."""
    made = new_key(algorithm.value)
    try:
        write_key(made, file)
    except FileExistsError:
        errors.print(f"{file} is there already, and may be a key in use. Name another file.")
        raise typer.Exit(2) from None
    except OSError as error:
        errors.print(f"{file}: {error.strerror}.")
        raise typer.Exit(2) from None
    errors.print(f"{file} has the private key. Only its owner can read it: it must be the account")
    errors.print("that runs Uplift. Register this at the server:")
    echo(json_text(key_set([made]), indent=True))


@destinations_commands.command()
def jwks(
    name: Annotated[
        str, typer.Argument(help="The destination's name; the one of new users if not given.")
    ] = "",
) -> None:
    """Print the public keys of a destination's login, for its server: they are no secret.

    While keys rotate these are two: key_file, which signs, and other_key_file.
    """
    try:
        found = configured_destinations(read_settings())
        destination = found.get(name or found.default)
        if destination is None:
            errors.print(f"There is no such destination. There are: {', '.join(found)}.")
            raise typer.Exit(2)
        keys = shown_keys([destination])
    except ConfigurationError as error:
        errors.print(str(error), style="red", markup=False)
        raise typer.Exit(2) from None
    if not keys:
        errors.print(f"The login of {destination.name} is not private_key_jwt: it has no keys.")
        raise typer.Exit(1)
    echo(json_text(key_set(keys), indent=True))


async def _forget(database: Database, name: str) -> None:
    """Forget what was delivered there. Nothing is sent there meanwhile: its address changed."""
    after: UUID | None = UUID(int=0)
    while after is not None:
        async with database.transaction() as connection:
            after = await destinations.forget_some(connection, name, after=after, limit=_MAX_ROWS)
