"""Records in a file of JSON: a resource, a Bundle, an array, or one of these on each line."""

import io
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import msgspec

from uplift.cli.push.files import BinaryFile
from uplift.cli.push.kinds import BOM
from uplift.cli.push.notes import Notes
from uplift.cli.push.records import Record, Skipped, parse_record
from uplift.cli.push.zip_members import CHUNK_BYTES

_MAX_DOCUMENT_BYTES = 96 * 1024 * 1024
"""A Bundle has to be in memory as a whole."""

# As the API: the entries of the others mean something together only.
_BUNDLE_TYPES = ("collection", "batch", "transaction", "searchset")
_LINES = (".ndjson", ".jsonl")


class _Entry(msgspec.Struct):
    resource: msgspec.Raw = msgspec.Raw(b"")


class _Document(msgspec.Struct, rename="camel"):
    """What tells a Bundle and the files of a bulk export from a resource."""

    resource_type: str | None = None
    type: Any = None
    entry: msgspec.Raw = msgspec.Raw(b"[]")
    transaction_time: Any = None
    output: Any = None
    event_id: Any = None


_DOCUMENT: msgspec.json.Decoder[_Document] = msgspec.json.Decoder(_Document)
_ENTRIES: msgspec.json.Decoder[list[_Entry]] = msgspec.json.Decoder(list[_Entry])
_ARRAY: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])
_ANY: msgspec.json.Decoder[msgspec.Raw] = msgspec.json.Decoder(msgspec.Raw)
_BAD_JSON = (msgspec.DecodeError, RecursionError)


class JsonReader:
    """Reads files of JSON.

    `fhir_version` is used for records that state none.
    """

    def __init__(self, fhir_version: str | None, max_record_bytes: int, notes: Notes) -> None:
        self._version = fhir_version
        self._max_bytes = max_record_bytes
        self._notes = notes

    def read(self, file: BinaryFile, label: str) -> Iterator[Record | Skipped | None]:
        """The records of `file`, in order. None: a part without one was read.

        Raises: Damaged, OSError, EOFError.
        """
        first = file.readline(self._max_bytes + 1)
        named = any(each.lower() in _LINES for each in PurePosixPath(label).suffixes)
        text = first.removeprefix(BOM).strip()
        if (named and text not in (b"{", b"[")) or _is_whole(text):
            here = label if not named and not file.peek(1) else None
            yield from self._lines(first.removeprefix(BOM), file, label, here)
            return
        document = _whole_document(first.removeprefix(BOM).lstrip(), file)
        if len(document) > _MAX_DOCUMENT_BYTES:
            yield Skipped(label, f"a document of more than {_MAX_DOCUMENT_BYTES >> 20} MiB")
            return
        end = document.find(b"\n")
        second = bytes(document[end + 1 : document.find(b"\n", end + 1)]) if end >= 0 else b""
        if _is_whole(second.strip()) and not _is_json(document):
            # Lines, of which the first is bad.
            rest = io.BufferedReader(io.BytesIO(document[end + 1 :]))
            yield from self._lines(bytes(document[: end + 1]), rest, label, None)
        else:
            yield from self._value(document, label)

    def _lines(
        self, line: bytes, file: BinaryFile, label: str, alone: str | None
    ) -> Iterator[Record | Skipped | None]:
        number = 0
        while line:
            number += 1
            here = alone or f"{label}:{number}"
            if len(line) > self._max_bytes and not line.endswith(b"\n"):
                while line and not line.endswith(b"\n"):
                    line = file.readline(self._max_bytes)
                    yield None
                yield Skipped(here, self._too_large)
            elif not line.strip():
                yield None
            elif number == 1 and _shape_of(line).event_id is not None:
                self._notes.pass_over(label, "the log of a bulk export")
                return
            else:
                yield from self._value(line.strip(), here)
            line = file.readline(self._max_bytes + 1)

    def _value(self, value: bytes | bytearray, label: str) -> Iterator[Record | Skipped | None]:
        """The records of one JSON value."""
        if value.startswith(b"["):
            yield from self._array(value, label)
            return
        shape = _shape_of(value)
        if shape.resource_type == "Bundle":
            yield from self._bundle(shape, label)
        elif shape.transaction_time is not None and shape.output is not None:
            self._notes.pass_over(label, "the manifest of a bulk export")
        else:
            yield self._record(bytes(value), label)

    def _array(self, value: bytes | bytearray, label: str) -> Iterator[Record | Skipped | None]:
        try:
            items = _ARRAY.decode(value)
        except _BAD_JSON:
            yield Skipped(label, "not valid JSON")
            return
        for number, item in enumerate(items, 1):
            yield self._record(bytes(item), f"{label}, element {number}")

    def _bundle(self, bundle: _Document, label: str) -> Iterator[Record | Skipped | None]:
        if bundle.type not in _BUNDLE_TYPES:
            reason = f"a Bundle that is not of the type {', '.join(_BUNDLE_TYPES)}"
            yield Skipped(label, reason, "Bundle")
            return
        try:
            entries = _ENTRIES.decode(bundle.entry)
        except _BAD_JSON:
            yield Skipped(label, "a Bundle whose entries are not objects", "Bundle")
            return
        for number, entry in enumerate(entries, 1):
            here = f"{label}, entry {number}"
            if entry.resource:
                yield self._record(bytes(entry.resource), here)
            else:
                self._notes.pass_over(here, "an entry of a Bundle without a resource")
        if not entries:
            self._notes.pass_over(label, "a Bundle without entries")

    def _record(self, value: bytes, label: str) -> Record | Skipped:
        if len(value) > self._max_bytes:
            return Skipped(label, self._too_large)
        return parse_record(value, label, fhir_version=self._version)

    @property
    def _too_large(self) -> str:
        return f"larger than {self._max_bytes // 1024:,} KiB"


def _is_whole(value: bytes) -> bool:
    """Whether this is a whole object or array, and not the first line of one."""
    if not value.startswith((b"{", b"[")) or not value.endswith((b"}", b"]")):
        return False
    return _is_json(value)


def _is_json(value: bytes | bytearray) -> bool:
    try:
        _ANY.decode(value)
    except _BAD_JSON:
        return False
    return True


def _whole_document(first: bytes, file: BinaryFile) -> bytearray:
    """`first` and what follows, in memory once; more than the limit says that it is too large."""
    document = bytearray(first)
    while len(document) <= _MAX_DOCUMENT_BYTES and (chunk := file.read(CHUNK_BYTES)):
        document += chunk
    return document


def _shape_of(value: bytes | bytearray) -> _Document:
    try:
        return _DOCUMENT.decode(value)
    except _BAD_JSON:
        return _Document()
