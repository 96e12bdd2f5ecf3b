"""The files of a zip archive, as long as a person could still get them out.

`zipfile` reads the directory at the end. Everything else is read by the header before each file,
because directories are wrong in real life: macOS writes sizes and places over 4 GiB without their
upper half, Windows writes other separators, a copy flips a byte. If there is no directory, or a
file is not where it says, the archive is searched for headers.
"""

import io
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from typing import IO

from uplift.cli.push.kinds import is_litter
from uplift.cli.push.zip_members import (
    SIGNATURE,
    WRAP,
    Chunks,
    Member,
    Members,
    UnreadableFile,
    name_of,
    read_up_to,
)

_COUNTED_IN_ZIP64 = 0xFFFF
# What zipfile raises for a directory in which any byte may be wrong.
_BAD_DIRECTORY = (
    zipfile.BadZipFile,
    NotImplementedError,
    ValueError,
    struct.error,
    OverflowError,
    EOFError,
    OSError,
)


class Archive:
    """A zip archive in an open file that can seek.

    Raises:
        UnreadableFile: empty, cut off, or not an archive.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._members = Members(file)
        self._directory_start = 0
        self._directory = self._read_directory() or self._without_directory()
        self.names = [name for name in self._directory if not is_litter(name)]
        """Its files, without those that macOS adds."""

    def open(self, name: str) -> "io.BufferedReader[Chunks]":
        """The unpacked bytes of a file.

        Reading raises UnreadableFile; so does the end, if the checksum is wrong.

        Raises:
            KeyError: there is no such file.
            UnreadableFile: it is encrypted, or packed in a way that Apple does not use.
        """
        trouble: UnreadableFile | None = None
        for member in self._candidates(name):
            try:
                opened = self._members.open(member)
                opened.peek()
            except UnreadableFile as error:
                trouble = trouble or error
            else:
                return opened
        raise trouble or KeyError(name)

    def read(self, name: str, limit: int) -> bytes:
        """At most `limit` bytes of a file, by whichever of its descriptions has the checksum.

        Raises: KeyError, UnreadableFile.
        """
        trouble: UnreadableFile | None = None
        for member in self._candidates(name):
            try:
                with self._members.open(member) as opened:
                    return read_up_to(opened, limit)
            except UnreadableFile as error:
                trouble = trouble or error
        raise trouble or KeyError(name)

    def _candidates(self, name: str) -> Iterator[Member]:
        """What the archive says about a file: the most likely first, and only as far as needed."""
        stated = self._directory.get(name)
        if stated is not None and self._is_at(stated.header, name):
            yield stated
            own = self._members.header_at(stated.header)
            if own is not None:
                yield own[0]
        else:
            searched = self._members.search().get(name)
            yield from (each for each in (searched, stated) if each is not None)
        if stated is not None:
            yield from self._before_the_next(stated)

    def _before_the_next(self, member: Member) -> Iterator[Member]:
        """Where its data are if its header is damaged: they end where the next file begins."""
        places = [each.header for each in self._directory.values() if each.header > member.header]
        end = min(places, default=self._directory_start)
        for descriptor_bytes in (0, 16, 12):
            yield replace(member, start=max(0, end - descriptor_bytes - member.packed))

    def _without_directory(self) -> dict[str, Member]:
        found = self._members.search()
        if not found:
            raise UnreadableFile(
                "an empty archive" if self._members.size < 100 else "a damaged archive"
            )
        if not self._members.has_directory:
            raise UnreadableFile(
                "the archive is cut off. Copy it or export it once more, to its end"
            )
        return found

    def _read_directory(self) -> dict[str, Member] | None:
        try:
            with zipfile.ZipFile(self._file) as archive:
                infos, comment_bytes = archive.infolist(), len(archive.comment)
                self._directory_start = archive.start_dir
        except _BAD_DIRECTORY:
            return None
        # zipfile does not notice that an entry is too long and hides those after it.
        count = self._members.bytes_at(self._members.size - comment_bytes - 12, 2)
        stated = int.from_bytes(count, "little")
        if stated not in (len(infos) & 0xFFFF, _COUNTED_IN_ZIP64):
            return None
        found = {
            name_of(info.orig_filename, info.flag_bits): Member(
                self._place_of(info.header_offset),
                info.compress_type,
                info.flag_bits,
                info.CRC,
                info.compress_size,
            )
            for info in infos
            if not info.is_dir()
        }
        return found if infos else None

    def _place_of(self, stated: int) -> int:
        """A place over 4 GiB may lack its upper half, or zipfile may have guessed one."""
        if self._members.size < WRAP:
            return stated
        places: list[int] = [stated, *range(stated % WRAP, self._members.size, WRAP)]
        for place in places:
            if 0 <= place < self._members.size and self._members.bytes_at(place, 4) == SIGNATURE:
                return place
        return stated

    def _is_at(self, place: int, name: str) -> bool:
        found = self._members.header_at(place)
        return found is not None and found[1] == name
