"""Which processes have a file open: those that a run before left behind have our lock open."""

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc/self/fd")


def holders(path: Path) -> set[int]:
    """The ids of the other processes that have this file open, as far as we may know.

    From /proc; where there is none, as on macOS, from `lsof`.
    """
    found = _from_proc(path) if _PROC.is_dir() else _from_lsof(path)
    return found - {os.getpid()}


def _from_proc(path: Path) -> set[int]:
    wanted = path.stat()
    found = set()
    for folder in Path("/proc").glob("[0-9]*/fd"):
        # It may be another account's, or have ended meanwhile.
        with suppress(OSError):
            for entry in folder.iterdir():
                with suppress(OSError):
                    if os.path.samestat(entry.stat(), wanted):
                        found.add(int(folder.parent.name))
                        break
    return found


def _from_lsof(path: Path) -> set[int]:
    program = shutil.which("lsof", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        return set()
    done = subprocess.run(  # noqa: S603 - a fixed command; the path is no option
        [program, "-t", "--", str(path)], check=False, capture_output=True, text=True
    )
    return {int(word) for word in done.stdout.split()}


def end(path: Path, number: signal.Signals) -> None:
    """Send them that signal: all for SIGKILL, else only those that lead a session, as our children
    do. These end what they started."""
    for pid in holders(path):
        with suppress(OSError):
            if number is signal.SIGKILL or os.getsid(pid) == pid:
                os.kill(pid, number)
