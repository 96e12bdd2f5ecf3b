"""How a command finds the system that `uplift up` runs on this machine.

`uplift up` leaves the settings of its processes in a file in its data folder; commands that are
given no UPLIFT_DATABASE_URL of their own take them from there.
"""

import os
from collections.abc import Mapping
from pathlib import Path

_NAME = "environment"


def write_environment(data_dir: Path, environment: Mapping[str, str]) -> Path:
    """Leave the settings for other commands, readable by this user only."""
    file = data_dir / _NAME
    lines = [f"{name}={value}\n" for name, value in sorted(environment.items())]
    file.touch(mode=0o600)
    file.write_text("".join(lines))
    return file


def remove_environment(data_dir: Path) -> None:
    """The system has stopped: its settings lead nowhere."""
    (data_dir / _NAME).unlink(missing_ok=True)


def load_environment() -> None:
    """Take the settings of a running `uplift up`, unless this command has an address of its own.

    What the environment already says goes first.
    """
    if "UPLIFT_DATABASE_URL" in os.environ:
        return
    file = Path(os.environ.get("UPLIFT_DATA_DIR", ".uplift")) / _NAME
    if not file.is_file():
        return
    for line in file.read_text().splitlines():
        name, _, value = line.partition("=")
        os.environ.setdefault(name, value)
