"""Writes zip archives as various programs do, which Python's zipfile cannot be made to do."""

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO

UTF8, DESCRIPTOR = 0x800, 0x8
STORED, DEFLATED, LZMA = 0, 8, 14
_LOWER = 0xFFFFFFFF


@dataclass(frozen=True)
class Style:
    """What a program writes."""

    flags: int = 0
    signed_descriptor: bool = True
    local_extra: bytes = b""
    central_extra: bytes = b""
    made_by: int = 20
    method: int = DEFLATED
    states_sizes: bool = True
    """Whether the directory has the lower half of sizes, or (in an archive cut by a bug) none."""
    zip64_local: bool = False
    comment: bytes = b""


def write(file: IO[bytes], entries: Iterable[tuple[bytes, bytes]], style: Style) -> None:
    """Write `entries`, by their names' bytes, from where `file` is. Nothing is Zip64."""
    central = []
    for name, data in entries:
        place = file.tell()
        packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        deflated = packer.compress(data) + packer.flush()
        is_folder = name.endswith(b"/")
        method = STORED if is_folder else style.method
        packed = data if method == STORED else deflated
        crc, flags = zlib.crc32(data), 0 if is_folder else style.flags
        known = (crc, len(packed), len(data))
        local = (0, 0, 0) if flags & DESCRIPTOR else known
        extra = style.local_extra
        if style.zip64_local:
            extra += struct.pack("<HHQQ", 1, 16, 0, 0)
            local = (0, _LOWER, _LOWER)
        head = struct.pack("<5H3L2H", 20, flags, method, 0, 0x5A21, *local, len(name), len(extra))
        file.write(b"PK\x03\x04" + head + name + extra + packed)
        if flags & DESCRIPTOR:
            file.write(b"PK\x07\x08" if style.signed_descriptor else b"")
            file.write(struct.pack("<LQQ" if style.zip64_local else "<3L", *known))
        sizes = known if style.states_sizes else (crc, len(packed), len(data) % 1000)
        central.append(_central(name, place, sizes, (flags, method), style))
    start = file.tell()
    file.write(b"".join(central))
    size, count = file.tell() - start, len(central) & 0xFFFF
    end = (0, 0, count, count, size, start & _LOWER, len(style.comment))
    file.write(b"PK\x05\x06" + struct.pack("<4H2LH", *end) + style.comment)


def _central(
    name: bytes, place: int, sizes: tuple[int, ...], how: tuple[int, int], style: Style
) -> bytes:
    head = struct.pack(
        "<6H3L5H2L",
        *(style.made_by, 20, *how, 0, 0x5A21),
        *sizes,
        *(len(name), len(style.central_extra), 0, 0, 0),
        *(0, place & _LOWER),
    )
    return b"PK\x01\x02" + head + name + style.central_extra
