"""`uplift keys`: API keys, and new keys of the deployment."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.table import Column, Table

from uplift.cli.output import echo, print_json, print_table
from uplift.cli.session import actor, errors, read_settings, run_on_ledger
from uplift.destinations.derived_ids import new_id_key
from uplift.key_source import read_key_ring
from uplift.ledger import credentials
from uplift.ledger.credentials import BACKEND, ListedCredential, Scope
from uplift.ledger.database import Database
from uplift.maintenance.retire_key import retire_key
from uplift.sealing import KeyRing

keys = typer.Typer(
    no_args_is_help=True, add_completion=False, help="API keys, and keys of the deployment."
)


@keys.command()
def add(
    name: Annotated[str, typer.Argument(help="What it is for, such as mobile-backend.")],
    scope: Annotated[
        list[Scope],
        typer.Option(
            help="submit: send uploads. users: manage users and device tokens. read_back: read"
            " what the destination has. erase: erase users. operator: read statuses, control. May"
            " be repeated.",
        ),
    ] = sorted(BACKEND),  # noqa: B008  typer copies it
    days: Annotated[
        int | None, typer.Option(min=1, help="How many days it is valid; for good if not given.")
    ] = None,
) -> None:
    """Make an API key and print it. It is shown only once.

    Without --scope it has all scopes that the backend of an app needs, which are all but operator.
    """
    if not name.strip() or Scope.DEVICE in scope:
        errors.print(
            "A key needs a name, and another scope than device. For a device token, use"
            " `uplift users device-token NAME`."
        )
        raise typer.Exit(2)

    async def use(database: Database) -> str:
        async with database.transaction() as connection:
            made = await credentials.add_api_key(
                connection,
                read_key_ring(read_settings()),
                name,
                frozenset(scope),
                seconds=None if days is None else days * 86_400,
                by=actor(),
            )
            return made[1]

    echo(run_on_ledger(use))


@keys.command("list")
def list_(
    json: Annotated[
        bool, typer.Option("--json", help="For programs: one JSON object a line.")
    ] = False,
) -> None:
    """List the API keys by id and name. Uplift does not store the keys themselves."""

    async def use(database: Database) -> list[ListedCredential]:
        async with database.transaction() as connection:
            return await credentials.list_api_keys(connection)

    found = run_on_ledger(use)
    if json:
        for key in found:
            print_json(listed_json(key))
        return
    table = Table(
        Column("id", no_wrap=True),
        *("name", "scopes", "created", "last used", "expires", "revoked"),
        box=None,
    )
    for key in found:
        times = (key.created_at, key.last_used_at, key.expires_at, key.revoked_at)
        table.add_row(
            str(key.id),
            key.name,
            " ".join(key.scopes),
            *(f"{each:%Y-%m-%d %H:%M}" if each else "" for each in times),
        )
    print_table(table)


def listed_json(key: ListedCredential) -> dict[str, Any]:
    """An API key or a device token as JSON."""
    return {
        "id": key.id,
        "name": key.name,
        "scopes": key.scopes,
        "createdAt": key.created_at,
        "lastUsedAt": key.last_used_at,
        "expiresAt": key.expires_at,
        "revokedAt": key.revoked_at,
    }


@keys.command()
def revoke(key_id: Annotated[UUID, typer.Argument(help="The id that `keys list` shows.")]) -> None:
    """Revoke an API key or a device token at once."""

    async def use(database: Database) -> bool:
        async with database.transaction() as connection:
            return await credentials.revoke(connection, key_id, by=actor())

    if not run_on_ledger(use):
        errors.print("There is no such key, or it is already revoked. See `uplift keys list`.")
        raise typer.Exit(1)
    echo("Revoked.")


@keys.command()
def retire(
    key_id: Annotated[str, typer.Argument(help="The master key's id.", show_default=False)],
) -> None:
    """Retire a master key that neither a user nor a kept backup needs.

    Exit code 0 if it may be destroyed now: in a folder of keys (UPLIFT_MASTER_KEYS_DIR) its file
    is. 2 if it is still needed: it says for what, and until when.
    """
    settings = read_settings()

    async def use(database: Database) -> Path | None:
        key_ring = read_key_ring(settings)
        return await retire_key(database, settings, key_ring, key_id, by=actor())

    file = run_on_ledger(use)
    if file is None:
        echo(f"{key_id} is retired. Remove it from UPLIFT_MASTER_KEYS, restart all processes, and")
    else:
        echo(f"{key_id} is retired, and {file} is removed. Now")
    echo("destroy every copy: what only it opens is unreadable from then on.")


@keys.command()
def master(
    key_id: Annotated[
        str, typer.Argument(help="Its id in UPLIFT_MASTER_KEYS; today's date if not given.")
    ] = "",
) -> None:
    """Print a new master key for UPLIFT_MASTER_KEYS. Keep it with your other secrets."""
    echo(KeyRing.new_entry(key_id or f"{datetime.now(UTC):k%Y%m%d}"))


@keys.command(name="id")
def id_key() -> None:
    """Print a new id key for UPLIFT_ID_KEY. Set it once, never change it, and keep a copy."""
    echo(new_id_key())
