"""The way to a command: init in its container runs it for each call. One connection carries one run at a time."""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection
from dataclasses import dataclass

from pool.transport.message import Call
from pool.transport.run import RunConnection, RunResult, signal_name
from pool.transport.slots import SlotLink
from pool.transport.way import Way, WayEnds

HELD_BYTES = 2**20
"""Bounds the output, in bytes, that waits in memory for the exit status. A longer one is passed on as it comes."""
LAST_LINE_BYTES = 500
"""Bounds the last line of standard error in a problem: a line of a log, not a page."""
STDERR_TAIL_BYTES = 4096
"""Bounds the end of standard error that is searched for its last line."""


@dataclass(frozen=True, slots=True)
class CommandFacts:
    """Facts about the runs of one container."""

    held_bytes: int
    """Output of a run that waits for its exit status."""
    most_bytes: int
    """Longest output of a run."""
    own_variables: Collection[str]
    """Names of the function's own variables, which a call does not change."""
    memory: int
    """Memory of the container, bytes."""
    memory_kills: Callable[[], int | None]
    """Returns how many processes of it were killed for want of memory so far, or None if nobody can tell."""
    note_call: Callable[[str], None] | None = None
    """Writes down whose call runs in a container that may be kept."""


class CommandLink(SlotLink):
    """Connections of init in a command's container, and what its runs have told.

    The end of standard error is kept for the problem of a run that fails, as long as it runs alone.
    """

    def __init__(
        self, way: Way, on_change: Callable[[], None], sink: Callable[[bytes], None], facts: CommandFacts
    ) -> None:
        super().__init__(way, on_change, sink)
        self._ends = WayEnds(lambda: RunConnection(self._opened, self._lost, self), self._printed)
        self._sink = sink
        self._facts = facts
        self.held_bytes = facts.held_bytes
        self.most_bytes = facts.most_bytes
        self.own_variables = facts.own_variables
        self.exit_status: int | None = None
        """Exit status of the run that has ended last, or None if there is none, or if it had to be ended."""
        self._running = 0
        self._mixed = False
        """True if runs at once have printed, so that nobody knows which has printed what."""
        self._stderr = bytearray()
        self._kills = 0

    def began(self, call: Call) -> None:
        """Note that a run begins."""
        if self._running == 0:
            self._stderr.clear()
        self._mixed = self._running > 0
        self._running += 1
        self.exit_status = None
        if self._facts.note_call is not None:
            self._facts.note_call((call.meta or {}).get("HEARTH_INVOCATION_ID", ""))

    def ended(self, end: RunResult | None) -> None:
        """Note that a run has ended, or with None that it is not known how."""
        self._running -= 1
        self.exit_status = None if end is None else end.exit_status

    def failure(self, end: RunResult) -> str:
        """Return in words how a run failed, with the last line of its standard error."""
        self.drain_log()
        line = "" if self._mixed or self._running else last_line(self._stderr)
        how = self._end_in_words(end)
        return f"{how}: {line}" if line else how

    def _end_in_words(self, end: RunResult) -> str:
        want = f"for want of memory ({self._facts.memory >> 20} MiB)"
        kills = self._facts.memory_kills()
        killed, self._kills = kills is not None and kills > self._kills, kills or self._kills
        if end.signal is None:
            after = f", after a process of it was killed {want}" if killed else ""
            return f"the command ended with exit status {end.status}{after}"
        if killed:
            return f"the command was killed {want}"
        maybe = f", maybe {want}" if kills is None and end.signal == signal.SIGKILL else ""
        return f"the command was ended by signal {end.signal}{signal_name(end.signal)}{maybe}"

    def _printed(self, data: bytes) -> None:
        self._stderr += data[-STDERR_TAIL_BYTES:]
        del self._stderr[:-STDERR_TAIL_BYTES]
        self._sink(data)


def last_line(output: bytes | bytearray) -> str:
    """Return the last line of an output that is not blank, or an empty string if there is none."""
    line = output.rstrip().rpartition(b"\n")[2].rpartition(b"\r")[2].strip()
    return line[:LAST_LINE_BYTES].decode(errors="replace")
