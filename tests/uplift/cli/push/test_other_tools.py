"""Exports that went through other programs: the archives that these write."""

import io
import os
import struct
import unicodedata
from pathlib import Path

import pytest

from tests.uplift.cli.push.exports import members, read, sent
from tests.uplift.cli.push.zip_writer import (
    DEFLATED,
    DESCRIPTOR,
    LZMA,
    STORED,
    UTF8,
    Style,
    write,
)
from uplift.cli.push.notes import Notes
from uplift.cli.push.records import Skipped, UnreadableSource

FIVE = [f"o{number}" for number in range(5)]
DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        "
NTFS = struct.pack("<HHLHH3Q", 10, 32, 0, 1, 24, 1, 2, 3)
UNIX = struct.pack("<HHBL", 0x5455, 5, 1, 1_700_000_000)


def named(index: str, encoding: str = "utf-8", root: str = "") -> list[tuple[bytes, bytes]]:
    return [(name.encode(encoding), data) for name, data in members(index, root).items()]


def with_folders(entries: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    folders = {name.rpartition(b"/")[0] + b"/" for name, _ in entries if b"/" in name}
    return [*((each, b"") for each in sorted(folders)), *entries]


def beside(entries: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """With the resource forks that macOS adds."""
    forks = [
        (b"__MACOSX/" + name.replace(b"/", b"/._") if b"/" in name else b"__MACOSX/._" + name)
        for name, _ in entries
    ]
    return [*entries, *((each, DOUBLE) for each in forks)]


ROOT = "apple_health_export/"
CHINESE = "导出.xml"
DECOMPOSED = unicodedata.normalize("NFD", "Exportação.xml")
ARCHIVES = {
    "ditto on macOS": (
        beside(with_folders(named(DECOMPOSED, root=ROOT))),
        Style(DESCRIPTOR, local_extra=UNIX, central_extra=UNIX, made_by=0x315),
    ),
    "Finder's Compress": (beside(named(CHINESE, root=ROOT)), Style(DESCRIPTOR, made_by=0x315)),
    "Finder, an index of more than 4 GiB": (
        named("export.xml", root=ROOT),
        Style(DESCRIPTOR, made_by=0x315, states_sizes=False),
    ),
    "Files on iOS": (
        with_folders(named(CHINESE, root=ROOT)),
        Style(DESCRIPTOR | UTF8, made_by=0x314),
    ),
    "Files on iOS, stored": (named("export.xml", root=ROOT), Style(UTF8, method=STORED)),
    "7-Zip": (with_folders(named("export.xml", root=ROOT)), Style(0, central_extra=NTFS)),
    "7-Zip, names in UTF-8": (named(CHINESE, root=ROOT), Style(UTF8, central_extra=NTFS)),
    "7-Zip, names in the machine's code page": (
        named("Exportaci\u00f3n.xml", "cp850", ROOT),
        Style(central_extra=NTFS),
    ),
    "Windows' Explorer": (named("Exportieren.xml", "cp437", ROOT), Style()),
    "Windows' Explorer, Chinese": (named(CHINESE, "gbk", ROOT), Style()),
    ".NET, with backslashes": (
        [(name.replace(b"/", b"\\"), data) for name, data in named("export.xml", root=ROOT)],
        Style(),
    ),
    "Info-ZIP": (
        with_folders(named("export.xml", root=ROOT)),
        Style(local_extra=UNIX, central_extra=UNIX, made_by=0x31E),
    ),
    "Info-ZIP into a pipe": (named("export.xml"), Style(DESCRIPTOR, zip64_local=True)),
    "Java": (
        named("export.xml", root=ROOT),
        Style(DESCRIPTOR | UTF8, local_extra=struct.pack("<HH", 0xCAFE, 0)),
    ),
    "a descriptor without its signature": (
        named("export.xml"),
        Style(DESCRIPTOR, signed_descriptor=False),
    ),
    "a comment at the end": (named("export.xml"), Style(comment=b"PK\x05\x06 made by hand")),
    "names that begin with ./": (
        [(b"./" + name, data) for name, data in named("export.xml")],
        Style(),
    ),
}


def packed(name: str) -> bytes:
    entries, style = ARCHIVES[name]
    file = io.BytesIO()
    write(file, entries, style)
    return file.getvalue()


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_of_another_program_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "export.zip"
    path.write_bytes(packed(name))
    notes = Notes()
    found = read(path, notes=notes)
    assert sent(found) == FIVE
    assert len(found) == 5
    assert notes == Notes()


@pytest.mark.parametrize("name", ARCHIVES)
def test_it_is_read_after_its_directory_is_lost(tmp_path: Path, name: str) -> None:
    data = packed(name)
    path = tmp_path / "export.zip"
    # The first byte of the end record, and one of the directory.
    data = data.replace(b"PK\x05\x06", b"PK\x05\x16").replace(b"PK\x01\x02", b"PK\x01\x12", 1)
    path.write_bytes(data)
    assert sent(read(path)) == FIVE


def test_a_program_before_the_archive_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "export.exe"
    path.write_bytes(b"MZ" + bytes(5000) + packed("7-Zip"))
    assert sent(read(path)) == FIVE


def test_a_packing_that_apple_does_not_use_is_told_by_name(tmp_path: Path) -> None:
    path = tmp_path / "export.zip"
    with path.open("wb") as file:
        write(file, named("export.xml"), Style(method=LZMA))
    notes = Notes()
    found = read(path, notes=notes)
    assert [type(item) for item in found] == [Skipped] * 5
    assert "compressed in a way" in notes.unread[0].reason


def test_an_archive_of_more_than_4_gib_as_macos_writes_it_is_read(tmp_path: Path) -> None:
    # Places and sizes lose their upper half: there is nothing of Zip64 in the archive.
    path = tmp_path / "export.zip"
    before, after = named("export.xml", root=ROOT)[:2], named("export.xml", root=ROOT)[2:]
    route, size = b"apple_health_export/workout-routes/route.gpx", (1 << 32) + 5000
    with path.open("w+b") as file:
        write(file, before, Style())
        first = _directory(file)
        place = file.tell()
        head = struct.pack(
            "<5H3L2H", 20, 0, STORED, 0, 0, 0, size % 2**32, size % 2**32, len(route), 0
        )
        file.write(b"PK\x03\x04" + head + route)
        file.seek(size, os.SEEK_CUR)  # a hole: it takes no space
        write(file, after, Style())
        second = _directory(file)
        middle = b"PK\x01\x02" + struct.pack(
            "<6H3L5H2L", 20, 20, 0, STORED, 0, 0, 0, size % 2**32, size % 2**32, len(route),
            0, 0, 0, 0, 0, place,
        ) + route  # fmt: skip
        start = file.tell()
        file.write(first + middle + second)
        length = file.tell() - start
        file.write(b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 8, 8, length, start % 2**32, 0))
    notes = Notes()
    assert sent(read(path, notes=notes)) == FIVE
    assert notes == Notes()


def _directory(file: "io.BufferedRandom") -> bytes:
    """Take the directory off the end of what was written."""
    file.flush()
    end = file.tell()
    file.seek(end - 22)
    length, start = struct.unpack("<2L", file.read(22)[12:20])
    file.seek(end - 22 - length)
    directory = file.read(length)
    file.seek(end - 22 - length)
    file.truncate()
    del start
    return directory


def test_an_encrypted_archive_is_told_by_name(tmp_path: Path) -> None:
    path = tmp_path / "export.zip"
    with path.open("wb") as file:
        write(file, named("export.xml"), Style(flags=1))
    notes = Notes()
    found = read(path, notes=notes)
    assert [type(item) for item in found] == [Skipped] * 5
    assert "encrypted" in notes.unread[0].reason


def test_an_archive_whose_data_say_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "export.zip"
    with path.open("wb") as file:
        write(file, [(b"photo.jpg", b"\xff\xd8\xff")], Style(method=DEFLATED))
    with pytest.raises(UnreadableSource, match="picture"):
        read(path)
