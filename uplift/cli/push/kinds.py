"""What a file is, by its first bytes. Names lie: a phone translates them, a person changes them."""

import re
from enum import Enum, auto
from pathlib import PurePosixPath

HEAD_BYTES = 256 * 1024
"""Enough to reach the root element of an export.xml: its DOCTYPE has some 20 KB."""

BOM = b"\xef\xbb\xbf"


class Kind(Enum):
    """What `uplift push` can read."""

    ZIP = auto()
    GZIP = auto()
    INDEX = auto()
    """export.xml, in whatever language its name is."""
    JSON = auto()
    """One document, or one on each line."""


# Each is refused by its name, so that a person knows what to do with it.
_OTHERS = (
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it and push the folder"),
    (0, b"Rar!\x1a\x07", "a RAR archive; unpack it and push the folder"),
    (0, b"BZh", "a bzip2 file; unpack it first"),
    (0, b"\xfd7zXZ\x00", "an xz file; unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file; unpack it first"),
    (257, b"ustar", "a tar archive; unpack it and push the folder"),
    (0, b"PK\x07\x08", "a part of a split archive; join the parts first"),
    (0, b"\x00\x05\x16\x07", "an AppleDouble file, which macOS leaves beside another"),
    (0, b"\x00\x05\x16\x00", "an AppleSingle file, not FHIR"),
    (0, b"%PDF-", "a PDF, not FHIR"),
    (0, b"\x89PNG", "a picture, not FHIR"),
    (0, b"\xff\xd8\xff", "a picture, not FHIR"),
    (0, b"GIF8", "a picture, not FHIR"),
    (4, b"ftyp", "a picture or a film, not FHIR"),
    (0, b"SQLite format 3\x00", "an SQLite database, not FHIR"),
    (0, b"bplist00", "a property list, not FHIR"),
    (0, b"PAR1", "a Parquet file, not FHIR"),
    (128, b"DICM", "a DICOM file, not FHIR"),
    (0, b"{\\rtf", "a text document (RTF), not FHIR"),
    (0, b"\xff\xfe", "text in UTF-16; save it as UTF-8"),
    (0, b"\xfe\xff", "text in UTF-16; save it as UTF-8"),
)
# Any of these, so that one damaged byte does not hide an index.
_INDEX = re.compile(
    rb"<!DOCTYPE HealthData|<!-- HealthKit Export Version|<HealthData[\s>]|<ClinicalRecord\s"
    rb"|<ExportDate\s"
)
_LINES = (".ndjson", ".jsonl")


def kind_of(head: bytes, name: str) -> Kind | str:
    """What a file that begins with `head` is: a kind, or words for what cannot be read."""
    for offset, magic, words in _OTHERS:
        if head.startswith(magic, offset):
            return words
    text = head.removeprefix(BOM).lstrip()
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return Kind.ZIP
    if head.startswith(b"\x1f\x8b"):
        return Kind.GZIP
    if text.startswith((b"{", b"[")):
        return Kind.JSON
    if _INDEX.search(head):
        return Kind.INDEX
    return _words_for_text(text, name)


def _words_for_text(text: bytes, name: str) -> Kind | str:
    if not text:
        return "an empty file"
    if b"\x00" in text:
        return "not FHIR, and not an archive that Uplift knows"
    if text.startswith(b"<"):
        if b"<ClinicalDocument" in text:
            return "a CDA document; push the whole export, which has the FHIR records"
        if b"http://hl7.org/fhir" in text[:2000]:
            return "FHIR as XML; Uplift takes FHIR as JSON"
        return "XML or HTML, and not the index of an Apple Health export"
    if PurePosixPath(name).suffix.lower() in _LINES and b"\n{" in text:
        return Kind.JSON  # its first line is no record; the others may be
    return "text, not FHIR as JSON"


def is_litter(name: str) -> bool:
    """Whether an operating system left this file beside those of a person."""
    last = name.rpartition("/")[2]
    return last.startswith("._") or last in _LITTER or "__MACOSX/" in name


_LITTER = {".DS_Store", "Thumbs.db", "desktop.ini", ".localized"}
