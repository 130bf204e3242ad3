"""Segments: the files of the journal. A stream of them is appended to at its end and deleted from its beginning."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pool.observe.journal.records import number_of

SEGMENTS = 8
"""Files of a full stream. The oldest is deleted as a whole, so at least seven eighths of the bound are kept."""
MOST_FILES = 64
"""Most files of a stream. Each start of a gateway begins one, however little is in it."""
SUFFIX = ".jsonl"
TAIL_BYTES = 128 * 1024
"""End of a segment that is sure to hold a whole record."""


class Segment(NamedTuple):
    """One file: its path, and the number of its first record."""

    path: Path
    first: int


def segments_of(folder: Path, stream: str) -> list[Segment]:
    """Return the segments of a stream, oldest first; none if the folder cannot be read. Files of other names are not
    looked at."""
    found = []
    prefix = f"{stream}-"
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            digits = entry.name.removeprefix(prefix).removesuffix(SUFFIX)
            if entry.name == f"{prefix}{digits}{SUFFIX}" and digits.isascii() and digits.isdigit():
                found.append(Segment(Path(entry.path), int(digits)))
    return sorted(found, key=lambda segment: segment.first)


def newest_number(folder: Path, streams: Sequence[str]) -> int:
    """Return the number of the last record of these streams, or 0 without any. Blocks for a moment."""
    newest = 0
    for stream in streams:
        for segment in segments_of(folder, stream)[-1:]:
            with contextlib.suppress(OSError), segment.path.open("rb") as file:
                file.seek(max(0, segment.path.stat().st_size - TAIL_BYTES))
                numbers = [number_of(line) for line in file.read().split(b"\n")]
                newest = max(newest, segment.first, *(number or 0 for number in numbers))
    return newest


class SegmentStream:
    """One stream of segments, for the thread that writes it. `size` bounds its bytes, `age` the seconds of its files.

    A segment of an earlier process is never appended to: its last line may be torn.
    """

    def __init__(self, folder: Path, name: str, size: int, age: float) -> None:
        self.name = name
        self.segment_bytes = size // SEGMENTS
        self._folder = folder
        self._size = size
        self._age = age
        self._file: int | None = None
        self._written = 0
        self._begun = 0.0

    def append(self, records: bytes, first: int, now: float) -> bool:
        """Write records, of which `first` is the first's number; return whether they began a new segment.

        `now` is Unix time. Raises OSError; the records are lost then, and the next ones begin a new segment.
        """
        fresh = self._is_used_up(len(records), now)
        if fresh:
            self._begin(first, len(records), now)
        assert self._file is not None
        left = memoryview(records)
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError:
            self.close()  # half a record may be there: nothing may follow it
            raise
        self._written += len(records)
        return fresh

    def _is_used_up(self, more: int, now: float) -> bool:
        if self._file is None:
            return True
        # A file that somebody has deleted would take the records, and nobody would find them.
        return (
            self._written + more > self.segment_bytes
            or now - self._begun > self._age / SEGMENTS
            or os.fstat(self._file).st_nlink == 0
        )

    def _begin(self, first: int, more: int, now: float) -> None:
        self.close()
        # Without its parents: a data folder that was moved away must be able to come back.
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self.make_room(max(self.segment_bytes, more), now)
        path = self._folder / f"{self.name}-{first:016d}{SUFFIX}"
        # Only its owner may read it: functions print what callers have sent.
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._written, self._begun = 0, now

    def make_room(self, room: int, now: float) -> None:
        """Delete segments that are too old, and the oldest until `room` more bytes fit. Raises OSError."""
        kept, size = [], 0
        for segment in segments_of(self._folder, self.name):
            with contextlib.suppress(FileNotFoundError):
                found = segment.path.stat()
                if now - found.st_mtime > self._age or not found.st_size:
                    segment.path.unlink()
                    continue
                kept.append((segment.path, found.st_size))
                size += found.st_size
        for number, (path, length) in enumerate(kept):
            if size + room <= self._size and len(kept) - number < MOST_FILES:
                return
            path.unlink(missing_ok=True)
            size -= length

    def expire(self, now: float) -> bool:
        """Delete segments that are too old, or more than the bound. Raises OSError.

        Return whether the segment that was written was old enough to be closed.
        """
        is_old = self._file is not None and now - self._begun > self._age / SEGMENTS
        if is_old:
            self.close()
        self.make_room(0, now)
        return is_old

    def close(self) -> None:
        """Close the segment that is written. The next record begins another."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
