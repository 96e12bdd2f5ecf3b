"""Apple's *Export All Health Data*: the clinical records in export.zip, or in its unpacked folder.

`export.xml` is often gigabytes large, and anyone may have made the archive. So it is read as a
stream, nothing is unpacked to disk, and memory stays bounded whatever sizes the archive states.
"""

import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO, Protocol
from xml.parsers import expat

from uplift.cli.push.records import (
    MAX_RECORD_BYTES,
    Record,
    Skipped,
    UnreadableSource,
    resource_type_of,
)

_CHUNK_BYTES = 256 * 1024
_MAX_PROLOG_BYTES = 1024 * 1024
_MAX_ELEMENT_BYTES = 1024 * 1024
_MAX_DEPTH = 64
_MAX_NAMES = 10_000

# iOS has written such bytes into attributes; XML 1.0 forbids them and expat would stop there.
_FORBIDDEN = bytes(each for each in range(0x20) if each not in b"\t\n\r")
_WITHOUT_FORBIDDEN = bytes.maketrans(_FORBIDDEN, b" " * len(_FORBIDDEN))


class _Files(Protocol):
    """The files of an export by their path below the folder that holds export.xml."""

    def open(self, path: str) -> IO[bytes]:
        """Raises: KeyError when there is no such file in the export; UnreadableSource."""

    def count(self, folder: str) -> int:
        """How many files there are below `folder`."""


class _ZipFiles:
    def __init__(self, archive: zipfile.ZipFile, index: str) -> None:
        self._archive = archive
        self._root = index.rpartition("/")[0]

    def open(self, path: str) -> IO[bytes]:
        info = self._archive.getinfo(f"{self._root}/{path}" if self._root else path)
        # Apple uses these two. With the others, zipfile unpacks a whole read at once, however
        # large it is.
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UnreadableSource(f"{info.filename}: compressed in a way that Apple does not use")
        if info.flag_bits & 0x1:
            raise UnreadableSource(f"{info.filename}: encrypted; unpack the archive first")
        return self._archive.open(info)

    def count(self, folder: str) -> int:
        prefix = f"{self._root}/{folder}/" if self._root else f"{folder}/"
        return sum(
            info.filename.startswith(prefix) and not info.is_dir()
            for info in self._archive.infolist()
        )


class _FolderFiles:
    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def open(self, path: str) -> IO[bytes]:
        found = (self._root / path).resolve()
        if not found.is_relative_to(self._root):
            raise KeyError(path)
        try:
            # A pipe or a device would never end.
            if not stat.S_ISREG(found.stat().st_mode):
                raise KeyError(path)
            return found.open("rb")
        except (OSError, ValueError) as error:
            raise KeyError(path) from error

    def count(self, folder: str) -> int:
        return sum(1 for each in (self._root / folder).glob("*") if each.is_file())


def is_health_export(path: Path) -> bool:
    """Whether `path` is a zip archive or a folder with an export.xml."""
    if path.is_dir():
        return (path / "export.xml").is_file()
    return path.is_file() and zipfile.is_zipfile(path)


def count_clinical_records(path: Path) -> int:
    """How many record files the export holds, without reading export.xml: for a progress bar."""
    with _files_of(path) as (files, _):
        return files.count("clinical-records")


def clinical_records(
    path: Path, *, fhir_version: str | None = None, max_record_bytes: int = MAX_RECORD_BYTES
) -> Iterator[Record | Skipped | None]:
    """Every ClinicalRecord that export.xml lists, in its order, with the bytes of its file.

    None means: a part of export.xml had no record, and the caller may do other things.
    `fhir_version` is used for records that state none: exports from before iOS 14.

    Raises:
        UnreadableSource: not an export, damaged, or malicious.
    """
    with _files_of(path) as (files, index):
        for attributes in _clinical_record_elements(files, index):
            if attributes is None:
                yield None
            else:
                yield _record(files, attributes, fhir_version, max_record_bytes)


@contextmanager
def _files_of(path: Path) -> Iterator[tuple[_Files, str]]:
    if path.is_dir():
        yield _FolderFiles(path), "export.xml"
        return
    try:
        with zipfile.ZipFile(path) as archive:
            index = _index_name(archive)
            yield _ZipFiles(archive, index), index.rpartition("/")[2]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise UnreadableSource(
            f"{path.name}: the archive is damaged ({error}); export it once more"
        ) from error


def _index_name(archive: zipfile.ZipFile) -> str:
    names = [name for name in archive.namelist() if name.endswith(".xml") and name.count("/") <= 1]
    exact = [name for name in names if PurePosixPath(name).name == "export.xml"]
    # The name is translated on phones in some languages; the CDA beside it always ends so.
    others = [name for name in names if not name.endswith("_cda.xml")]
    for candidates in (exact, others):
        if len(candidates) == 1:
            return candidates[0]
    raise UnreadableSource(
        "The archive has no export.xml. Make it in the Health app: your picture, "
        "'Export All Health Data'."
    )


def _record(
    files: _Files, attributes: dict[str, str], fhir_version: str | None, max_bytes: int
) -> Record | Skipped:
    path = attributes.get("resourceFilePath", "").lstrip("/")
    stated_type = attributes.get("type")
    label = path or f"ClinicalRecord {attributes.get('identifier', 'without identifier')}"
    version = attributes.get("fhirVersion") or fhir_version
    record_id = attributes.get("identifier")
    # Apple distinguishes records by identifier, type and source bundle. The export has no
    # bundle identifier, and sourceURL is missing in some: only sourceName is always there.
    source = attributes.get("sourceName")
    missing = [
        name
        for name, value in {
            "resourceFilePath": path,
            "identifier": record_id,
            "sourceName": source,
            "fhirVersion": version,
        }.items()
        if not value
    ]
    if missing or version is None:
        return Skipped(label, f"export.xml gives it no {' and no '.join(missing)}", stated_type)
    try:
        with files.open(path) as file:
            body = file.read(max_bytes + 1)
    except KeyError:
        return Skipped(label, "export.xml lists it, but its file is not in the export", stated_type)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        return Skipped(label, f"its file is damaged ({error})", stated_type)
    except UnreadableSource as error:
        return Skipped(label, str(error), stated_type)
    if len(body) > max_bytes:
        return Skipped(label, f"larger than {max_bytes // 1024:,} KiB", stated_type)
    resource_type = resource_type_of(body)
    if resource_type is None:
        return Skipped(label, "not a JSON object with a resourceType", stated_type)
    return Record(
        label,
        version,
        resource_type,
        body,
        source,
        record_id,
        attributes.get("sourceURL"),
        _received_at(attributes.get("receivedDate")),
    )


def _received_at(date: str | None) -> str | None:
    """Apple's `2020-08-06 05:01:22 -0800` as ISO 8601; None if it is written in another way."""
    try:
        return datetime.strptime(date or "", "%Y-%m-%d %H:%M:%S %z").isoformat()
    except ValueError:
        return None


def _clinical_record_elements(files: _Files, index: str) -> Iterator[dict[str, str] | None]:
    elements = _Elements(index)
    try:
        with files.open(index) as file:
            for chunk in _without_prolog(file, index):
                yield from elements.feed(chunk)
                yield None
            yield from elements.end()
    except KeyError as error:
        raise UnreadableSource(f"{index} cannot be opened") from error
    except expat.ExpatError as error:
        raise UnreadableSource(
            f"{index}, line {error.lineno}: {expat.errors.messages[error.code]}; what follows "
            "was not read. Export it once more."
        ) from error


class _Elements:
    """The attributes of each ClinicalRecord in a stream of XML, and nothing else."""

    def __init__(self, index: str) -> None:
        self._index = index
        self._found: list[dict[str, str]] = []
        self._depth = 0
        self._fed = 0
        self._names: dict[str, str] = {}
        self._parser = expat.ParserCreate(encoding="utf-8", intern=self._names)
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.StartDoctypeDeclHandler = self._refuse_doctype

    def feed(self, chunk: bytes) -> list[dict[str, str]]:
        """The elements that `chunk` completes. Raises: expat.ExpatError, UnreadableSource."""
        self._parser.Parse(chunk, False)
        self._fed += len(chunk)
        # expat keeps an unfinished element, and every name it has seen, in memory.
        if self._fed - self._parser.CurrentByteIndex > _MAX_ELEMENT_BYTES:
            raise UnreadableSource(f"{self._index}: an element of more than a megabyte")
        if len(self._names) > _MAX_NAMES:
            raise UnreadableSource(f"{self._index}: too many different names to be Apple's")
        found, self._found = self._found, []
        return found

    def end(self) -> list[dict[str, str]]:
        """The elements that the end of the document completes. Raises: expat.ExpatError."""
        self._parser.Parse(b"", True)
        return self._found

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise UnreadableSource(f"{self._index}: nested too deeply to be Apple's")
        if name == "ClinicalRecord":
            self._found.append(attributes)

    def _end(self, _name: str) -> None:
        self._depth -= 1

    def _refuse_doctype(self, *_: object) -> None:
        raise UnreadableSource(f"{self._index}: a second DOCTYPE; this is not Apple's export")


def _without_prolog(file: IO[bytes], index: str) -> Iterator[bytes]:
    """The document from its root element on.

    The DOCTYPE is cut off, not parsed: iOS 16 writes one that is not well-formed, and without it
    no entity can be defined.
    """
    head = bytearray()
    root: re.Match[bytes] | None = None
    while root is None:
        chunk = file.read(_CHUNK_BYTES)
        head += chunk
        root = re.search(rb"<HealthData[\s/>]", head)
        if root is None and (not chunk or len(head) > _MAX_PROLOG_BYTES):
            raise UnreadableSource(f"{index}: no HealthData element; this is not Apple's export")
    prolog, rest = head[: root.start()], bytes(head[root.start() :])
    if b"<!ENTITY" in prolog:
        raise UnreadableSource(f"{index}: defines entities, which Apple's exports never do")
    # So that line numbers in messages are right.
    yield b"\n" * prolog.count(b"\n")
    while rest:
        yield rest.translate(_WITHOUT_FORBIDDEN)
        rest = file.read(_CHUNK_BYTES)
