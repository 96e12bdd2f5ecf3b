"""How a command finds the system that `uplift up` runs on this machine.

`uplift up` writes the settings of its processes to a file in its data folder. Commands take them
from there if UPLIFT_DATABASE_URL is not set.
"""

import os
from collections.abc import Mapping
from pathlib import Path

HOME = Path("/var/lib/uplift")
"""Root's folder for Uplift: every account can enter it, and only root can write there."""

_NAME = "environment"


def data_dir() -> Path:
    """The data folder: UPLIFT_DATA_DIR; else `.uplift` here, or for root a folder of the machine.

    Root runs PostgreSQL under another account, which often cannot enter the current folder.
    """
    chosen = os.environ.get("UPLIFT_DATA_DIR")
    if chosen:
        return Path(chosen)
    return HOME if os.geteuid() == 0 else Path(".uplift")


def write_environment(folder: Path, environment: Mapping[str, str]) -> Path:
    """Write the settings for other commands, readable by this user only."""
    file = folder / _NAME
    lines = [f"{name}={value}\n" for name, value in sorted(environment.items())]
    file.touch(mode=0o600)
    file.write_text("".join(lines))
    return file


def remove_environment(folder: Path) -> None:
    """Remove the settings of a system that has stopped."""
    (folder / _NAME).unlink(missing_ok=True)


def load_environment() -> None:
    """Add the settings of a running `uplift up`, unless UPLIFT_DATABASE_URL is set.

    A variable that is already set keeps its value.
    """
    if "UPLIFT_DATABASE_URL" in os.environ:
        return
    file = data_dir() / _NAME
    if not file.is_file():
        return
    for line in file.read_text().splitlines():
        name, _, value = line.partition("=")
        os.environ.setdefault(name, value)
