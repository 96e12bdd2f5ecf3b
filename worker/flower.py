"""`python -m uplift.worker.flower`: Flower's pages on Uplift's workers and queues, behind a login.

Flower's own entry, `celery flower`, listens on every address, needs no login, and answers
`/metrics` and `/healthcheck` to anybody even with one (flower/views/monitor.py of 2.2). Here both
addresses do not exist, and what may be set otherwise begins on the safe side. Its options and its
FLOWER_ variables are as Flower documents them.
"""

import os
import sys

from flower.urls import handlers
from tornado.routing import URLSpec

from uplift.logs import configure_logs
from uplift.worker.app import app, settings

# Without a login, whatever the settings. Counts are at the operator ports of the processes.
CLOSED = frozenset({"/metrics", "/healthcheck"})

DEFAULTS = {
    "FLOWER_ADDRESS": "127.0.0.1",
    # What a page can stop, no audit trail shows. `uplift` pauses, resumes and cancels.
    "FLOWER_READ_ONLY": "true",
    # With their arguments: the ids of the uploads.
    "FLOWER_TASKS_COLUMNS": "name,uuid,state,args,received,runtime,worker",
    # Each is some kilobytes here; Flower would keep 100,000.
    "FLOWER_MAX_TASKS": "10000",
    # Ours are configured below.
    "FLOWER_LOGGING": "none",
}

_LOGINS = ("FLOWER_BASIC_AUTH", "FLOWER_AUTH")


def close_open_addresses() -> None:
    """Take what answers anybody out of Flower's addresses, once it has been imported."""
    handlers[:] = [each for each in handlers if _address(each) not in CLOSED]


def _address(handler: object) -> str:
    if isinstance(handler, URLSpec):
        return str(handler.regex.pattern).rstrip("$")
    return str(handler[0])  # type: ignore[index]  # a tuple


def main() -> None:
    """Serve the pages until SIGINT or SIGTERM."""
    if not any(os.environ.get(name) for name in _LOGINS):
        sys.exit(
            "Flower does not start without a login. FLOWER_BASIC_AUTH: set it to user:password."
        )
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    configure_logs(settings)
    close_open_addresses()
    app.start(["flower", *sys.argv[1:]])


if __name__ == "__main__":
    main()
