"""`uplift push`: its options, its messages and its exit codes."""

import time
from pathlib import Path
from typing import Annotated

import typer

from uplift.cli.output import Terminal
from uplift.cli.push.appearing import appearing
from uplift.cli.push.session import ALL_ARRIVED, INTERRUPTED, NOT_REACHED, NOT_READ, Session

_AGAIN_SECONDS = 60.0
"""A watch that cannot reach the API tries again after so long."""


def push(
    path: Annotated[
        Path,
        typer.Argument(
            exists=True,
            readable=True,
            help="Apple Health's export.zip or its folder, NDJSON, a Bundle, an array, any of them"
            " packed by gzip or zip, or a folder of these.",
            show_default=False,
        ),
    ],
    user: Annotated[str, typer.Option(help="Your own name for the person.", show_default=False)] = (
        ""
    ),
    key: Annotated[
        str,
        typer.Option(envvar="UPLIFT_API_KEY", help="API key or device token.", show_default=False),
    ] = "",
    api: Annotated[
        str, typer.Option(envvar="UPLIFT_API_URL", help="Where Uplift's API listens.")
    ] = "http://127.0.0.1:8080",
    fhir_version: Annotated[
        str | None,
        typer.Option(
            help="For records that state no version: DSTU2, STU3 or R4.", show_default=False
        ),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Write a machine-readable report here.", show_default=False),
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, max=64, help="How many batches to send at once.")
    ] = 4,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the outcome of each record.")
    ] = True,
    wait_seconds: Annotated[
        float, typer.Option(min=0, help="How many seconds to wait after the last upload.")
    ] = 600.0,
    patience: Annotated[
        float, typer.Option(min=0, help="How many seconds to go on while the API is away or busy.")
    ] = 120.0,
    allow_http: Annotated[
        bool,
        typer.Option("--allow-http", help="Send unencrypted to another machine, by http://."),
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Send older versions in the place of newer ones, too."),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Read and validate everything; send nothing."),
    ] = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="PATH is a folder: push what appears in it, until Ctrl-C."),
    ] = False,
) -> None:
    """Send every record in a file to Uplift and report the outcome of each.

    You can run it again at any time: it goes on, and nothing is delivered twice. Exit code 0:
    everything arrived (with --no-wait: was accepted); 1: something did not; 2: the input or an
    option could not be read, or there are no records; 3: the API could not be reached, or refuses
    the key or the user; 130: Ctrl-C.
    """
    session = Session(
        user=user,
        key=key,
        api=api,
        fhir_version=fhir_version,
        json_file=json_file,
        concurrency=concurrency,
        wait_seconds=wait_seconds if wait else None,
        patience=patience,
        allow_http=allow_http,
        force=force,
        out=Terminal(),
        err=Terminal(stderr=True),
    )
    trouble = session.trouble(dry_run=dry_run) or _trouble_of_watch(path, watch, dry_run)
    if trouble is not None:
        session.err.print(trouble, soft_wrap=True)
        raise typer.Exit(NOT_READ)
    if watch:
        raise typer.Exit(_watch(path, session))
    raise typer.Exit(session.dry_run(path) if dry_run else session.push(path))


def _trouble_of_watch(path: Path, watch: bool, dry_run: bool) -> str | None:
    if watch and not path.is_dir():
        return f"--watch {path}: that is not a folder."
    if watch and dry_run:
        return "--watch and --dry-run do not go together."
    return None


def _watch(folder: Path, session: Session) -> int:
    """Push what appears in `folder`. Returns the worst exit code when it is stopped."""
    worst = ALL_ARRIVED
    session.err.print(f"Watching {folder}. Ctrl-C ends it.", soft_wrap=True)
    try:
        for path in appearing(folder):
            session.out.print(f"{path.name}:", soft_wrap=True)
            while (code := session.push(path)) == NOT_REACHED:
                time.sleep(_AGAIN_SECONDS)
            if code == INTERRUPTED:
                return worst
            worst = max(worst, code)
    except KeyboardInterrupt:
        pass
    return worst
