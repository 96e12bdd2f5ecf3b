"""What `uplift push` reads: whatever a person has. Each file is what its first bytes say."""

import asyncio
import gzip
import io
import zipfile
import zlib
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from enum import Enum, auto
from pathlib import Path, PurePosixPath
from typing import IO

from uplift.cli.push.archive import Archive
from uplift.cli.push.files import ArchiveFiles, BinaryFile, Files, FolderFiles, head_of, seekable
from uplift.cli.push.health_export import (
    NOT_NAMED,
    PARTS,
    RECORDS,
    clinical_records,
    reason_of,
    roots_of,
)
from uplift.cli.push.json_files import JsonReader
from uplift.cli.push.kinds import Kind, kind_of
from uplift.cli.push.notes import Notes
from uplift.cli.push.records import MAX_RECORD_BYTES, Record, Skipped, UnreadableSource
from uplift.cli.push.zip_members import UnreadableFile

_MAX_DEPTH = 3
"""Archives inside archives."""
_JSON_NAMES = (".json", ".ndjson", ".jsonl")
_WHAT_IT_TAKES = (
    "Push an Apple Health export (in the Health app: your picture, 'Export All Health Data'),"
    " NDJSON, a Bundle, or a folder of these."
)


async def read_records(
    path: Path,
    *,
    fhir_version: str | None = None,
    max_record_bytes: int = MAX_RECORD_BYTES,
    notes: Notes | None = None,
) -> AsyncGenerator[Record | Skipped, None]:
    """The records at `path`, one at a time, each with its bytes unchanged.

    `fhir_version` is used for records that state none. `notes` gets what else is to be told.

    Raises:
        UnreadableSource: nothing there is readable, or there are no records.
    """
    source = Source(path, fhir_version, max_record_bytes, notes)
    with closing(source.records()) as found:
        for item in found:
            if item is None:
                await asyncio.sleep(0)
            else:
                yield item


class Source:
    """A file or a folder, and what was told about it."""

    def __init__(
        self,
        path: Path,
        fhir_version: str | None = None,
        max_record_bytes: int = MAX_RECORD_BYTES,
        notes: Notes | None = None,
    ) -> None:
        self._path = path
        self._version = fhir_version
        self._max_bytes = max_record_bytes
        self._notes = notes = notes or Notes()
        self._json = JsonReader(fhir_version, max_record_bytes, notes)

    def records(self) -> Generator[Record | Skipped | None, None, None]:
        """What `read_records` gives. None: a part without a record was read."""
        found = False
        for item in self._top():
            found = found or item is not None
            yield item
        if found:
            return
        for note in (*self._notes.unread, *self._notes.passed_over):
            raise UnreadableSource(f"{note.label}: {note.reason}. {_WHAT_IT_TAKES}")
        raise UnreadableSource(f"{self._path.name}: there are no records. {_WHAT_IT_TAKES}")

    def _top(self) -> Iterator[Record | Skipped | None]:
        path = self._path
        try:
            if path.is_dir():
                yield from self._files(FolderFiles(path), "", 0)
            elif not path.is_file():
                self._notes.lose(path.name, "not a file and not a folder")
            elif self._is_index(path):
                only = frozenset({path.name, RECORDS})
                yield from self._files(FolderFiles(path.parent, only), "", 0)
            else:
                with path.open("rb") as file:
                    words = yield from self._file(file, path.name, 0)
                if words is not None:
                    self._notes.lose(path.name, words)
        except OSError as error:
            self._notes.lose(path.name, f"cannot be read: {error.strerror or error}")

    def _is_index(self, path: Path) -> bool:
        with path.open("rb") as file:
            return kind_of(head_of(file), path.name) is Kind.INDEX

    def _files(self, files: Files, prefix: str, depth: int) -> Iterator[Record | Skipped | None]:
        for name, what in files.odd:
            self._notes.pass_over(prefix + name, what)
        roots = roots_of(files)
        for root, indexes in roots.items():
            label = prefix + (root if len(roots) > 1 else "")
            yield from self._export(files, root, indexes, label)
        for name in files.names:
            here, role = prefix + name, _role_of(name, roots)
            if role is _Role.BESIDE:
                self._notes.pass_over(here, "beside an export, and no part of it; push it alone")
            elif role is _Role.LOST:
                yield Skipped(here, NOT_NAMED)
            elif role is _Role.ALONE:
                yield from self._one_of_many(files, name, here, depth)

    def _export(
        self, files: Files, root: str, indexes: list[str], label: str
    ) -> Iterator[Record | Skipped | None]:
        found = clinical_records(
            files,
            root,
            indexes,
            self._notes,
            fhir_version=self._version,
            max_record_bytes=self._max_bytes,
        )
        for item in found:
            if item is None or not label:
                yield item
            else:
                yield replace(item, label=label + item.label)

    def _one_of_many(
        self, files: Files, name: str, label: str, depth: int
    ) -> Iterator[Record | Skipped | None]:
        tell = self._notes.pass_over
        try:
            with files.open(name) as file:
                found = yield from self._file(file, label, depth)
        except (UnreadableFile, OSError, KeyError) as error:
            found, tell = reason_of(error), self._notes.lose
        if found is None:
            return
        # Whoever names a file so means a record.
        if PurePosixPath(name).suffix.lower() in _JSON_NAMES:
            yield Skipped(label, found)
        else:
            tell(label, found)

    def _file(
        self, file: BinaryFile, label: str, depth: int
    ) -> Generator[Record | Skipped | None, None, str | None]:
        """The records of a file. Returns what it is instead, if it can have none."""
        kind = kind_of(file.peek(1), label)
        if kind is not Kind.ZIP and depth == 0:
            if zipfile.is_zipfile(file):
                kind = Kind.ZIP  # its first bytes are damaged, or a program stands before it
            file.seek(0)
        match kind:
            case Kind.ZIP:
                yield from self._archive(file, label, depth)
            case Kind.GZIP:
                return (yield from self._gzip(file, label, depth))
            case Kind.JSON:
                yield from self._json_file(file, label)
            case Kind.INDEX:
                self._notes.lose(label, "an index without the export around it")
            case words:
                return words
        return None

    def _archive(
        self, file: BinaryFile, label: str, depth: int
    ) -> Iterator[Record | Skipped | None]:
        if depth >= _MAX_DEPTH:
            self._notes.lose(label, "too many archives inside archives")
            return
        try:
            with nullcontext(file) if depth == 0 else seekable(file) as whole:
                files = ArchiveFiles(Archive(whole))
                yield from self._files(files, f"{label}/" if depth else "", depth + 1)
        except UnreadableFile as error:
            self._notes.lose(label, str(error))

    def _gzip(
        self, file: BinaryFile, label: str, depth: int
    ) -> Generator[Record | Skipped | None, None, str | None]:
        try:
            with gzip.GzipFile(fileobj=file) as unpacked, io.BufferedReader(unpacked) as inner:
                if depth >= _MAX_DEPTH:
                    return "too many archives inside archives"
                return (yield from self._file(inner, label, depth + 1))
        except (EOFError, zlib.error, gzip.BadGzipFile):
            self._notes.lose(label, "the gzip file is damaged or cut off; not all was read")
            return None

    def _json_file(self, file: BinaryFile, label: str) -> Iterator[Record | Skipped | None]:
        try:
            yield from self._json.read(file, label)
        except (UnreadableFile, OSError) as error:
            self._notes.lose(label, f"{reason_of(error)}; not all was read")


class _Role(Enum):
    """What a file of a folder is to the exports in it."""

    PART = auto()
    BESIDE = auto()
    """In an export's folder, and nothing that Apple puts there."""
    LOST = auto()
    """A record of an export without its index."""
    ALONE = auto()


def _role_of(name: str, roots: dict[str, list[str]]) -> _Role:
    for root, indexes in roots.items():
        if name in indexes:
            return _Role.PART
        if not name.startswith(root):
            continue
        rest = name.removeprefix(root)
        is_part = rest.partition("/")[0] in PARTS or rest.endswith("_cda.xml")
        return _Role.PART if is_part else _Role.BESIDE
    return _Role.LOST if f"/{RECORDS}/" in f"/{name}" else _Role.ALONE


def count_records(path: Path) -> int:
    """About how many records `read_records` will find; a cheap estimate for a progress bar."""
    try:
        if path.is_dir():
            return _count_in(FolderFiles(path))
        with path.open("rb") as file:
            head = file.peek(1)
            kind = kind_of(head, path.name)
            if kind is Kind.ZIP:
                return _count_in(ArchiveFiles(Archive(file)))
            if kind is Kind.INDEX:
                return _count_in(FolderFiles(path.parent, frozenset({RECORDS})))
            if kind is not Kind.JSON:
                return 0
            return 1 if path.suffix.lower() == ".json" else _lines(file)
    except (OSError, UnreadableFile):
        return 0  # to read it says what is wrong


def _count_in(files: Files) -> int:
    """Files of records, and lines of those whose names say so."""
    count = 0
    for name in files.names:
        if name.lower().endswith((".ndjson", ".jsonl")):
            try:
                with files.open(name) as file:
                    count += _lines(file)
            except (UnreadableFile, OSError, KeyError):
                continue
        else:
            count += name.lower().endswith(".json")
    return count


def _lines(file: IO[bytes]) -> int:
    count, last = 0, b"\n"
    while chunk := file.read(1024 * 1024):
        count += chunk.count(b"\n")
        last = chunk[-1:]
    return count + (last != b"\n")
