"""`uplift flower`: Flower's pages on Uplift's workers and queues, behind a login.

Flower's own entry, `celery flower`, listens on every address, needs no login, and answers
`/metrics` and `/healthcheck` to anybody even with one (flower/views/monitor.py of 2.2). Here both
addresses do not exist, and the defaults are the safe ones. Its options and its FLOWER_ variables
are as Flower documents them.
"""

import os
import sys

import click
from celery.bin.base import CLIContext
from flower.command import flower
from flower.urls import handlers
from tornado.routing import URLSpec

from uplift.errors import ConfigurationError
from uplift.secret_files import FLOWER_SECRETS, with_secrets
from uplift.settings import Settings
from uplift.worker.app import create_app

# Flower answers them without a login, whatever its settings. Metrics are at the admin ports.
CLOSED = frozenset({"/metrics", "/healthcheck"})

DEFAULTS = {
    "FLOWER_ADDRESS": "127.0.0.1",
    # The audit trail shows nothing of what a page stops. `uplift` pauses, resumes and cancels.
    "FLOWER_READ_ONLY": "true",
    # With their arguments: the ids of the uploads.
    "FLOWER_TASKS_COLUMNS": "name,uuid,state,args,received,runtime,worker",
    # Each is some kilobytes here; Flower would keep 100,000.
    "FLOWER_MAX_TASKS": "10000",
    # Logs are configured by Uplift.
    "FLOWER_LOGGING": "none",
    # Without this, Flower runs flowerconfig.py of the current folder.
    "FLOWER_CONF": os.devnull,
}

_LOGINS = ("FLOWER_BASIC_AUTH", "FLOWER_AUTH")


def close_open_addresses() -> None:
    """Remove the addresses that need no login from Flower's."""
    handlers[:] = [each for each in handlers if address_of(each) not in CLOSED]


def address_of(handler: object) -> str:
    """The path that a handler of Tornado serves."""
    if isinstance(handler, URLSpec):
        return str(handler.regex.pattern).rstrip("$")
    return str(handler[0])  # type: ignore[index]  # a tuple


def main(arguments: list[str]) -> None:
    """Serve the pages until SIGINT or SIGTERM. `arguments` are Flower's options."""
    try:
        # Flower reads its secrets from there. What a process adds, the process list does not show.
        os.environ.update(with_secrets(FLOWER_SECRETS, os.environ))
    except ConfigurationError as error:
        sys.exit(f"Flower does not start: {error}")
    if not any(os.environ.get(name) for name in _LOGINS):
        sys.exit(
            "Flower does not start without a login. FLOWER_BASIC_AUTH: set it to user:password,"
            " or FLOWER_BASIC_AUTH_FILE to the name of a file with that."
        )
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        app = create_app(Settings())
    except ConfigurationError as error:
        sys.exit(f"Flower does not start: {error}")
    close_open_addresses()
    # Not by `celery flower`: Celery's command line takes an application from the variable APP, and
    # imports it from the current folder.
    flower.main(
        args=arguments,
        prog_name="uplift flower",
        parent=click.Context(click.Group("uplift")),
        obj=CLIContext(app=app, no_color=True, workdir=None),
    )
