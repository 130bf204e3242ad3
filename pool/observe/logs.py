"""Output of invocations and instances, kept in bounded memory. It can be read after the instance is gone."""

from __future__ import annotations

from collections import OrderedDict

TRUNCATED = b"\n[output truncated]\n"
LAST_LINES_BYTES = 4000
"""Bounds the latest output that is told with a fault: enough for the end of a traceback."""


def last_lines(output: bytes) -> str:
    """Return the last whole lines of some output as text, or the end of the last one if it is too long."""
    end = output[-LAST_LINES_BYTES:]
    if len(output) > len(end):
        end = end[end.find(b"\n", 0, -1) + 1 :]
    return end.decode(errors="replace")


class LogBuffer:
    """Output of one invocation: its first `limit` bytes, and a note if it printed more."""

    __slots__ = ("_kept", "full", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.full = False
        self._kept = bytearray()  # a list of single bytes would take 40 times their size

    @property
    def size(self) -> int:
        """Return how many bytes are kept."""
        return len(self._kept)

    def write(self, data: bytes) -> int:
        """Keep as much of `data` as fits, and return how many bytes were added."""
        if self.full:
            return 0
        before = len(self._kept)
        room = self.limit - before
        self.full = len(data) > room
        self._kept += data[:room] + TRUNCATED if self.full else data
        return len(self._kept) - before

    def read(self) -> bytes:
        """Return the kept output."""
        return bytes(self._kept)


class InstanceLog:
    """Last `limit` bytes that an instance printed outside of any single invocation."""

    __slots__ = ("_kept", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._kept = bytearray()

    @property
    def held(self) -> int:
        """Return how many bytes are in memory: up to twice `limit`, so that few writes have to move bytes."""
        return len(self._kept)

    def write(self, data: bytes) -> None:
        """Append `data`, and drop the oldest bytes beyond the limit."""
        self._kept += data[-self.limit :]
        if len(self._kept) > 2 * self.limit:
            del self._kept[: -self.limit]

    def read(self) -> bytes:
        """Return the last `limit` bytes, oldest first."""
        return bytes(self._kept[-self.limit :])


class LogStore:
    """Logs of the latest invocations that printed something.

    `per_invocation` and `total` bound bytes, and `remembered` bounds how many invocations are known. The oldest are
    forgotten first.
    """

    def __init__(
        self, per_invocation: int = 256 * 1024, total: int = 64 * 2**20, remembered: int = 10_000
    ) -> None:
        self.per_invocation = per_invocation
        self._total = total
        self.remembered = remembered
        self._size = 0
        self._known: OrderedDict[str, LogBuffer] = OrderedDict()

    @property
    def size(self) -> int:
        """Return how many bytes of output are kept."""
        return self._size

    @property
    def known(self) -> tuple[str, ...]:
        """Return the invocations that are known, oldest first."""
        return tuple(self._known)

    def write(self, invocation: str, data: bytes) -> bytes:
        """Add to an invocation's log, and return what was added. Data beyond its bound is dropped."""
        buffer = self._known.get(invocation)
        if buffer is None:
            buffer = self._known[invocation] = LogBuffer(self.per_invocation)
        added = buffer.write(data)
        self._size += added
        self._forget()
        if not buffer.full:
            return data
        return buffer.read()[-added:] if added else b""

    def read(self, invocation: str) -> bytes | None:
        """Return the output of an invocation, or None if it printed nothing or is forgotten."""
        buffer = self._known.get(invocation)
        return None if buffer is None else buffer.read()

    def _forget(self) -> None:
        """Forget the oldest until both bounds hold. One that prints again later counts as new."""
        known = self._known
        while len(known) > self.remembered or (self._size > self._total and len(known) > 1):
            _, buffer = known.popitem(last=False)
            self._size -= buffer.size
