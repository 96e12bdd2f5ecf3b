"""How a command finds the system that `uplift up` runs on this machine.

`uplift up` writes the settings of its processes to a file in its data folder. Commands take them
from there if neither UPLIFT_DATABASE_URL nor UPLIFT_DATABASE_URL_FILE is set.
"""

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import typer

from uplift.cli.printable import printable

HOME = Path("/var/lib/uplift")
"""Root's folder for Uplift: every account can enter it, and only root can write there."""

_NAME = "environment"
_NAMES = ("UPLIFT_", "FLOWER_")
"""No other variable is taken: PATH or LD_PRELOAD would run a program of somebody's choice."""


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
    """Add the settings of a running `uplift up`, unless UPLIFT_DATABASE_URL is set, or its file.

    A variable that is already set, or whose file is, keeps its value. A file that somebody else
    could have written is not used: it would choose where keys and records go.
    """
    if _is_set("UPLIFT_DATABASE_URL"):
        return
    folder = data_dir()
    file = folder / _NAME
    try:
        opened = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            _say(f"{file} is not used: {error.strerror}.")
        return
    with os.fdopen(opened, encoding="utf-8", errors="replace") as text:
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode) or not is_ours(found) or not is_ours(folder.stat()):
            _say(
                f"{file} is not used: it or its folder belongs to another account, or others may"
                " write there."
            )
            return
        for line in text:
            name, _, value = line.rstrip("\n").partition("=")
            if name.startswith(_NAMES) and "\0" not in value and not _is_set(name):
                os.environ[name] = value
    _say(f"Settings of {file}.")


def _is_set(name: str) -> bool:
    return name in os.environ or bool(os.environ.get(f"{name}_FILE"))


def is_ours(found: os.stat_result) -> bool:
    """Whether a file or folder is this account's, and nobody else may write it."""
    return found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _say(text: str) -> None:
    # rich would take longer to import than most commands run.
    typer.echo(printable(text), err=True)
