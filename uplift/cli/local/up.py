"""`uplift up`: the whole system on this machine, and what `uplift demo` shares with it."""

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr
from rich.table import Table

from uplift.cli.environment import data_dir, remove_environment, write_environment
from uplift.cli.local.embedded.account import OWN
from uplift.cli.local.processes import interrupted_by_signals
from uplift.cli.local.system import Like, System
from uplift.cli.output import Terminal
from uplift.cli.session import actor, read_settings
from uplift.destinations.configured import configured_destinations
from uplift.destinations.derived_ids import new_id_key
from uplift.errors import UpliftError
from uplift.key_source import read_key_ring
from uplift.ledger import credentials
from uplift.ledger.credentials import BACKEND, Scope
from uplift.ledger.database import Database
from uplift.secret_files import FLOWER_SECRETS, with_secrets
from uplift.settings import Settings, secrets

_KEY_NAME = "uplift up"
_TEND_SECONDS = 0.5

console = Terminal(highlight=False)


LikeOption = Annotated[
    Like, typer.Option(help="Which server the sandbox is like: 1upHealth, or another.")
]


def up(like: LikeOption = "oneup") -> None:
    """Run the whole system on this machine until Ctrl-C. Its data stays for the next time."""
    settings = read_settings()
    raise typer.Exit(_run_up(data_dir(), like, settings))


def _run_up(folder: Path, like: Like, chosen: Settings) -> int:
    try:
        check_destinations(chosen)
        settings = {"UPLIFT_LOG_FORMAT": "text", **_chosen()}
        if "UPLIFT_ONEUP_FHIR_URL" not in settings:
            # Our own sandbox keeps ids. Only then can an unknown outcome be looked up by id.
            settings.setdefault("UPLIFT_ONEUP_KEEPS_IDS", "true")
        # Each has a ledger of its own, since its records are at a server of their own.
        kept = folder if like == "oneup" else folder / like
        with (
            interrupted_by_signals(),
            System(kept, settings, say=say, echo=_echo, like=like, account=OWN) as system,
        ):
            system.environment["UPLIFT_API_KEY"] = add_api_key(system)
            system.environment["UPLIFT_API_URL"] = system.api_url
            file = write_environment(folder, system.environment)
            try:
                print_addresses(system, file)
                with tended(system):
                    threading.Event().wait()
            finally:
                remove_environment(folder)
    except UpliftError as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print("Stopped. The data is kept; `uplift up` continues with it.")
    return 0


def check_destinations(chosen: Settings) -> None:
    """Says what is wrong with a destination at once: five processes would each say it, later.

    Raises ConfigurationError. An id key is made if none is set.
    """
    id_key = chosen.id_key or SecretStr(new_id_key())
    configured_destinations(chosen.model_copy(update={"id_key": id_key}))


def _chosen() -> dict[str, str]:
    """The settings of the person who starts it: they replace ours."""
    chosen = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("UPLIFT_", "FLOWER_")) and value
    }
    return with_secrets([*secrets().values(), *FLOWER_SECRETS], chosen)


@contextmanager
def tended(system: System) -> Iterator[None]:
    """Within, a process that ends by itself is started again."""
    over = threading.Event()

    def tend() -> None:
        while not over.wait(_TEND_SECONDS):
            for name in system.tend():
                console.print(f"{name} had ended and was started again.", style="yellow")

    thread = threading.Thread(target=tend, name="tend", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def add_api_key(system: System) -> str:
    """A new API key for the running system. Keys of earlier starts are revoked."""

    async def add() -> str:
        environment = system.environment
        keys, folder = (
            environment.get(name) for name in ("UPLIFT_MASTER_KEYS", "UPLIFT_MASTER_KEYS_DIR")
        )
        settings = Settings(
            database_url=SecretStr(environment["UPLIFT_DATABASE_URL"]),
            master_keys=None if keys is None else SecretStr(keys),
            master_keys_dir=None if folder is None else Path(folder),
        )
        database = Database.connect(settings)
        try:
            async with database.transaction() as connection:
                for key in await credentials.list_api_keys(connection):
                    if key.name == _KEY_NAME and key.revoked_at is None:
                        await credentials.revoke(connection, key.id)
                scopes = BACKEND | {Scope.OPERATOR}
                key_ring = read_key_ring(settings)
                _, secret = await credentials.add_api_key(
                    connection, key_ring, _KEY_NAME, scopes, by=actor()
                )
                return secret
        finally:
            await database.close()

    return asyncio.run(add())


def print_addresses(system: System, environment: Path | None) -> None:
    """Where everything listens, and where other commands find its settings."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("API", f"{system.api_url}/docs")
    table.add_row("Flower", f"{system.flower_url} (login {system.flower_login})")
    for name, url in system.admin_urls.items():
        table.add_row(f"Metrics of {name}", f"{url}/metrics")
    if system.sandbox_url is not None:
        table.add_row(
            "Sandbox", f"{system.sandbox_url}/_sandbox/counts (Bearer {system.sandbox_token})"
        )
    if environment is not None:
        table.add_row(
            "Settings", f"{environment} (other `uplift` commands on this machine read it)"
        )
    console.print(table)


def say(line: str) -> None:
    """One step of the start."""
    console.print(line, style="dim", markup=False, soft_wrap=True)


def _echo(name: str, line: str) -> None:
    console.print(f"{name:8} {line}", markup=False, soft_wrap=True)
