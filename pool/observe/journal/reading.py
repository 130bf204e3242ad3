"""Reading of the journal for callers: in threads, step by step, and for a bounded number of readers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from sys import getsizeof

from pool.clock import Clock
from pool.observe.journal.journal import STREAMS, Journal
from pool.observe.journal.reader import (
    LINE_OVERHEAD,
    STEP_BYTES,
    JournalReader,
    OutputFilter,
    backward,
    forward,
)
from pool.observe.journal.records import OutputLine

MOST_READERS = 32
"""Most callers that read at once, followers included. Each holds a step's lines."""
MOST_READERS_OF_A_KEY = 16
"""Most of them with one key: no key keeps the others from the output."""
LATEST_BYTES = 6 * 2**20
"""Most memory of the latest lines, which are held until all are found: 10,000 short ones fit."""
RECORD_OVERHEAD = 384
"""Memory of what the lines of one record share: five of their fields."""
MOST_IDS = 64
"""Ids with one beginning after which a search ends: it is ambiguous."""
BEAT_SECONDS = 15.0
"""Time without output after which a follower gets a sign of life: proxies end connections that stay silent."""
LARGEST_LOG_BYTES = 4 * 2**20
"""Most bytes of one invocation's output: what several runs of it may have printed together."""

Form = Callable[[list[OutputLine]], bytes]
"""Returns lines as bytes of an answer. It runs in a thread."""


class TooManyReaders(Exception):
    """`MOST_READERS` read already, or `MOST_READERS_OF_A_KEY` with this key."""


class OutputReading:
    """The readers of one gateway's journal. Their steps take turns in one thread at a time."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self.journal = journal
        self._clock = clock
        self._readers: Counter[str] = Counter()
        """By the key of their caller."""
        self._turn = asyncio.Semaphore(1)

    @contextmanager
    def reader(self, key: str = "") -> Iterator[None]:
        """Count a reader with a key while the block runs. `key`: "" without any. Raises `TooManyReaders`."""
        readers = self._readers
        if readers.total() >= MOST_READERS or (key and readers[key] >= MOST_READERS_OF_A_KEY):
            raise TooManyReaders
        readers[key] += 1
        try:
            yield
        finally:
            readers[key] -= 1
            if not readers[key]:
                del readers[key]

    async def latest(self, wanted: OutputFilter, limit: int, after: int, upto: int) -> list[OutputLine]:
        """Return the newest `limit` lines with a number of at most `upto`, oldest first; fewer if they are long.

        The search ends where all lines have a number of at most `after`.
        """
        found: list[OutputLine] = []
        size, number, more = 0, -1, limit > 0
        reader = await asyncio.to_thread(backward, self.journal.folder, STREAMS, wanted, after)
        while more:
            async with self._turn:
                lines, more = await asyncio.to_thread(reader.step, upto)
            for line in lines:
                size += getsizeof(line.text) + LINE_OVERHEAD  # one emoji, and each character takes four bytes
                size += RECORD_OVERHEAD if line.number != number else 0
                number = line.number
                if len(found) == limit or size > LATEST_BYTES:
                    more = False
                    break
                found.append(line)
        return found[::-1]

    async def in_form(self, lines: list[OutputLine], form: Form) -> AsyncIterator[bytes]:
        """Yield lines in a form, some `STEP_BYTES` at a time."""
        at = 0
        while at < len(lines):
            end, size = at, 0
            while end < len(lines) and size < STEP_BYTES:
                size += len(lines[end].text) + LINE_OVERHEAD
                end += 1
            async with self._turn:
                piece = await asyncio.to_thread(form, lines[at:end])
            yield piece
            at = end

    async def onward(self, wanted: OutputFilter, after: int, upto: int, form: Form) -> AsyncIterator[bytes]:
        """Yield the lines with a number over `after` and of at most `upto`, oldest first."""
        reader, more = forward(self.journal.folder, STREAMS, wanted, after), True
        while more:
            piece, more = await self._step(reader, upto, form)
            if piece:
                yield piece

    async def follow(self, wanted: OutputFilter, after: int, form: Form) -> AsyncIterator[bytes]:
        """Yield the lines with a number over `after`, and all that come, until the gateway ends.

        It yields b"" after `BEAT_SECONDS` without any. A reader who is slow holds nothing: it reads later.
        """
        reader, goes_on = forward(self.journal.folder, STREAMS, wanted, after), True
        while True:
            upto = self.journal.written
            piece, more = await self._step(reader, upto, form)
            if piece:
                yield piece
            if more:
                continue
            if not goes_on:
                return
            try:
                async with self._clock.timeout(BEAT_SECONDS):
                    goes_on = await self.journal.wait(upto)
            except TimeoutError:
                yield b""

    async def of_invocation(self, id: str) -> bytes | None:
        """Return what an invocation printed, as far as the journal has it, or None if it has nothing of it."""
        reader = forward(self.journal.folder, STREAMS, OutputFilter(invocation=id), 0)
        found, more = bytearray(), True
        while more and len(found) < LARGEST_LOG_BYTES:
            async with self._turn:
                records, more = await asyncio.to_thread(reader.records, self.journal.written)
            for record in records:
                if record.invocation == id:  # the filter lets through all that begin so
                    found += record.data
        return bytes(found[:LARGEST_LOG_BYTES]) or None

    async def invocations(self, prefix: str) -> list[str]:
        """Return the ids of invocations that begin so and have printed something; some of them if they are many."""
        reader = forward(self.journal.folder, STREAMS, OutputFilter(invocation=prefix), 0)
        found, more = set[str](), True
        while more and len(found) < MOST_IDS:
            async with self._turn:
                records, more = await asyncio.to_thread(reader.records, self.journal.written)
            found.update(record.invocation for record in records)
        return sorted(found)

    async def _step(self, reader: JournalReader, upto: int, form: Form) -> tuple[bytes, bool]:
        """Read and form the next lines in a thread, so that the event loop does neither."""

        def work() -> tuple[bytes, bool]:
            lines, more = reader.step(upto)
            return form(lines), more

        async with self._turn:
            return await asyncio.to_thread(work)
