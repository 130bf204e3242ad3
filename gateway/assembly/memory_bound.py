"""The bound of the gateway's memory, as a sum of named parts: settings in, bytes out."""

from __future__ import annotations

from typing import NamedTuple

from gateway.assembly.settings import Settings
from gateway.invoke.recent_calls import MOST_FAILED, MOST_SERVED
from pool.observe.journal.reading import LATEST_BYTES, MOST_READERS

BASE_BYTES = 160 * 2**20
"""The process without requests: 80 MiB when it has just started, and as much again for functions and for what the
allocator keeps. A thousand functions take more: docs/performance.md."""
CONNECTION_BYTES = 32 * 1024
"""One connection that is idle or waits: its objects, a small head, and `WRITE_BUFFER_BYTES` of an answer."""
SLOT_BYTES = 640 * 1024
"""One call that runs: a head, a small body, and twice what one read of an instance's answer brings."""
TURN_BYTES = 1024 * 104 * 1024
"""Bytes that come within one turn of the loop before anything is judged: 1,024 heads of 64 KiB with 256 fields."""
DOCUMENT_BYTES = 16 * 2**20 * 24
"""The largest document of JSON, a job's, as it is parsed: one at a time. Small ones are in the budget."""
ACCEPTED_BYTES = 512 * 2**20
"""Accepted calls: 256 MiB of leased bodies (1,024 of 256 KiB), 128 MiB of 64 answers that come (1 MiB, if they
are events, and their copies), 80 MiB of what waits to be recorded, and 48 MiB of pieces and of SQLite's cache."""
LOG_BYTES = 64 * 2**20
"""Output of the latest invocations, all together (`LogStore`)."""
LOG_ENTRY_BYTES = 512
"""The log of one invocation that is remembered, without its output; 10,000 are."""
SERVED_CALL_BYTES = 512
"""One call in the record of calls that went well."""
FAILED_CALL_BYTES = 6 * 1024
"""One call in the record of failed ones: its detail may take four bytes a character, and a ring of its own 800."""

JOURNAL_BYTES = 32 * 2**20
"""Output on its way to the disk and the terminal: two batches of 4 MiB, their records, and what waits to be shown."""
LOG_READER_BYTES = LATEST_BYTES + 2 * 2**20
"""One reader of the journal: the latest lines, a chunk of each stream, and a step's lines as JSON."""


class Part(NamedTuple):
    """One part of the bound, in bytes."""

    name: str
    size: int


def memory_bound(settings: Settings, connections: int, slots: int) -> list[Part]:
    """Return the parts that bound the memory of a gateway with these settings. `connections`: how many clients may be
    connected at once. `slots`: how many calls its instances can run at once."""
    return [
        Part("base", BASE_BYTES),
        Part("bodies, heads and answers", settings.body_memory),
        Part("one body as it is put together", settings.body_memory * 3 // 4),
        Part("one document as it is parsed", DOCUMENT_BYTES),
        Part("connections", connections * CONNECTION_BYTES),
        Part("calls that run", slots * SLOT_BYTES),
        Part("accepted calls", ACCEPTED_BYTES),
        Part("one turn of the loop", TURN_BYTES),
        Part("record of calls", MOST_SERVED * SERVED_CALL_BYTES + MOST_FAILED * FAILED_CALL_BYTES),
        Part("logs", LOG_BYTES + settings.log_limit + 10_000 * LOG_ENTRY_BYTES),
        Part("output on its way", JOURNAL_BYTES),
        Part("readers of output", MOST_READERS * LOG_READER_BYTES),
    ]
