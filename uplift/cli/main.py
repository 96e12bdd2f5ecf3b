"""`uplift`: runs the system, and speaks with it."""

from typing import Annotated, Literal

import typer

from uplift.cli import audit, doctor, restore, rotate_keys
from uplift.cli.batches import batches_commands
from uplift.cli.keys import keys
from uplift.cli.local import demo
from uplift.cli.local.environment import load_environment
from uplift.cli.pause import pause, resume
from uplift.cli.push import push
from uplift.cli.running import errors, read_settings, run_on_ledger
from uplift.cli.uploads import uploads_commands
from uplift.cli.users import users_commands
from uplift.ledger import migrate as migrations
from uplift.ledger.database import Database
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.server import serve

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A durable relay of FHIR records from Apple Health to 1upHealth."
    " `uplift --install-completion` has your shell complete its commands, options and statuses.",
)
app.add_typer(keys, name="keys")
app.add_typer(users_commands, name="users")
app.add_typer(uploads_commands, name="uploads")
app.add_typer(batches_commands, name="batches")
app.command()(push.push)
app.command()(doctor.doctor)
app.command()(rotate_keys.rotate_keys)
app.command()(restore.recover)
app.command()(audit.audit)
app.command()(pause)
app.command()(resume)


@app.callback()
def _prepare(context: typer.Context) -> None:
    if context.invoked_subcommand not in ("demo", "up"):
        load_environment()


@app.command("demo")
def demo_() -> None:
    """Push a synthetic person's records through the whole system, show what came of it, stop."""
    raise typer.Exit(demo.run_demo(read_settings().data_dir / "demo"))


@app.command()
def up() -> None:
    """Run the whole system on this machine until Ctrl-C."""
    raise typer.Exit(demo.run_up(read_settings().data_dir))


@app.command()
def migrate() -> None:
    """Bring the ledger's schema up to this version. Safe to run anywhere, any number of times."""

    async def use(database: Database) -> str | None:
        await migrations.upgrade(database)
        return await migrations.current(database)

    typer.echo(f"The ledger is at revision {run_on_ledger(use)}.")


@app.command()
def sandbox(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on loopback; 0 takes a free one.")
    ] = 8090,
    ids: Annotated[
        Literal["kept", "assigned"], typer.Option(help="Who names new resources.")
    ] = "kept",
) -> None:
    """Run a simulated 1upHealth. `python -m uplift.sandbox --help` lists all it can be told."""
    try:
        serve(port=port, config=SandboxConfig(ids=ids), ready=typer.echo)
    except OSError as error:
        errors.print(f"Cannot listen on port {port}: {error.strerror}. Try --port 0.")
        raise typer.Exit(2) from None


@app.command(hidden=True)
def draft_migration(message: str) -> None:
    """For developers: write the next migration from what differs between tables and database."""

    async def use(database: Database) -> None:
        await migrations.draft(database, message)

    run_on_ledger(use)
