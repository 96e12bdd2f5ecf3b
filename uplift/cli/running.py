"""Runs a command's use case on an opened relay, and tells errors so that a person can act."""

import asyncio
import getpass
import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from uuid import UUID

import typer
from pydantic import ValidationError
from rich.console import Console
from sqlalchemy.exc import DBAPIError

from uplift.errors import ConfigurationError, UpliftError
from uplift.ledger import users
from uplift.ledger.audit import Actor
from uplift.ledger.database import Database
from uplift.settings import Settings
from uplift.wiring import Relay, open_relay

Result = TypeVar("Result")

errors = Console(stderr=True, highlight=False, soft_wrap=True)


def actor() -> Actor:
    """How the audit trail names who runs this command: their name at the operating system."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container may know its user by number only
        name = str(os.getuid())
    return Actor(f"cli:{name}")


def read_settings() -> Settings:
    """The settings from the environment; ends the command if one is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        for each in error.errors(include_input=False, include_url=False):
            name = "_".join(str(part).upper() for part in each["loc"])
            errors.print(f"UPLIFT_{name}: {each['msg']}" if name else each["msg"])
        raise typer.Exit(2) from None


def _check_there_is_a_system(settings: Settings) -> None:
    if settings.database_url is None:
        raise ConfigurationError(
            f"No Uplift runs here: there is none in {settings.data_dir}, and UPLIFT_DATABASE_URL is"
            " not set. Start one with `uplift up`, or name its servers as .env.example says."
        )


def run(use: Callable[[Relay], Coroutine[Any, Any, Result]]) -> Result:
    """Open the relay, run the use case, close the relay."""

    async def opened() -> Result:
        settings = read_settings()
        _check_there_is_a_system(settings)
        async with open_relay(settings) as relay:
            return await use(relay)

    return told(opened)


def run_on_ledger(use: Callable[[Database], Coroutine[Any, Any, Result]]) -> Result:
    """Open the ledger alone, which needs neither Redis nor keys."""

    async def opened() -> Result:
        settings = read_settings()
        _check_there_is_a_system(settings)
        database = Database.connect(settings)
        try:
            return await use(database)
        finally:
            await database.close()

    return told(opened)


def told(work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Run it; an error that Uplift knows becomes a line and exit code 2."""
    try:
        return asyncio.run(work())
    except UpliftError as error:
        errors.print(str(error), style="red", markup=False)
    except DBAPIError as error:
        errors.print(
            f"The ledger cannot be used ({type(error.orig).__name__}). Check that"
            " UPLIFT_DATABASE_URL names a PostgreSQL that answers, and run `uplift migrate`.",
            style="red",
        )
    raise typer.Exit(2)


async def find_person(database: Database, name: str) -> UUID | None:
    """The user of that name, None for no name. Ends the command if there is no such user."""
    if not name:
        return None
    async with database.transaction() as connection:
        found = await users.find_user(connection, name)
    if found is None:
        errors.print("There is no such user. See `uplift users list`.")
        raise typer.Exit(1)
    return found.id
