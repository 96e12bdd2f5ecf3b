"""`uplift api`, `worker`, `bulk`, `beat`, `flower`: the processes of a deployment.

Each imports only what its own process needs, and before that reports a wrong setting.
"""

from typing import Annotated, Literal

import typer

from uplift.cli.session import read_settings

flower = typer.Typer(add_completion=False)


def api() -> None:
    """Serve the API until SIGINT or SIGTERM."""
    read_settings()
    from uplift.api.process import main

    main()


_Name = Annotated[
    str,
    typer.Option(
        help="The worker's name in Flower. Default: the name of its queue. Two workers on one"
        " machine need two names."
    ),
]


def worker(name: _Name = "") -> None:
    """Deliver single uploads until SIGINT or SIGTERM."""
    _work("uploads", name)


def bulk(name: _Name = "") -> None:
    """Deliver the uploads of batches until SIGINT or SIGTERM."""
    _work("bulk", name)


def _work(queue: Literal["uploads", "bulk"], name: str) -> None:
    read_settings()
    from uplift.worker.process import main

    main(queue, name)


def beat() -> None:
    """Sweep, and delete old uploads, until SIGINT or SIGTERM. One is enough; several do no harm."""
    read_settings()
    from uplift.worker.beat import main

    main()


@flower.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def _flower(context: typer.Context) -> None:
    """Show workers and queues in a browser. Takes Flower's own options, and requires a login."""
    read_settings()
    from uplift.worker.flower import main

    main(context.args)
