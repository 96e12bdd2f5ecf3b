"""The account under which root runs PostgreSQL, which refuses to run as root.

`uplift up` has an account of its own, so that no other service can read its data. The demo and the
tests keep invented records only, and use `nobody`.
"""

import grp
import pwd
import shutil
import subprocess

from uplift.cli.environment import HOME
from uplift.errors import ConfigurationError

OWN = "uplift"
NOBODY = "nobody"


def find_account(name: str) -> tuple[int, int]:
    """The user and group id of an account; `uplift` is created if it does not exist.

    PostgreSQL wants an entry in the list of accounts, so a free number is not enough.

    Raises:
        ConfigurationError: there is no such account, and it cannot be created.
    """
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        if name != OWN:
            raise ConfigurationError(_refusal(name, "it does not exist")) from None
        _create_own()
        entry = pwd.getpwnam(name)
    return entry.pw_uid, entry.pw_gid


def account_exists(name: str) -> bool:
    """Whether the machine has an account of that name."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _create_own() -> None:
    program = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        raise ConfigurationError(_refusal(OWN, "the program useradd is not installed"))
    group = ["--gid", OWN] if _group_exists(OWN) else ["--user-group"]
    options = ["--system", "--no-create-home", "--shell", "/usr/sbin/nologin"]
    done = subprocess.run(  # noqa: S603 - a fixed command
        [program, *options, *group, "--home-dir", str(HOME), OWN],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        raise ConfigurationError(_refusal(OWN, f"useradd failed: {done.stdout.strip()}"))


def _group_exists(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _refusal(name: str, reason: str) -> str:
    return (
        f"PostgreSQL does not run as root, and Uplift cannot run it as the account {name}:"
        f" {reason}. Create the account, run Uplift as an ordinary user, or set"
        " UPLIFT_DATABASE_URL to a PostgreSQL that runs."
    )
