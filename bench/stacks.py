"""What a process computes, by function or by package: py-spy's samples of it.

py-spy is one of the tools (`make tools`). It looks from outside; on Linux it needs root,
CAP_SYS_PTRACE, or kernel.yama.ptrace_scope=0.
"""

import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_TOOLS = Path(__file__).parents[1] / ".venv-tools" / "bin"
_SAMPLES = 250  # a second

_FRAME = re.compile(r"(.*) \((.*)\)")
_PACKAGE = re.compile(r".*site-packages/")


@dataclass(frozen=True, slots=True)
class Spent:
    """Samples that a function, or a package, was in: itself, and with what it calls."""

    name: str
    own: int
    whole: int


def py_spy() -> str | None:
    """The program; None if it is not there."""
    return shutil.which("py-spy") or shutil.which("py-spy", path=str(_TOOLS))


@contextmanager
def sampled(program: str, pid: int, file: Path, *more: str) -> Iterator[None]:
    """Within, py-spy looks at the process; afterwards the file has its raw stacks, a line each.

    `more` are options of `py-spy record`. Raises RuntimeError with what py-spy says if it fails.
    """
    spy = subprocess.Popen(
        [
            *(program, "record", "--pid", str(pid), "--rate", str(_SAMPLES), "--format", "raw"),
            *("--function", "--duration", "unlimited", "--output", str(file), *more),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    time.sleep(1.0)  # until it has found its way about
    try:
        yield
    finally:
        if spy.poll() is None:
            spy.send_signal(signal.SIGINT)  # it writes what it has
        _, errors = spy.communicate(timeout=60)
        if not file.exists():
            raise RuntimeError(errors.decode(errors="replace"))


def by_function(stacks: Iterable[str]) -> list[Spent]:
    """The functions of py-spy's raw stacks, those that take most themselves first. Pure."""
    return _counted((_frames(stack), count) for stack, count in _read(stacks))


def by_package(stacks: Iterable[str]) -> list[Spent]:
    """The same by package: of Uplift by its rooms, else by the first folder or module. Pure."""
    return _counted(
        ([_package(frame) for frame in _frames(stack)], count) for stack, count in _read(stacks)
    )


def _read(stacks: Iterable[str]) -> Iterator[tuple[str, int]]:
    for line in stacks:
        stack, _, count = line.rpartition(" ")
        # Where threads wait for work, py-spy takes some for busy.
        if stack and not stack.rpartition(";")[2].startswith("_worker ("):
            yield stack, int(count)


def _frames(stack: str) -> list[str]:
    frames = []
    for frame in stack.split(";"):
        found = _FRAME.fullmatch(frame)
        name, place = found.groups() if found else (frame, "")
        file = _PACKAGE.sub("", place.partition(":")[0])
        frames.append(f"{_short(file)}: {name}")
    return frames


def _short(file: str) -> str:
    for root in ("uplift/", "lib/python"):
        _, found, rest = file.rpartition(root)
        if found:
            # The folder of the standard library has its version in its name.
            return root + rest if root == "uplift/" else rest.partition("/")[2]
    return file


def _package(frame: str) -> str:
    file = frame.partition(": ")[0]
    parts = file.split("/")
    return "/".join(parts[:2]) if parts[0] == "uplift" else parts[0]


def _counted(stacks: Iterable[tuple[list[str], int]]) -> list[Spent]:
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for names, count in stacks:
        own[names[-1]] += count
        for name in set(names):
            whole[name] += count
    found = [Spent(name, own[name], count) for name, count in whole.items()]
    return sorted(found, key=lambda each: (each.own, each.whole), reverse=True)
