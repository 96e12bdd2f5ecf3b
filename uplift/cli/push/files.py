"""The files of a folder or of an archive, by their path, with nothing of the system among them."""

import io
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias

from uplift.cli.push.archive import Archive
from uplift.cli.push.kinds import HEAD_BYTES, Kind, is_litter, kind_of
from uplift.cli.push.zip_members import UnreadableFile, read_up_to

BinaryFile: TypeAlias = "io.BufferedReader[Any]"
_MEMORY_BYTES = 8 * 1024 * 1024
_MAX_INNER_BYTES = 8 * 1024**3


class Files(Protocol):
    """Where records are read from."""

    @property
    def names(self) -> list[str]:
        """The path of each file, with `/` between its parts."""

    @property
    def odd(self) -> list[tuple[str, str]]:
        """What is neither a file nor a folder, and what it is."""

    def open(self, name: str) -> BinaryFile:
        """Raises: KeyError when there is no such file; UnreadableFile; OSError."""

    def read(self, name: str, limit: int) -> bytes:
        """At most `limit` bytes. Raises as `open` does."""


class FolderFiles:
    """The regular files below a folder. A link is followed if it stays below it.

    `only`: the names at the top to which it is limited.
    """

    def __init__(self, root: Path, only: frozenset[str] | None = None) -> None:
        self._root = root.resolve()
        self.odd: list[tuple[str, str]] = []
        self.names = list(self._walk(only))
        self._known = frozenset(self.names)

    def open(self, name: str) -> BinaryFile:
        """Raises: KeyError, OSError."""
        if name not in self._known:
            raise KeyError(name)
        return (self._root / name).open("rb")

    def read(self, name: str, limit: int) -> bytes:
        """Raises: KeyError, OSError."""
        with self.open(name) as file:
            return read_up_to(file, limit)

    def _walk(self, only: frozenset[str] | None) -> Iterator[str]:
        for folder, folders, files in os.walk(self._root):
            here = Path(folder)
            if only is not None and here == self._root:
                folders[:] = [each for each in folders if each in only]
                files = [each for each in files if each in only]
            folders.sort()
            for each in sorted(files):
                name = (here / each).relative_to(self._root).as_posix()
                if not is_litter(name) and self._is_file(here / each, name):
                    yield name

    def _is_file(self, path: Path, name: str) -> bool:
        try:
            found = path.stat()
            inside = not path.is_symlink() or path.resolve().is_relative_to(self._root)
        except (OSError, RuntimeError) as error:
            self.odd.append((name, f"cannot be read: {getattr(error, 'strerror', error)}"))
            return False
        if not inside:
            self.odd.append((name, "a link that leads out of the folder"))
        elif not stat.S_ISREG(found.st_mode):
            # A pipe or a device would never end.
            self.odd.append((name, "a pipe, a socket or a device"))
        return inside and stat.S_ISREG(found.st_mode)


class ArchiveFiles:
    """The files of a zip archive."""

    def __init__(self, archive: Archive) -> None:
        self.odd: list[tuple[str, str]] = []
        self.names = archive.names
        self.open = archive.open
        self.read = archive.read


def kind_in(files: Files, name: str) -> Kind | str:
    """What a file is. Raises: UnreadableFile, OSError."""
    with files.open(name) as file:
        return kind_of(head_of(file), name)


def head_of(file: BinaryFile) -> bytes:
    """Its first bytes: those before a damage, too. Raises UnreadableFile if there are none."""
    head = bytearray()
    try:
        while len(head) < HEAD_BYTES and (chunk := file.read1(HEAD_BYTES)):
            head += chunk
    except UnreadableFile:
        if not head:
            raise
    return bytes(head)


@contextmanager
def seekable(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """The same bytes in a file that can seek: in memory, or on disk under no name if many.

    Raises: UnreadableFile.
    """
    with tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES) as copy:
        total = 0
        while chunk := file.read(1024 * 1024):
            total += len(chunk)
            if total > _MAX_INNER_BYTES:
                raise UnreadableFile("an archive of more than 8 GiB inside an archive")
            copy.write(chunk)
        copy.seek(0, io.SEEK_SET)
        yield copy
