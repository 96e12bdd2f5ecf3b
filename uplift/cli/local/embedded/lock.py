"""One folder of data, one server: a lock that lasts as long as anything writes there."""

import fcntl
import os
import signal
import time
from pathlib import Path

from uplift.cli.local.holders import end, holders
from uplift.errors import UpliftError

# What was left behind may be ending. Then it is asked to end, then killed.
_ASK_SECONDS = 2.0
_KILL_SECONDS = 20.0
_WAIT_SECONDS = 30.0


class FolderInUse(UpliftError):
    """Another `uplift` uses this folder, or what it left behind does not end."""


class FolderLock:
    """An exclusive flock(2) on a file with our process id.

    Children inherit `fd`, and the lock lasts until every copy of it is closed. If we are killed,
    the lock lasts until the children that we left behind are gone too. So an old and a new server
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
        """Lock the folder. What a process that was killed left behind is ended.

        Raises FolderInUse, at once if the process that locked it is alive.
        """
        begun = time.monotonic()
        asked = False
        while not self._acquired():
            seconds = time.monotonic() - begun
            if self._owner_is_alive() or seconds > _WAIT_SECONDS:
                by = f"process {self._owner()}" if self._owner() else "what was left behind"
                raise FolderInUse(
                    f"{self._path.parent} is in use by {by}. Stop that one first, or choose "
                    "another folder with UPLIFT_DATA_DIR."
                )
            if seconds > _KILL_SECONDS:
                end(self._path, signal.SIGKILL)
            elif seconds > _ASK_SECONDS and not asked:
                end(self._path, signal.SIGTERM)
                asked = True
            time.sleep(0.1)

    def release(self) -> None:
        """Unlock the folder, if it is locked."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None

    def _acquired(self) -> bool:
        # Not kept open while we wait: whoever has it open, and is not the owner, was left behind.
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        self._fd = fd
        return True

    def _owner(self) -> str:
        return self._path.read_bytes()[:32].decode(errors="replace").strip()

    def _owner_is_alive(self) -> bool:
        """Whether the process that locked it still has it. Its number alone may be another's."""
        owner = self._owner()
        return owner.isdigit() and (int(owner) == os.getpid() or int(owner) in holders(self._path))
