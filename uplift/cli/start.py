"""`uplift api`, `worker`, `bulk`, `beat`, `flower`: the processes of a deployment.

Each imports only what its own process needs, and before that reports a wrong setting.
"""

import typer

from uplift.cli.session import read_settings

flower = typer.Typer(add_completion=False)


def api() -> None:
    """Serve the API until SIGINT or SIGTERM."""
    read_settings()
    from uplift.api.process import main

    main()


def worker() -> None:
    """Deliver single uploads until SIGINT or SIGTERM."""
    _work("uploads")


def bulk() -> None:
    """Deliver the uploads of batches until SIGINT or SIGTERM."""
    _work("bulk")


def _work(queue: str) -> None:
    read_settings()
    from uplift.worker.process import main

    main(queue)


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
