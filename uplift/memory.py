"""How much memory this process may use, and how many bytes of bodies fit into it."""

import os
from pathlib import Path, PurePosixPath

_CGROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")

MAX_BODY_BYTES = 64 * 1024 * 1024
"""More in flight makes no worker faster."""

# A worker without bodies, with room for what its libraries keep.
_PROCESS_BYTES = 200 * 1024 * 1024
# Measured: validation takes four times a body, and sealed, opened and sent it is there three times.
# The allocator gives not everything back.
_BYTES_PER_BODY_BYTE = 12
_MIN_BODY_BYTES = 1024 * 1024


def body_bytes_for(memory: int) -> int:
    """How many bytes of bodies a worker with so much memory sends at once.

    One body that is larger goes alone.
    """
    fitting = (memory - _PROCESS_BYTES) // _BYTES_PER_BODY_BYTE
    return max(_MIN_BODY_BYTES, min(MAX_BODY_BYTES, fitting))


def memory_limit(cgroups: Path = _CGROUPS, own: Path = _OWN) -> int:
    """The least of the limits of this process's cgroup and those above, and of the machine's
    memory. In bytes."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [machine]
    for folder in _folders(own):
        # The second is of cgroup v1.
        for name in ("memory.max", "memory.limit_in_bytes"):
            limits += _limit_in(cgroups / folder / name)
    return min(limits)


def _folders(own: Path) -> list[PurePosixPath]:
    """The cgroup's folder and those above, as the lines `0::/a/b` and `5:memory:/a/b` name them."""
    found = [PurePosixPath(), PurePosixPath("memory")]
    try:
        lines = own.read_text().splitlines()
    except OSError:  # not Linux
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        top = PurePosixPath("memory") if "memory" in controllers.split(",") else PurePosixPath()
        if controllers == "" or top.parts:
            inside = PurePosixPath(path.lstrip("/"))
            found += [top / each for each in (inside, *inside.parents)]
    return found


def _limit_in(file: Path) -> list[int]:
    try:
        text = file.read_text().strip()
    except OSError:
        return []
    return [int(text)] if text.isdecimal() else []  # otherwise `max`
