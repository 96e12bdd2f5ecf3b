"""The files of a zip archive by the header that stands before each of them."""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from uplift.errors import UpliftError

CHUNK_BYTES = 256 * 1024
WRAP = 1 << 32
"""Where a place or a size without its upper half begins again."""
SIGNATURE = b"PK\x03\x04"

_HEADER = struct.Struct("<4s5H3L2H")
_DIRECTORY_SIGNATURE = b"PK\x01\x02"
_DESCRIPTOR_SIGNATURE = b"PK\x07\x08"
_UTF8, _ENCRYPTED = 0x800, 0x1
_MAX_NAME_BYTES = 4096


class UnreadableFile(UpliftError):
    """A file, or a file of an archive, cannot be read, or not to its end. The message says why."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file of the archive, by its directory or by its header."""

    header: int
    """Where its header is."""
    method: int
    flags: int
    crc: int
    packed: int
    start: int | None = None
    """Where its data are, if its header does not know."""


class Members:
    """The headers in an open file that can seek."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size: int = file.seek(0, io.SEEK_END)
        self._found: dict[str, Member] | None = None
        self.has_directory = True
        """Whether a search found a directory after the last file."""

    def header_at(self, place: int) -> tuple[Member, str, int] | None:
        """What the header there says, its file's name, and where its data begin."""
        data = self.bytes_at(place, _HEADER.size)
        if len(data) < _HEADER.size or not data.startswith(SIGNATURE):
            return None
        _, _, flags, method, _, _, crc, packed, _, name_bytes, extra_bytes = _HEADER.unpack(data)
        if not 0 < name_bytes <= _MAX_NAME_BYTES:
            return None
        raw = self.bytes_at(place + _HEADER.size, name_bytes)
        if len(raw) < name_bytes or b"\x00" in raw:
            return None
        start = place + _HEADER.size + name_bytes + extra_bytes
        name = name_of(raw.decode("cp437"), flags & ~_UTF8)
        return Member(place, method, flags, crc, packed), name, start

    def search(self) -> dict[str, Member]:
        """Every file that has a header, in a search of the whole archive. Done once."""
        if self._found is not None:
            return self._found
        self._found = {}
        position = 0
        while (place := self._find(SIGNATURE, position)) >= 0:
            position = place + 4
            header = self.header_at(place)
            if header is None:
                continue
            member, name, start = header
            if not name.endswith("/"):
                self._found.setdefault(name, member)
            end = start + member.packed
            # Over the data, in which another archive may be, if they end where the header says.
            if member.packed and self.bytes_at(end, 2) == b"PK":
                position = end
        self.has_directory = self._find(_DIRECTORY_SIGNATURE, position) >= 0
        return self._found

    def open(self, member: Member) -> "io.BufferedReader[Chunks]":
        """Its unpacked bytes. Reading raises UnreadableFile; so does the end, if they are wrong.

        Raises:
            UnreadableFile: it is encrypted, or packed in a way that Apple does not use.
        """
        # With other methods one read can unpack to any size at once.
        if member.flags & _ENCRYPTED:
            raise UnreadableFile("encrypted; unpack the archive with its password first")
        if member.method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UnreadableFile(
                "compressed in a way that Apple does not use; unpack the archive first"
            )
        return io.BufferedReader(Chunks(self._unpack(member)), CHUNK_BYTES)

    def _unpack(self, member: Member) -> Iterator[bytes]:
        crcs, start = {member.crc}, member.start
        if start is None:
            header = self.header_at(member.header)
            if header is None:
                raise UnreadableFile("damaged: it is not where the archive says")
            crcs.add(header[0].crc)
            start = header[2]
        crc = 0
        if member.method == zipfile.ZIP_STORED:
            unpacked = self._stored(start, member)
        else:
            unpacked = self._deflated(start)
        end = start
        for chunk, end in unpacked:  # noqa: B007  the last one is used
            crc = zlib.crc32(chunk, crc)
            if chunk:
                yield chunk
        if crc not in crcs.union(self._descriptor_crcs(end)):
            raise UnreadableFile("damaged: its checksum is wrong")

    def _descriptor_crcs(self, end: int) -> list[int]:
        """The checksum after the data, with or without the signature that is optional there."""
        after = self.bytes_at(end, 8)
        places = (0, 4) if after.startswith(_DESCRIPTOR_SIGNATURE) else (0,)
        return [int.from_bytes(after[at : at + 4], "little") for at in places]

    def _stored(self, start: int, member: Member) -> Iterator[tuple[bytes, int]]:
        end = start + member.packed
        # Over 4 GiB, the size lacks its upper half, too.
        while end < self.size and self.bytes_at(end, 2) != b"PK" and end + WRAP < self.size:
            end += WRAP
        while start < end:
            chunk = self.bytes_at(start, min(CHUNK_BYTES, end - start))
            if not chunk:
                raise UnreadableFile("cut off")
            start += len(chunk)
            yield chunk, start

    def _deflated(self, start: int) -> Iterator[tuple[bytes, int]]:
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        waiting = b""
        try:
            while not unpacker.eof:
                if not waiting:
                    waiting = self.bytes_at(start, CHUNK_BYTES)
                    start += len(waiting)
                    if not waiting:
                        raise UnreadableFile("cut off")
                chunk = unpacker.decompress(waiting, CHUNK_BYTES)
                waiting = unpacker.unconsumed_tail
                yield chunk, start - len(unpacker.unused_data)
        except zlib.error as error:
            raise UnreadableFile("damaged: it does not unpack") from error

    def _find(self, signature: bytes, position: int) -> int:
        while position < self.size:
            data = self.bytes_at(position, 4 * CHUNK_BYTES)
            at = data.find(signature)
            if at >= 0:
                return position + at
            if len(data) < len(signature):
                break
            position += len(data) - len(signature) + 1
        return -1

    def bytes_at(self, place: int, count: int) -> bytes:
        if place < 0:  # a damaged directory says so
            return b""
        self._file.seek(place)
        return self._file.read(count)


class Chunks(io.RawIOBase):
    """Bytes that come in chunks, as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, target: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = chunk
        taken = self._rest[: len(target)]
        target[: len(taken)] = taken
        self._rest = self._rest[len(taken) :]
        return len(taken)


def name_of(name: str, flags: int) -> str:
    """A name as it was meant: macOS and 7-Zip write UTF-8 without the flag that says so."""
    if not flags & _UTF8:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/").removeprefix("./")


def read_up_to(file: IO[bytes], limit: int) -> bytes:
    """At most `limit` bytes. Unlike file.read(limit), takes no memory for more than there are."""
    pieces = []
    while limit > 0 and (piece := file.read(min(limit, CHUNK_BYTES))):
        pieces.append(piece)
        limit -= len(piece)
    return b"".join(pieces)
