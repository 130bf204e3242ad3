"""Frames between the gateway and init over a container's standard streams: pure parsing and writing.

docs/init.md has the format. `runtimes/init/frames.c` is the other end.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from pool.engine.hijack import FRAME as ENGINE_HEAD

KEY_BYTES = 32
SEAL_BYTES = 4
LARGEST_PAYLOAD = 32 * 1024
FIRST_WINDOW = 64 * 1024
"""Bytes that may be sent on a new stream, each way."""
VERSION = 1
HEAD = struct.Struct(">II")
"""Head of a frame: type and length of the payload in one number, stream."""
HELLO = struct.Struct(">BQ")
"""Beginning of the first frame of an epoch: version, epoch. Text follows."""
NUMBER = struct.Struct(">I")
STDOUT, STDERR = 1, 2
LARGEST_ENGINE_PIECE = 2**20
"""Bound of one piece of the engine's, in bytes: it sends what it has read at once, 32 KiB."""


class FrameType(IntEnum):
    """The kinds of frames."""

    HELLO = 1
    OPEN = 2
    DATA = 3
    WINDOW = 4
    END = 5
    CLOSE = 6
    LOST = 7


class BadFrame(Exception):
    """The other end sends something that is no frame, or breaks their rules."""


class Frame(NamedTuple):
    """One frame of init."""

    type: int
    stream: int
    payload: bytes


def seal_of(key: bytes) -> bytes:
    """Return the bytes that end each frame to init: the beginning of a key never looks like them."""
    return bytes(byte ^ 0xFF for byte in key[:SEAL_BYTES])


def opening(key: bytes, epoch: int) -> bytes:
    """Return the bytes that begin an epoch. No frame precedes them on a connection."""
    return key + epoch.to_bytes(8) + seal_of(key)


def frame(type: FrameType, stream: int, payload: bytes | bytearray | memoryview, seal: bytes) -> bytes:
    """Return a frame to init with a payload of at most `LARGEST_PAYLOAD` bytes."""
    return b"".join((HEAD.pack(type << 24 | len(payload), stream), payload, seal))


class FrameReader:
    """Reads what an attached container writes: the engine's pieces, and in those of stdout the frames of init.

    `on_frame` takes each frame, `on_stderr` what init writes to stderr. Nothing counts before `key` has come.
    """

    def __init__(
        self, key: bytes, on_frame: Callable[[Frame], None], on_stderr: Callable[[bytes], None]
    ) -> None:
        self._key = key
        self._on_frame = on_frame
        self._on_stderr = on_stderr
        self._raw = b""
        """Part of a piece of the engine's."""
        self._rest = b""
        """Part of a frame, or of the key."""
        self.keyed = False
        """True once frames count."""

    def feed(self, data: bytes) -> None:
        """Take what has come over the connection. Raises `BadFrame`."""
        if self._raw:
            data = self._raw + data
        at, end = 0, len(data)
        while end - at >= ENGINE_HEAD.size:
            number, length = ENGINE_HEAD.unpack_from(data, at)
            if length > LARGEST_ENGINE_PIECE or number > STDERR:
                raise BadFrame("the engine sends something that is no piece of output")
            begin = at + ENGINE_HEAD.size
            if begin + length > end:
                break
            at = begin + length
            if number == STDERR:
                self._on_stderr(data[begin:at])
            else:
                self._feed_stdout(data[begin:at])
        self._raw = data[at:]

    def _feed_stdout(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        while True:
            if not self.keyed:
                found = data.find(self._key, at)
                if found < 0:
                    at = max(at, end - KEY_BYTES + 1)
                    break
                self.keyed, at = True, found + KEY_BYTES
            if end - at < HEAD.size:
                break
            kind, stream = HEAD.unpack_from(data, at)
            length = kind & 0xFFFFFF
            if length > LARGEST_PAYLOAD:
                raise BadFrame("init sends something that is no frame")
            begin = at + HEAD.size
            if begin + length > end:
                break
            at = begin + length
            self._on_frame(Frame(kind >> 24, stream, data[begin:at]))
        self._rest = data[at:]
