"""`uplift users device-token`, `device-tokens` and `revoke-device-tokens`."""

from typing import Annotated
from uuid import UUID

import typer
from rich.table import Column, Table

from uplift.cli.output import echo, print_json, print_table
from uplift.cli.session import actor, errors, run
from uplift.ledger import credentials, users
from uplift.wiring import Relay

_Name = Annotated[str, typer.Argument(help="Your own name for the person.")]


def device_token(
    name: _Name,
    seconds: Annotated[int, typer.Option(min=1, help="How many seconds it is valid.")] = 3600,
    device: Annotated[str, typer.Option(help="Your own name for the device.")] = "device",
) -> None:
    """Make a token for a device: it can send and read this person's uploads only."""

    async def use(relay: Relay) -> credentials.NewDeviceToken:
        async with relay.database.transaction() as connection:
            user = await users.require_user(connection, name, lock=True)
            return await credentials.add_device_token(
                connection, relay.key_ring, user.id, seconds, name=device, by=actor()
            )

    made = run(use)
    echo(made.secret)
    errors.print(
        f"Its id is {made.id}. To revoke it: uplift users revoke-device-tokens NAME --id {made.id}",
        markup=False,
    )


def device_tokens(
    name: _Name,
    json: Annotated[
        bool, typer.Option("--json", help="For programs: one JSON object a line.")
    ] = False,
) -> None:
    """List the person's device tokens that are neither revoked nor expired."""

    async def use(relay: Relay) -> list[credentials.ListedCredential]:
        async with relay.database.transaction() as connection:
            user = await users.require_user(connection, name)
            return await credentials.list_device_tokens(connection, user.id)

    found = run(use)
    if json:
        for token in found:
            print_json(
                {
                    "id": token.id,
                    "name": token.name,
                    "createdAt": token.created_at,
                    "expiresAt": token.expires_at,
                }
            )
        return
    table = Table(Column("id", no_wrap=True), "name", "created", "expires", box=None)
    for token in found:
        times = (token.created_at, token.expires_at)
        table.add_row(
            str(token.id), token.name, *(f"{each:%Y-%m-%d %H:%M}" if each else "" for each in times)
        )
    print_table(table)


def revoke_device_tokens(
    name: _Name,
    token_id: Annotated[
        UUID | None, typer.Option("--id", help="Only this token; all of the person's if not given.")
    ] = None,
) -> None:
    """Revoke the person's device tokens at once."""

    async def use(relay: Relay) -> int:
        async with relay.database.transaction() as connection:
            user = await users.require_user(connection, name)
            if token_id is None:
                return await credentials.revoke_device_tokens(connection, user.id, by=actor())
            if not await credentials.is_device_token(connection, token_id, user.id):
                errors.print("The person has no such device token.")
                raise typer.Exit(1)
            return int(await credentials.revoke(connection, token_id, by=actor()))

    echo(f"Revoked: {run(use)}.")
