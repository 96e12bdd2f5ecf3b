"""The ClinicalRecord elements of an export.xml, whatever else is wrong with it.

In XML no `<` stands inside an element, so the file is cut before each of them. A bad element, of
which Health apps write several kinds, costs itself and nothing after it. Memory stays bounded.
"""

import re
from collections.abc import Iterator
from xml.etree import ElementTree as ET
from xml.sax.saxutils import unescape

from uplift.cli.push.files import BinaryFile
from uplift.cli.push.notes import Notes
from uplift.cli.push.zip_members import UnreadableFile

_CHUNK_BYTES = 256 * 1024
_MAX_ELEMENT_BYTES = 1024 * 1024

# iOS has written such bytes into attributes; XML 1.0 forbids them.
_FORBIDDEN = bytes(each for each in range(0x20) if each not in b"\t\n\r")
_WITHOUT_FORBIDDEN = bytes.maketrans(_FORBIDDEN, b" " * len(_FORBIDDEN))

_NAME = rb"[A-Za-z_:\x80-\xff][\w:.\x80-\xff-]*+"
_REFERENCES = rb"(?:&(?:\w++|#\w++);[^%b<&]*+)*+"
_SOUND = (
    rb"<(?:[!?]|/?" + _NAME + rb"(?:\s++" + _NAME + rb"\s*+=\s*+"
    rb'(?:"[^"<&]*+' + _REFERENCES % b'"' + rb'"|' + rb"'[^'<&]*+" + _REFERENCES % b"'" + rb"'))*+"
    rb"\s*+/?>[^<&]*+" + _REFERENCES % b"" + rb"(?=<|\Z))"
)
_BAD = re.compile(rb"<(?!" + _SOUND[1:] + rb")[^<]*+")
_CLINICAL = re.compile(rb"<ClinicalRecord[\s/>][^<]*+")
_ELEMENT = re.compile(rb"<[^<]*+")
_TAG = re.compile(rb"<ClinicalRecord[^<>]*+>")
# A value ends before the next attribute or the end, so that quotes inside it do no harm.
_ATTRIBUTE = re.compile(r'([A-Za-z]+)\s*=\s*"(.*?)"(?=\s+[A-Za-z]+\s*=|\s*/?>|\s*$)', re.DOTALL)
_NUMERIC = re.compile(r"&#(x[0-9a-fA-F]{1,6}|[0-9]{1,7});")

_NOT_UTF8 = "an element that is not UTF-8; a clinical record is read with U+FFFD in its place"


def clinical_elements(
    file: BinaryFile, index: str, notes: Notes
) -> Iterator[dict[str, str] | None]:
    """The attributes of each ClinicalRecord, in order. None: a part without one was read.

    Raises:
        UnreadableFile: it defines entities, or has no element of Apple's.
    """
    scan = _Scan(index, notes)
    rest = b""
    while chunk := _next_chunk(file, index, notes):
        rest += chunk.translate(_WITHOUT_FORBIDDEN)
        cut = rest.rfind(b"<")
        if cut > 0:
            yield from scan.elements(rest[:cut])
            rest = rest[cut:]
        if len(rest) > _MAX_ELEMENT_BYTES:
            scan.drop(rest)
            rest = b""
        yield None
    yield from scan.elements(rest)
    scan.end()


def _next_chunk(file: BinaryFile, index: str, notes: Notes) -> bytes:
    try:
        return file.read1(_CHUNK_BYTES)  # what comes before a damage, too
    except UnreadableFile as error:
        notes.lose(index, f"{error}; what follows was not read. Export it once more.")
        return b""


class _Scan:
    """Counts lines, and tells what is wrong."""

    def __init__(self, index: str, notes: Notes) -> None:
        self._index = index
        self._notes = notes
        self._line = 1
        self._is_apples = False
        self._tail = b""

    def elements(self, part: bytes) -> Iterator[dict[str, str]]:
        """The clinical records in a part of the file that ends before a `<`."""
        if b"<!ENTITY" in part:
            raise UnreadableFile("it defines entities, which Apple's exports never do")
        if not self._is_apples:
            self._is_apples = b"<HealthData" in part or _CLINICAL.search(part) is not None
        part = self._as_utf8(part)
        for bad in _BAD.finditer(part):
            if not _CLINICAL.match(bad[0]):
                line = self._line + part.count(b"\n", 0, bad.start())
                self._notes.pass_over(
                    f"{self._index}, line {line}",
                    "an element that is not well-formed XML; it is no clinical record",
                )
        for found in _CLINICAL.finditer(part):
            yield self._attributes(found, part)
        self._line += part.count(b"\n")
        self._tail = (self._tail + part)[-64:]

    def drop(self, part: bytes) -> None:
        """Pass over an element that does not end."""
        self._notes.lose(
            f"{self._index}, line {self._line}", "an element of more than a megabyte was not read"
        )
        self._line += part.count(b"\n")

    def end(self) -> None:
        """Say whether the file ended where it should. Raises: UnreadableFile."""
        if not self._is_apples:
            raise UnreadableFile("no HealthData element; this is not Apple's export")
        if b"</HealthData>" not in self._tail:
            self._notes.lose(
                f"{self._index}, line {self._line}",
                "it ends without </HealthData>; what should follow is not there",
            )

    def _attributes(self, found: re.Match[bytes], part: bytes) -> dict[str, str]:
        tag = _TAG.match(found[0])
        if tag is not None:
            try:
                closed = tag[0] if tag[0].endswith(b"/>") else tag[0][:-1] + b"/>"
                return dict(ET.fromstring(closed).attrib)  # noqa: S314  a tag has no DTD
            except ET.ParseError:
                pass
        line = self._line + part.count(b"\n", 0, found.start())
        self._notes.pass_over(
            f"{self._index}, line {line}",
            "this clinical record's element is not well-formed XML; it was read all the same",
        )
        return _attributes_of(found[0].decode(errors="replace"))

    def _as_utf8(self, part: bytes) -> bytes:
        """`part` with U+FFFD for what is not UTF-8, which is told."""
        try:
            part.decode()
        except UnicodeDecodeError:
            for element in _ELEMENT.finditer(part):
                if _is_utf8(element[0]):
                    continue
                line = self._line + part.count(b"\n", 0, element.start())
                self._notes.pass_over(f"{self._index}, line {line}", _NOT_UTF8)
            return part.decode(errors="replace").encode()
        return part


def _is_utf8(part: bytes) -> bool:
    try:
        part.decode()
    except UnicodeDecodeError:
        return False
    return True


def _attributes_of(element: str) -> dict[str, str]:
    """What can be understood of an element that is not well-formed.

    A value that seems to hold another attribute is not understood: its quote is missing.
    """
    found = {name: value for name, value in _ATTRIBUTE.findall(element) if '="' not in value}
    return {
        name: unescape(_NUMERIC.sub(_character, value), {"&quot;": '"', "&apos;": "'"})
        for name, value in found.items()
    }


def _character(reference: re.Match[str]) -> str:
    digits = reference[1]
    number = int(digits[1:], 16) if digits[0] == "x" else int(digits)
    is_character = number < 0x110000 and not 0xD800 <= number < 0xE000
    return chr(number) if is_character else "\N{REPLACEMENT CHARACTER}"
