"""Makes installed packages small: without files that serving never reads, and without symbols for debuggers."""

from __future__ import annotations

import struct
from fnmatch import fnmatch
from pathlib import Path

NOT_WANTED = (
    "*.pyi",
    "*.pyx",
    "*.pxd",
    "*.pxi",
    "*.c",
    "*.h",
    "*.hpp",
    "bin/*",  # programs with the path of this machine's Python
    "*/tests/*",
    "fastapi_offline/static/redoc*",  # our page of the API is Swagger's
    "pygments/*",  # rich colours source code with it, which we print nowhere
)
ELF_64_LITTLE_ENDIAN = b"\x7fELF\x02\x01"
PLACES_AT = 32
HEADER = struct.Struct("<QQ I HHHHHH")
"""From there on in a 64-bit ELF file: place of the segments, place of the sections, flags, sizes and counts."""
SEGMENT = struct.Struct("<II QQQQ QQ")
"""One program header: type, flags, place, two addresses, size in the file, size in memory, alignment."""


def slim(folder: Path) -> None:
    """Remove what serving does not need from a folder of installed packages."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        if any(fnmatch(str(path.relative_to(folder)), pattern) for pattern in NOT_WANTED):
            path.unlink()
        elif ".so" in path.suffixes:
            path.write_bytes(without_symbols(path.read_bytes()))


def without_symbols(library: bytes) -> bytes:
    """Return the part of a shared library that is loaded. Other files are returned as they are.

    Programs load segments. Sections, which come behind them, are for linkers and debuggers: three quarters of uvloop.
    """
    if not library.startswith(ELF_64_LITTLE_ENDIAN):
        return library
    first, _, flags, size, entry, count, *_ = HEADER.unpack_from(library, PLACES_AT)
    if entry != SEGMENT.size:
        return library
    segments = (SEGMENT.unpack_from(library, first + number * entry) for number in range(count))
    end = max(place + stored for _, _, place, _, _, stored, *_ in segments)
    loaded = bytearray(library[: max(end, first + count * entry)])
    HEADER.pack_into(loaded, PLACES_AT, first, 0, flags, size, entry, count, 0, 0, 0)
    return bytes(loaded)
