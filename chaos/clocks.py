"""Clocks that jump: a process is started with a small library that adds to the time of day.

Only the time of day jumps. What counts elapsed time (CLOCK_MONOTONIC) goes on, as on a machine
whose clock somebody set. It needs a C compiler and Linux; without one, no clock jumps. libfaketime
was considered first: under it, Python's time.sleep fails (EINVAL of clock_nanosleep), unless
elapsed time jumps as well.
"""

import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_SOURCE = Path(__file__).with_name("clock.c")
_LIBRARY = "clock.so"

AHEAD_SECONDS = 90_000
"""A day and an hour: also what is kept for a day is gone by that clock."""


def without_jump(at: float) -> float:
    """The true time of a Unix time that a clock wrote which may have been ahead."""
    return at - AHEAD_SECONDS if at > time.time() + AHEAD_SECONDS / 2 else at


def can_jump() -> bool:
    """Whether clocks can be made to jump on this machine."""
    return sys.platform == "linux" and shutil.which("cc") is not None


class Clock:
    """The clock of some processes. Its files are in a folder that every account can enter."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._file = folder / name
        if not can_jump():
            return
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._set(0)
        library = folder / _LIBRARY
        if not library.exists():
            subprocess.run(  # noqa: S603  a command of our own
                ["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(_SOURCE)],  # noqa: S607
                check=True,
            )

    def environment(self) -> Mapping[str, str]:
        """What lets a process have this clock; nothing where none can jump."""
        if not can_jump():
            return {}
        return {
            "LD_PRELOAD": str(self._folder / _LIBRARY),
            "UPLIFT_CHAOS_CLOCK": str(self._file),
        }

    @contextmanager
    def ahead(self) -> Iterator[None]:
        """Within, it is ahead. It jumps back at the end."""
        self._set(AHEAD_SECONDS)
        try:
            yield
        finally:
            self._set(0)

    def _set(self, seconds: int) -> None:
        # Written in place: the processes have mapped it.
        with self._file.open("r+b" if self._file.exists() else "xb") as file:
            file.write(struct.pack("=q", seconds))
