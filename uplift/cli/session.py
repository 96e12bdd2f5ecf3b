"""Runs a command on the ledger or on all of Uplift, and turns errors into lines for a person."""

import asyncio
import getpass
import os
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import typer
from pydantic import ValidationError

from uplift.cli.environment import data_dir
from uplift.cli.output import Terminal
from uplift.destination_settings import plainly
from uplift.errors import ConfigurationError, UpliftError
from uplift.settings import Settings

if TYPE_CHECKING:
    from uplift.ledger.audit import Actor
    from uplift.ledger.database import Database
    from uplift.wiring import Relay

Result = TypeVar("Result")

errors = Terminal(stderr=True, highlight=False, soft_wrap=True)


def actor() -> "Actor":
    """The audit trail's name for the person who runs this command: their account's name."""
    from uplift.ledger.audit import Actor

    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container may know its user by number only
        name = str(os.getuid())
    return Actor(f"cli:{name}")


def read_settings() -> Settings:
    """The settings from the environment. Ends the command if one is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        for each in error.errors(include_input=False, include_url=False):
            name = "_".join(str(part).upper() for part in each["loc"])
            errors.print(f"UPLIFT_{name}: {plainly(each)}" if name else plainly(each))
        raise typer.Exit(2) from None


def run(use: "Callable[[Relay], Coroutine[Any, Any, Result]]") -> Result:
    """Run `use` on all of Uplift: ledger, Redis, keys and 1upHealth. Ends the command on errors."""
    from uplift.wiring import open_relay

    async def opened() -> Result:
        async with open_relay(_of_a_system(read_settings())) as relay:
            return await use(relay)

    return _run(opened)


def run_on_ledger(
    use: "Callable[[Database], Coroutine[Any, Any, Result]]", settings: Settings | None = None
) -> Result:
    """Run `use` on the ledger, which needs neither Redis nor keys. Ends the command on errors.

    `settings` are those of the environment if there are none.
    """
    from uplift.ledger.database import Database

    async def opened() -> Result:
        database = Database.connect(_of_a_system(settings or read_settings()))
        try:
            return await use(database)
        finally:
            await database.close()

    return _run(opened)


async def find_person(database: "Database", name: str) -> UUID | None:
    """The id of the user with that name, None for no name. Ends the command if there is none."""
    from uplift.ledger.users import find_user, no_such_user

    if not name:
        return None
    async with database.transaction() as connection:
        found = await find_user(connection, name)
    if found is None:
        errors.print(str(no_such_user()))
        raise typer.Exit(1)
    return found.id


def _of_a_system(settings: Settings) -> Settings:
    if settings.database_url is None:
        raise ConfigurationError(
            f"No Uplift runs here: there is none in {data_dir()}, and UPLIFT_DATABASE_URL is not"
            " set. Start one with `uplift up`, or set the addresses of its servers as"
            " .env.example says."
        )
    return settings


def _run(work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    from sqlalchemy.exc import DBAPIError

    from uplift.logs import configure_logs_of_commands

    configure_logs_of_commands()
    try:
        return asyncio.run(work())
    except UpliftError as error:
        errors.print(str(error), style="red", markup=False)
    except DBAPIError as error:
        errors.print(
            f"The ledger cannot be used ({type(error.orig).__name__}). Check that"
            " UPLIFT_DATABASE_URL is the address of a running PostgreSQL, and run"
            " `uplift migrate`.",
            style="red",
        )
    raise typer.Exit(2)
