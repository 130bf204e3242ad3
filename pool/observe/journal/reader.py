"""Readers of the journal's segments, for threads: forward from a place, or backward from the end.

A reader works in steps, so that many can take turns, and holds one chunk of each stream. It opens a file for each
chunk: the writer may delete any segment at any time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pool.observe.journal.records import OutputLine, OutputRecord, decode_record, needle, number_of
from pool.observe.journal.segments import Segment, segments_of

CHUNK_BYTES = 64 * 1024
"""Bytes that are read at once. A record always fits."""
STEP_CHUNKS = 32
"""Chunks that a step looks through at most: 2 MiB, some 20 ms if all of it has to be parsed."""
STEP_BYTES = 64 * 1024
"""Bytes of output after which a step ends: what its caller holds at once."""
LINE_OVERHEAD = 128
"""Bytes that a line counts in addition to its text: its fields."""
LOST = OutputLine(0, 0, "", "", "", "", "", "[lines dropped: they were deleted before they were read]")
"""Stands for what a reader was too slow for. Its number is 0."""


@dataclass(frozen=True)
class OutputFilter:
    """The wishes of a reader: which lines. None means any."""

    function: str | None = None
    invocation: str | None = None
    """Id, or its beginning."""
    instance: str | None = None
    since: str | None = None
    """As `OutputRecord.time`."""
    until: str | None = None
    grep: str | None = None
    """Text that a line must contain."""
    sees: Callable[[str], bool] | None = None
    """Returns whether the reader may see the output of a function. It is given "" for output of none."""
    needles: tuple[bytes, ...] = field(init=False)
    """Bytes that every record has which matches."""

    def __post_init__(self) -> None:
        found = [
            needle(name, value, whole)
            for name, value, whole in (
                ("function", self.function, True),
                ("invocation", self.invocation, False),
                ("instance", self.instance, True),
            )
            if value is not None
        ]
        object.__setattr__(self, "needles", tuple(found))

    def matches(self, record: OutputRecord) -> bool:
        """Return whether some lines of a record may match."""
        return (
            (self.function is None or record.function == self.function)
            and (self.invocation is None or record.invocation.startswith(self.invocation))
            and (self.instance is None or record.instance == self.instance)
            and (self.since is None or record.time >= self.since)
            and (self.until is None or record.time <= self.until)
            and (self.sees is None or self.sees(record.function))
        )

    def lines_of(self, record: OutputRecord) -> list[OutputLine]:
        """Return the lines of a record that match."""
        if self.grep is None:
            return list(record.lines())
        return [line for line in record.lines() if self.grep in line.text]

    def records_in(self, chunk: bytes, after: int, upto: int) -> list[OutputRecord]:
        """Return the records in whole lines that match, and whose number is in (`after`, `upto`]."""
        if not all(each in chunk for each in self.needles):
            return []
        found = []
        for line in chunk.split(b"\n"):
            number = number_of(line)
            if number is None or not after < number <= upto or not all(each in line for each in self.needles):
                continue
            record = decode_record(line)
            if record is not None and self.matches(record):
                found.append(record)
        return found


class ForwardStream:
    """A place in one stream, which moves forward. It may wait at the end for what is written next."""

    def __init__(self, folder: Path, stream: str, after: int) -> None:
        self.records: deque[OutputRecord] = deque()
        self.lost = False
        """True if a segment was deleted before it was read to its end."""
        self._is_read = self._is_gone = False
        """The segment was read to its end when none followed it; it is deleted, and this was told if it matters."""
        self._folder = folder
        self._stream = stream
        self._after = after
        self._segment: Segment | None = None
        self._offset = 0

    def fill(self, wanted: OutputFilter, upto: int) -> bool:
        """Read one more chunk; return False if there is nothing more up to the number `upto`."""
        segments = segments_of(
            self._folder, self._stream
        )  # before the file: its end is final if another follows
        if self._segment is None:
            before = [segment for segment in segments if segment.first <= self._after]
            if not self._begin(before[-1:] or segments[:1]):
                return False
        assert self._segment is not None
        following = [segment for segment in segments if segment.first > self._segment.first]
        try:
            with self._segment.path.open("rb") as file:
                file.seek(self._offset)
                chunk = file.read(CHUNK_BYTES)
        except OSError:
            if not self._is_gone and (following or not self._is_read):
                self.lost = True
            self._is_gone = True
            return self._begin(following)
        end = chunk.rfind(b"\n") + 1
        self._is_read = not end and len(chunk) < CHUNK_BYTES
        if self._is_read:
            return self._begin(following)
        chunk = chunk[:end] if end else chunk  # a chunk without a line end was not written by us
        is_last = False
        last = number_of(chunk[chunk.rfind(b"\n", 0, end - 1) + 1 : end])
        if last is not None and last > upto:
            is_last, chunk = True, _up_to(chunk, upto)
        self._offset += len(chunk)
        self.records.extend(wanted.records_in(chunk, self._after, upto))
        return not is_last

    def _begin(self, segments: Sequence[Segment]) -> bool:
        """Go on with the first of these segments; return False if there is none."""
        if not segments:
            return False
        self._segment, self._offset = segments[0], 0
        self._is_read = self._is_gone = False
        return True


class BackwardStream:
    """A place in one stream, which moves backward from its end."""

    def __init__(self, folder: Path, stream: str, after: int) -> None:
        self.records: deque[OutputRecord] = deque()
        """Newest first."""
        segments = segments_of(folder, stream)
        ends = [segment.first for segment in segments[1:]]
        while ends and ends.pop(0) <= after:  # all in the oldest has a lower number
            segments.pop(0)
        self._segments = segments
        self._end: int | None = None
        self._rest = b""
        """Beginning of the chunk before, which is the end of a record."""

    def fill(self, wanted: OutputFilter, upto: int) -> bool:
        """Read one more chunk; return False at the beginning of the stream."""
        if not self._segments:
            return False
        path = self._segments[-1].path
        try:
            with path.open("rb") as file:
                if self._end is None:
                    self._end = file.seek(0, 2)
                begin = max(0, self._end - CHUNK_BYTES)
                file.seek(begin)
                chunk = file.read(self._end - begin) + self._rest
        except OSError:
            begin, chunk = 0, b""
        if begin:
            cut = chunk.find(b"\n") + 1
            self._rest = chunk[:cut] if len(chunk) <= 2 * CHUNK_BYTES else b""
            chunk, self._end = chunk[cut:], begin
        else:
            self._rest, self._end = b"", None
            self._segments.pop()
        found = wanted.records_in(chunk, 0, upto)
        self.records.extend(reversed(found))
        return bool(self._segments)


class JournalReader:
    """The lines of the journal that match a filter, in the order of their numbers, or the newest first."""

    def __init__(
        self, streams: Sequence[ForwardStream | BackwardStream], wanted: OutputFilter, sign: int
    ) -> None:
        """`sign` is 1 forward, -1 backward."""
        self._streams = streams
        self._wanted = wanted
        self._sign = sign

    def step(self, upto: int) -> tuple[list[OutputLine], bool]:
        """Return the next lines up to the number `upto`, and whether there may be more. Blocks for some 20 ms."""
        records, more = self.records(upto)
        lines: list[OutputLine] = []
        for stream in self._streams:
            if isinstance(stream, ForwardStream) and stream.lost:
                stream.lost = False
                lines.append(LOST)
        for record in records:
            lines += self._wanted.lines_of(record)[:: self._sign]
        return lines, more

    def records(self, upto: int) -> tuple[list[OutputRecord], bool]:
        """Return the next records up to the number `upto`, and whether there may be more. Blocks for some 20 ms."""
        chunks, size = STEP_CHUNKS, 0
        found: list[OutputRecord] = []
        ended: set[int] = set()
        while size < STEP_BYTES:
            for place, stream in enumerate(self._streams):
                while not stream.records and place not in ended:
                    if not chunks:
                        return found, True
                    chunks -= 1
                    if not stream.fill(self._wanted, upto):
                        ended.add(place)
            heads = [stream for stream in self._streams if stream.records]
            if not heads:
                return found, False
            record = min(heads, key=lambda each: self._sign * each.records[0].number).records.popleft()
            found.append(record)
            size += len(record.text) + LINE_OVERHEAD * record.text.count("\n")
        return found, True


def forward(folder: Path, streams: Sequence[str], wanted: OutputFilter, after: int) -> JournalReader:
    """Return a reader of all that comes after the number `after`, oldest first."""
    return JournalReader([ForwardStream(folder, stream, after) for stream in streams], wanted, 1)


def backward(folder: Path, streams: Sequence[str], wanted: OutputFilter, after: int) -> JournalReader:
    """Return a reader that begins with the newest line and ends before the number `after`, or a little before it.

    Blocks for a moment.
    """
    return JournalReader([BackwardStream(folder, stream, after) for stream in streams], wanted, -1)


def _up_to(chunk: bytes, upto: int) -> bytes:
    """Return the lines of a chunk before the first whose number is over `upto`."""
    end = 0
    for line in chunk.splitlines(keepends=True):
        number = number_of(line)
        if number is not None and number > upto:
            break
        end += len(line)
    return chunk[:end]
