"""What `uplift push` reads: an Apple Health export, a folder, an NDJSON or a JSON file."""

import asyncio
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import closing
from pathlib import Path

from uplift.cli.push.health_export import clinical_records, count_clinical_records, is_health_export
from uplift.cli.push.records import (
    MAX_RECORD_BYTES,
    Record,
    Skipped,
    UnreadableSource,
    parse_record,
)

_BOM = b"\xef\xbb\xbf"


async def read_records(
    path: Path, *, fhir_version: str | None = None, max_record_bytes: int = MAX_RECORD_BYTES
) -> AsyncGenerator[Record | Skipped, None]:
    """The records at `path`, one at a time, each with its bytes unchanged.

    `fhir_version` is used for records that state none.

    Raises:
        UnreadableSource: nothing there is readable, or not from some point on.
    """
    with closing(_read(path, fhir_version, max_record_bytes)) as found:
        for item in found:
            if item is None:
                await asyncio.sleep(0)
            else:
                yield item


def count_records(path: Path) -> int:
    """About how many records `read_records` will find; a cheap estimate for a progress bar."""
    try:
        if is_health_export(path):
            return count_clinical_records(path)
        if path.is_dir():
            return sum(_lines(each) for each in _files_in(path))
        return _lines(path)
    except OSError as error:
        raise UnreadableSource(f"{path.name} cannot be read: {error.strerror}") from error


def _read(
    path: Path, fhir_version: str | None, max_bytes: int
) -> Generator[Record | Skipped | None, None, None]:
    try:
        if is_health_export(path):
            yield from clinical_records(path, fhir_version=fhir_version, max_record_bytes=max_bytes)
        elif path.is_dir():
            yield from _read_folder(path, fhir_version, max_bytes)
        else:
            yield from _read_file(path, path.name, fhir_version, max_bytes)
    except OSError as error:
        raise UnreadableSource(f"{path.name} cannot be read: {error.strerror}") from error


def _files_in(folder: Path) -> list[Path]:
    return sorted(each for each in folder.rglob("*") if each.suffix.lower() in (".json", ".ndjson"))


def _read_folder(
    folder: Path, fhir_version: str | None, max_bytes: int
) -> Iterator[Record | Skipped | None]:
    files = _files_in(folder)
    if not files:
        raise UnreadableSource(
            f"{folder.name}: no .json or .ndjson file in this folder, and no export.xml"
        )
    root = folder.resolve()
    for each in files:
        label = each.relative_to(folder).as_posix()
        if not each.resolve().is_relative_to(root):
            yield Skipped(label, "a link that leads out of the folder")
        elif not each.is_file():
            yield Skipped(label, "not a file")
        else:
            try:
                yield from _read_file(each, label, fhir_version, max_bytes)
            except OSError as error:
                yield Skipped(label, f"cannot be read: {error.strerror}")


def _read_file(
    path: Path, label: str, fhir_version: str | None, max_bytes: int
) -> Iterator[Record | Skipped | None]:
    if path.suffix.lower() != ".json":
        yield from _read_ndjson(path, label, fhir_version, max_bytes)
        return
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        yield Skipped(label, f"larger than {max_bytes // 1024:,} KiB")
    else:
        yield parse_record(data.removeprefix(_BOM), label, fhir_version=fhir_version)


def _read_ndjson(
    path: Path, label: str, fhir_version: str | None, max_bytes: int
) -> Iterator[Record | Skipped | None]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(max_bytes + 1):
            number += 1
            here = f"{label}:{number}"
            if len(line) > max_bytes and not line.endswith(b"\n"):
                while line and not line.endswith(b"\n"):
                    line = file.readline(max_bytes)
                    yield None
                yield Skipped(here, f"larger than {max_bytes // 1024:,} KiB")
                continue
            text = line.removeprefix(_BOM) if number == 1 else line
            if text.strip():
                yield parse_record(text.strip(), here, fhir_version=fhir_version)
            else:
                yield None


def _lines(path: Path) -> int:
    if path.suffix.lower() == ".json":
        return 1
    with path.open("rb") as file:
        count, last = 0, b"\n"
        while chunk := file.read(1024 * 1024):
            count += chunk.count(b"\n")
            last = chunk[-1:]
    return count + (last != b"\n")
