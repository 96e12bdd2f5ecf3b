"""One folder of data, one server: a lock that lasts as long as anything writes there."""

import fcntl
import os
import time
from pathlib import Path

from uplift.errors import UpliftError

_WAIT_SECONDS = 15.0


class FolderInUse(UpliftError):
    """Another `uplift` uses this folder, or its servers still run."""


class FolderLock:
    """An exclusive flock(2) on a file with our process id.

    The servers inherit `fd`, and the lock lasts until every copy of it is closed. If we are killed,
    the lock lasts until the servers that we left behind are gone too. So an old and a new server
    never write to the same files.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    @property
    def fd(self) -> int:
        """The open file, for a child to inherit."""
        if self._fd is None:
            raise ValueError("The folder is not locked.")
        return self._fd

    def acquire(self) -> None:
        """Lock the folder. Waits up to 15 s for servers that are stopping.

        Raises FolderInUse, at once if the process that locked it is alive.
        """
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._wait_for(fd)
        except BaseException:
            os.close(fd)
            raise
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        self._fd = fd

    def _wait_for(self, fd: int) -> None:
        deadline = time.monotonic() + _WAIT_SECONDS
        while not _try_lock(fd):
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
            if _is_alive(holder) or time.monotonic() > deadline:
                by = f"process {holder}" if holder else "a server that was left behind"
                raise FolderInUse(
                    f"{self._path.parent} is in use by {by}. Stop that one first, or choose "
                    "another folder with UPLIFT_DATA_DIR."
                )
            time.sleep(0.1)

    def release(self) -> None:
        """Unlock the folder, if it is locked."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(pid: str) -> bool:
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
