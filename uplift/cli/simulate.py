"""`uplift sandbox` and `uplift example-export`: a 1upHealth and a person that do not exist."""

import os
from pathlib import Path
from typing import Annotated

import typer

from uplift.cli.output import echo
from uplift.errors import ConfigurationError
from uplift.sandbox.export.make_export import SEED, write_export
from uplift.secret_files import with_secrets

_SECRETS = ("SANDBOX_CLIENT_SECRET", "SANDBOX_STATE_KEY", "SANDBOX_CONTROL_TOKEN")

sandbox = typer.Typer(add_completion=False)


@sandbox.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def _sandbox(context: typer.Context) -> None:
    """Run a simulated 1upHealth. Its options are its own."""
    from uplift.sandbox.command import main

    try:
        os.environ.update(with_secrets(_SECRETS, os.environ))
    except ConfigurationError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    raise typer.Exit(main(context.args))


def example_export(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = Path(
        "apple-health-export.zip"
    ),
    records: Annotated[
        int | None,
        typer.Option(help="How many records to list.", show_default="about 300"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed gives another person.")] = SEED,
    force: Annotated[bool, typer.Option("--force", help="Replace a file of that name.")] = False,
) -> None:
    """Write an Apple Health export of a person who does not exist, to try `uplift push` with."""
    if path.exists() and not force:
        raise typer.BadParameter(
            f"{path} exists. Give another name, or --force to replace it.", param_hint="PATH"
        )
    try:
        manifest = write_export(path, records=records, seed=seed)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--records") from None
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}.", param_hint="PATH") from None
    echo(
        f"{path}: {len(manifest.valid)} valid records, {len(manifest.broken)} broken on purpose,"
        f" {len(manifest.missing)} without a file"
    )
    for record in manifest.broken:
        echo(f"  {record.fault}: {record.defect}")
