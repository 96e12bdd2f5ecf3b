"""`uplift`: its commands, and where each of them is. A command is imported when it runs."""

from typing import Annotated

import typer

import uplift
from uplift.cli.lazy import Command, LazyGroup

_SYSTEM = "The whole system on this machine"
_PROCESSES = "The processes of a deployment"
_RECORDS = "Records and people"
_OPERATION = "Operation"

COMMANDS = {
    "demo": Command(
        "uplift.cli.local.demo:demo",
        "Send a synthetic person's records through the whole system, and check what arrives.",
        _SYSTEM,
    ),
    "up": Command(
        "uplift.cli.local.up:up", "Run the whole system on this machine until Ctrl-C.", _SYSTEM
    ),
    "sandbox": Command("uplift.cli.simulate:sandbox", "Run a simulated 1upHealth.", _SYSTEM),
    "example-export": Command(
        "uplift.cli.simulate:example_export",
        "Write an Apple Health export of a person who does not exist.",
        _SYSTEM,
    ),
    "api": Command("uplift.cli.start:api", "Serve the API.", _PROCESSES),
    "worker": Command("uplift.cli.start:worker", "Deliver single uploads.", _PROCESSES),
    "bulk": Command("uplift.cli.start:bulk", "Deliver the uploads of batches.", _PROCESSES),
    "beat": Command("uplift.cli.start:beat", "Sweep, and delete old uploads.", _PROCESSES),
    "flower": Command(
        "uplift.cli.start:flower", "Show workers and queues in a browser.", _PROCESSES
    ),
    "push": Command(
        "uplift.cli.push.command:push",
        "Send every record in a file to Uplift and report the outcome of each.",
        _RECORDS,
    ),
    "users": Command(
        "uplift.cli.users:users_commands", "The people whose records are sent.", _RECORDS
    ),
    "uploads": Command(
        "uplift.cli.uploads:uploads_commands",
        "Find uploads, redrive dead letters, try now, cancel. Never shows contents.",
        _RECORDS,
    ),
    "batches": Command(
        "uplift.cli.batches:batches_commands", "Batches: many records in one request.", _RECORDS
    ),
    "destinations": Command(
        "uplift.cli.destinations:destinations_commands",
        "Where records go; what to do when an address has changed.",
        _OPERATION,
    ),
    "doctor": Command(
        "uplift.cli.doctor:doctor",
        "Examine settings, keys, servers and workers, and say what to do.",
        _OPERATION,
    ),
    "pause": Command(
        "uplift.cli.pause:pause", "Stop sending, for one person or for everybody.", _OPERATION
    ),
    "resume": Command(
        "uplift.cli.pause:resume", "Send again, for one person or for everybody.", _OPERATION
    ),
    "migrate": Command(
        "uplift.cli.migrate:migrate",
        "Bring the database schema up to this version of Uplift.",
        _OPERATION,
    ),
    "keys": Command("uplift.cli.keys:keys", "API keys and master keys.", _OPERATION),
    "rotate-keys": Command(
        "uplift.cli.rotate_keys:rotate_keys",
        "Move all users' data keys to the first master key.",
        _OPERATION,
    ),
    "audit": Command(
        "uplift.cli.audit:audit_commands",
        "Print the audit trail, oldest first; verify that nobody changed it.",
        _OPERATION,
    ),
    "restore": Command(
        "uplift.cli.restore:restore",
        "After you restore a backup: look up what may have been sent since.",
        _OPERATION,
    ),
    "process-ended": Command(
        "uplift.cli.process_ended:process_ended",
        "For supervisors: note in the ledger that a worker process has ended.",
        _OPERATION,
    ),
    "draft-migration": Command(
        "uplift.cli.migrate:draft_migration",
        "For developers: write the next migration.",
        hidden=True,
    ),
}

# These take their settings from the environment alone. All others look for a running `uplift up`.
_ALONE = {"demo", "up", "sandbox", "example-export", "api", "worker", "bulk", "beat", "flower"}


class _Commands(LazyGroup):
    table = COMMANDS


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A durable relay of FHIR records from Apple Health to 1upHealth or another FHIR server."
    " `uplift --install-completion` lets your shell complete commands, options and statuses.",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"uplift {uplift.__version__}")
        raise typer.Exit


@app.callback()
def _prepare(
    context: typer.Context,
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    if context.invoked_subcommand not in _ALONE:
        from uplift.cli.environment import load_environment

        load_environment()
