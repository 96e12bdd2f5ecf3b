"""A small process that ends our children when we are gone, however we ended.

It reads a pipe whose other end only we have. There we say which children began, and which have
ended. When the pipe closes, we are gone: it asks those that are left to end, waits, and kills them.
This works on Linux and on macOS, and for children that any thread started. A kernel's own signal
at the death of a parent (PR_SET_PDEATHSIG) is Linux' alone, and depends on the thread.

The guard is this file, run with nothing but the standard library.
"""

import os
import signal
import sys
import threading
import time
from contextlib import suppress

_GRACE_SECONDS = 15.0


class Guard:
    """Our end of the pipe. The process starts with the first child."""

    def __init__(self) -> None:
        self._pipe: int | None = None
        self._lock = threading.Lock()

    def began(self, pid: int, stop_signal: signal.Signals) -> None:
        """A child leads its own process group. `stop_signal` asks it to end."""
        self._say(f"{pid} {stop_signal.value}\n")

    def ended(self, pid: int) -> None:
        """The child was reaped: somebody else may have its number from now on."""
        self._say(f"{pid} 0\n")

    def _say(self, line: str) -> None:
        with self._lock:
            if self._pipe is None:
                self._pipe = _start()
            # Somebody killed the guard. What stays behind then, the next start finds by its lock.
            with suppress(BrokenPipeError):
                os.write(self._pipe, line.encode())


def _start() -> int:
    read_end, write_end = os.pipe()
    # Our environment holds secrets, and our output may be a pipe that somebody reads to its end.
    null = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
    os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", __file__],
        {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
        file_actions=[(os.POSIX_SPAWN_DUP2, read_end, 0), *null],
        # Ctrl-C and a closed terminal are for us alone.
        setpgroup=0,
        setsigmask=(signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
    )
    os.close(read_end)
    return write_end


def main() -> None:
    """Wait for the end of the parent, then end its children."""
    children: dict[int, int] = {}
    for line in sys.stdin:
        pid, stop_signal = map(int, line.split())
        if stop_signal:
            children[pid] = stop_signal
        else:
            children.pop(pid, None)
    for pid, stop_signal in children.items():
        with suppress(OSError):
            os.kill(pid, stop_signal)
    deadline = time.monotonic() + _GRACE_SECONDS
    while any(map(_is_there, children)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in children:
        # What a child started may be left although the child is not.
        with suppress(OSError):
            os.killpg(pid, signal.SIGKILL)


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    main()
