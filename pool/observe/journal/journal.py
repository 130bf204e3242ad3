"""The journal: takes output on the event loop, and keeps it on disk in a thread of its own.

The loop only appends to a bounded batch. A call that prints nothing never comes here.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pool.clock import Clock
from pool.observe.journal.joiner import LineJoiner
from pool.observe.journal.records import OutputPiece, encode_record
from pool.observe.journal.segments import SegmentStream, newest_number
from pool.observe.plain_metrics import Count

log = logging.getLogger("hearth.output")

BATCH_SECONDS = 0.2
"""Time from the first piece of a batch until it is written: what a kill of the gateway can lose."""
TIDY_SECONDS = 60.0
"""Time between two looks for segments that have become too old."""
FUNCTION_BATCH_BYTES = 512 * 1024
"""Most bytes of one function in a batch, `PIECE_OVERHEAD` of each piece included: 2.5 MiB a second."""
BATCH_BYTES = 2 * 2**20
"""Bytes of a batch from which only functions are heard that have printed less than `SMALL_BYTES`."""
SMALL_BYTES = 16 * 1024
FULL_BATCH_BYTES = 4 * 2**20
"""Most bytes of a batch."""
PIECE_OVERHEAD = 256
"""Memory of a piece beside its bytes. It bounds how many tiny pieces a batch has."""
WRITE_BYTES = 32 * 1024
"""Bytes of records that are written at once. The write lets other threads run; encoding so much takes 0.3 ms."""
QUIET_SHARE = 64
"""A function may fill a 64th of each quiet segment. The rest of its output goes to the loud ones."""
QUIET, LOUD = "quiet", "loud"
STREAMS = (QUIET, LOUD)
"""Streams of segments. Each has half of the disk, so that who prints much cannot push out what others printed."""

Sink = Callable[[Sequence[OutputPiece]], None]
"""Takes the whole lines of each batch, in the journal's thread. It must not wait."""


@dataclass(frozen=True)
class JournalBounds:
    """Bounds of the journal on disk: bytes and seconds. With 0 bytes it keeps nothing there."""

    size: int
    age: float


class _Batch:
    """Output of one moment, on its way to the thread."""

    __slots__ = ("dropped", "pieces", "size", "taken")

    def __init__(self) -> None:
        self.pieces: list[tuple[float, str, str, str, str, bytes]] = []
        """Values of an `OutputPiece` each: a plain tuple is made in a third of the time."""
        self.size = 0
        self.taken: dict[str, int] = {}
        """Bytes by function."""
        self.dropped: dict[tuple[str, str], int] = {}
        """Lines that did not fit, by function and revision."""


class Journal:
    """The output of all functions of one gateway. `take` it on the loop; the thread runs from `start` to `close`."""

    def __init__(
        self, folder: Path, bounds: JournalBounds, clock: Clock, dropped: Mapping[str, Count]
    ) -> None:
        """`dropped` counts lines that were not kept: `flood` printed too fast, `disk` could not be written."""
        self.folder = folder
        self.sinks: list[Sink] = []
        self.written = 0
        """Number of the last record that readers may see: all up to it are on disk, in both streams."""
        self._clock = clock
        self._drop_counts = dropped
        self._batch = _Batch()
        self._lock = threading.Lock()
        """Held for the few steps in which a batch is added to or exchanged."""
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._ended = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._joiner = LineJoiner()
        half = bounds.size // len(STREAMS)
        self._streams = {
            name: SegmentStream(folder, name, half, bounds.age) for name in STREAMS if bounds.size
        }
        self._quiet_bytes: dict[str, int] = {}
        """Bytes of each function in the quiet segment that is being written."""
        self._disk_fault = ""

    @property
    def keeps(self) -> bool:
        """Return whether output is kept on disk."""
        return bool(self._streams)

    # -- on the loop ----------------------------------------------------------------------------------------

    def take(self, function: str, revision: str, invocation: str, instance: str, data: bytes) -> None:
        """Keep a piece of output, or count its lines as dropped if its function prints too fast. Never waits."""
        cost = len(data) + PIECE_OVERHEAD
        with self._lock:
            batch = self._batch
            used = batch.taken.get(function, 0) + cost
            size = batch.size + cost
            if used > FUNCTION_BATCH_BYTES or (
                size > BATCH_BYTES and (used > SMALL_BYTES or size > FULL_BATCH_BYTES)
            ):
                key = function, revision
                batch.dropped[key] = batch.dropped.get(key, 0) + (data.count(b"\n") or 1)
                return
            batch.taken[function] = used
            batch.size = size
            batch.pieces.append((self._clock.wall(), function, revision, invocation, instance, data))
        if size == cost:
            self._wake.set()

    def start(self) -> None:
        """Start the thread. Call it on the running loop."""
        self._loop = asyncio.get_running_loop()
        self.written = newest_number(self.folder, STREAMS)
        self._thread = threading.Thread(target=self._run, name="hearth-output", daemon=True)
        self._thread.start()

    async def wait(self, seen: int) -> bool:
        """Wait until more than the record `seen` is written; return False if the journal has ended its readers."""
        if self._ended or self.written > seen:
            return not self._ended
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            if self.written <= seen:  # it may have been written before the thread could see who waits
                await waiter
        finally:
            self._waiters.discard(waiter)
        return not self._ended

    def end_readers(self) -> None:
        """Tell everybody who waits for more output that none will come."""
        self._ended = True
        self._tell_waiters()

    def _tell_waiters(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def close(self) -> None:
        """Write what was taken, and end the thread."""
        self.end_readers()
        self._closing.set()
        self._wake.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    # -- in the thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        tidied = float("-inf")
        while not self._closing.is_set():
            if self._clock.now() - tidied > TIDY_SECONDS:
                tidied = self._clock.now()
                self._tidy()
            self._wake.wait(BATCH_SECONDS if self._joiner.holding else TIDY_SECONDS)
            self._closing.wait(BATCH_SECONDS)
            self._write_batch(last=False)
        self._write_batch(last=True)  # also what came while the batch before was written
        for stream in self._streams.values():
            stream.close()

    def _write_batch(self, last: bool) -> None:
        with self._lock:
            batch, self._batch = self._batch, _Batch()
            self._wake.clear()
        pieces = self._joiner.join([OutputPiece(*values) for values in batch.pieces], last)
        for (function, revision), lines in batch.dropped.items():
            self._drop_counts["flood"].value += lines
            note = b"[%d lines dropped: printed faster than they can be kept]\n" % lines
            pieces.append(OutputPiece(self._clock.wall(), function, revision, "", "", note))
        if not pieces:
            return
        for sink in self.sinks:
            try:
                sink(pieces)
            except Exception:
                log.exception("Cannot pass on what functions have printed")
        if self._streams:
            self._keep(pieces)

    def _keep(self, pieces: Sequence[OutputPiece]) -> None:
        """Write pieces to their streams, then let readers see them."""
        number = max(self.written, int(self._clock.wall() * 1e6))
        pending = {name: bytearray() for name in self._streams}
        firsts: dict[str, int] = {}
        for piece in pieces:
            number += 1
            record = encode_record(number, piece)
            name = self._stream_for(piece.function, len(record))
            firsts.setdefault(name, number)
            pending[name] += record
            if len(pending[name]) >= WRITE_BYTES:
                self._append(name, bytes(pending[name]), firsts.pop(name))
                pending[name] = bytearray()
        for name, first in firsts.items():
            self._append(name, bytes(pending[name]), first)
        self.written = number
        if self._waiters and self._loop is not None:
            self._loop.call_soon_threadsafe(self._tell_waiters)

    def _stream_for(self, function: str, size: int) -> str:
        """Return the stream for a record of so many bytes: the loud one if its function has printed its share."""
        used = self._quiet_bytes.get(function, 0) + size
        if used > self._streams[QUIET].segment_bytes // QUIET_SHARE:
            return LOUD
        self._quiet_bytes[function] = used
        return QUIET

    def _append(self, name: str, records: bytes, first: int) -> None:
        try:
            if self._streams[name].append(records, first, self._clock.wall()) and name == QUIET:
                self._quiet_bytes.clear()
        except OSError as error:
            self._drop_counts["disk"].value += records.count(b"\n")
            self._note_fault(error)
        else:
            self._disk_fault = ""

    def _tidy(self) -> None:
        for name, stream in self._streams.items():
            try:
                if stream.expire(self._clock.wall()) and name == QUIET:
                    self._quiet_bytes.clear()  # else those who have used their share would be loud for good
            except OSError as error:
                self._note_fault(error)

    def _note_fault(self, error: OSError) -> None:
        """Log once that the disk cannot be used, until it can be again."""
        fault = error.strerror or str(error)
        if fault != self._disk_fault:
            self._disk_fault = fault
            log.warning(
                "Cannot keep what functions print in %s: %s. Free some space, or see HEARTH_LOG_DISK. "
                "Functions are served all the same.",
                self.folder,
                fault,
            )
