"""`uplift push --watch`: the files and folders that appear in a folder."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from uplift.cli.push.kinds import is_litter

_PAUSE_SECONDS = 2.0
# Browsers and AirDrop write under these names until a file is whole.
_UNFINISHED = (".part", ".crdownload", ".download", ".tmp", ".icloud")

_State = tuple[int, int, int]


def appearing(folder: Path, sleep: Callable[[float], None] = time.sleep) -> Iterator[Path]:
    """What is in `folder`, and then what appears or changes there, without an end.

    Something comes when it has not changed between two looks, since it may still be written.
    """
    seen: dict[Path, _State] = {}
    given: dict[Path, _State] = {}
    while True:
        now = {path: _state_of(path) for path in _entries(folder)}
        for path, state in now.items():
            if state is not None and seen.get(path) == state != given.get(path):
                given[path] = state
                yield path
        seen = {path: state for path, state in now.items() if state is not None}
        sleep(_PAUSE_SECONDS)


def _entries(folder: Path) -> list[Path]:
    try:
        found = sorted(folder.iterdir())
    except OSError:
        return []  # unmounted for a moment, perhaps
    return [
        path
        for path in found
        if not is_litter(path.name)
        and not path.name.startswith(".")
        and path.suffix.lower() not in _UNFINISHED
        and (path.is_file() or path.is_dir())
    ]


def _state_of(path: Path) -> _State | None:
    """How many files, their size and the latest change; None if it went away."""
    count = size = latest = 0
    try:
        files = [path] if path.is_file() else _files_below(path)
        for file in files:
            found = file.lstat()
            count, size = count + 1, size + found.st_size
            latest = max(latest, found.st_mtime_ns)
    except OSError:
        return None
    return count, size, latest


def _files_below(folder: Path) -> Iterator[Path]:
    for here, _, files in os.walk(folder):
        yield from (Path(here) / name for name in files)
