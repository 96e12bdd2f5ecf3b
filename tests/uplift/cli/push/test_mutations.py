"""Any byte of a good export may change: nothing breaks, and no record is lost without a word.

UPLIFT_MUTATIONS=2000 tries more than `make test` does.
"""

import io
import os
import random
from pathlib import Path

import pytest

from tests.uplift.cli.push.exports import document, files, members, read, records, write_folder
from tests.uplift.cli.push.zip_writer import DESCRIPTOR, STORED, Style, write
from uplift.cli.push.notes import Notes
from uplift.cli.push.records import Record, Skipped, UnreadableSource

TRIES = int(os.environ.get("UPLIFT_MUTATIONS", "200"))
READINGS = [
    f'<Record type="HKQuantityTypeIdentifierHeartRate" sourceName="Watch" value="{number}"/>'
    for number in range(60, 80)
]
GOOD = {
    f"clinical-records/Observation-{number}.json": files()[name]
    for number, name in enumerate(files())
}


def mutated(data: bytes, random_: random.Random) -> tuple[bytes, int]:
    """One to three bytes that follow each other are others, and where."""
    at = random_.randrange(len(data))
    new = bytearray(data)
    for place in range(at, min(at + random_.choice((1, 1, 1, 2, 3)), len(data))):
        new[place] ^= random_.randrange(1, 256)
    return bytes(new), at


def told(path: Path) -> tuple[dict[str, Record], set[str], Notes]:
    """What would be sent, by its file; which are skipped by name; and what else is told."""
    notes = Notes()
    found: list[Record | Skipped] = []
    try:
        found = read(path, notes=notes)
    except UnreadableSource:
        assert notes.unread or notes.passed_over
    good = {item.label: item for item in found if isinstance(item, Record)}
    return good, {item.label for item in found if isinstance(item, Skipped)}, notes


def archive(style: Style) -> bytes:
    content = members("export.xml", "", *READINGS)
    file = io.BytesIO()
    write(file, [(name.encode(), data) for name, data in content.items()], style)
    return file.getvalue()


@pytest.mark.parametrize(
    "style",
    [Style(), Style(method=STORED), Style(DESCRIPTOR)],
    ids=["deflated", "stored", "with descriptors"],
)
def test_a_changed_byte_of_an_archive_loses_no_record_without_a_word(
    tmp_path: Path, style: Style
) -> None:
    data = archive(style)
    path = tmp_path / "export.zip"
    for seed in range(TRIES):
        new, at = mutated(data, random.Random(seed))
        path.write_bytes(new)
        sent, skipped, notes = told(path)
        where = f"seed {seed}, byte {at}"
        for label, item in sent.items():
            assert item.body in GOOD.values(), f"{where}: other bytes were sent for {label}"
        # A file whose own name or header changed may be told under its changed name.
        assert len(sent) + len(skipped) >= len(GOOD), f"{where}: {sent.keys()}, {skipped}"
        if style.method == STORED:
            # Here a byte belongs to one file only.
            assert len(sent) >= len(GOOD) - 1, f"{where}: {skipped}, {notes}"


def test_a_changed_byte_of_an_index_costs_at_most_one_record(tmp_path: Path) -> None:
    index = document(*READINGS[:10], *records(), *READINGS[10:]).encode()
    folder = write_folder(tmp_path / "export", {"export.xml": index, **files()})
    for seed in range(TRIES):
        new, at = mutated(index, random.Random(seed))
        (folder / "export.xml").write_bytes(new)
        sent, skipped, _ = told(folder)
        where = f"seed {seed}, byte {at}: {sent.keys()}, {skipped}"
        assert len(sent) >= len(GOOD) - 1, where
        assert GOOD.keys() <= sent.keys() | skipped, where


def test_bytes_of_chance_are_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "export.zip"
    for seed in range(TRIES):
        random_ = random.Random(seed)
        start = random_.choice((b"PK\x03\x04", b"\x1f\x8b\x08", b"{", b"<?xml", b"[", b""))
        path.write_bytes(start + random_.randbytes(random_.randrange(300)))
        assert told(path)[0] == {}


def test_an_archive_that_ends_anywhere_is_told_or_read(tmp_path: Path) -> None:
    data = archive(Style())
    path = tmp_path / "export.zip"
    for length in range(0, len(data), max(1, len(data) // TRIES)):
        path.write_bytes(data[:length])
        sent, skipped, notes = told(path)
        assert sent.keys() | skipped >= GOOD.keys() or notes.unread
