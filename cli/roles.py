"""The processes of a deployment and their commands.

`uplift up` starts these. `Procfile` and `docker-compose.yml` spell the same commands out for their
own readers; a test keeps the three equal.
"""

import sys
from pathlib import Path
from typing import Literal

Role = Literal["web", "worker", "bulk", "beat", "flower"]

_CELERY = ("celery", "-A", "worker.app")


def command(role: Role, *, data_dir: Path, host: str = "127.0.0.1", port: int = 0) -> list[str]:
    """The program and its arguments. `host` and `port` are those of `web` and `flower`.

    Flower takes its login, `user:password`, from the environment as FLOWER_BASIC_AUTH: on a command
    line every user of the machine could read it.
    """
    match role:
        case "web":
            # Paths and queries name people, so there is no access log. A long poll must not hold up
            # a stop.
            return [
                *(
                    "uvicorn",
                    "--factory",
                    "api.app:create_app",
                    "--host",
                    host,
                    "--port",
                    f"{port}",
                ),
                *("--no-access-log", "--timeout-graceful-shutdown", "10"),
            ]
        case "worker":
            return _worker("uploads", "uploads", slots=4)
        case "bulk":
            # Its own process, so that a first sync of thousands never delays one record.
            return _worker("bulk", "bulk", slots=4)
        case "beat":
            # A worker with the clock in it (-B), so that sweeps never wait behind deliveries.
            schedule = str(data_dir / "celerybeat-schedule")
            return [*_worker("control", "control", slots=2), "-B", "-s", schedule]
        case "flower":
            return [*_CELERY, "flower", f"--address={host}", f"--port={port}"]


def with_our_python(words: list[str]) -> list[str]:
    """The same command by this interpreter, for when its programs are not on PATH."""
    return [sys.executable, "-m", *words]


def _worker(queue: str, name: str, *, slots: int) -> list[str]:
    return [
        *(*_CELERY, "worker", "-Q", queue, "-P", "threads", "-c", str(slots)),
        *("-n", f"{name}@%h", "--loglevel", "INFO"),
    ]
