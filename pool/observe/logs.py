"""What invocations print: kept in memory, bounded in each direction, readable after the instance is gone."""

from __future__ import annotations

from collections import OrderedDict

TRUNCATED = b"\n[output truncated]\n"


class LogBuffer:
    """The output of one invocation: the first `limit` bytes and a note that there was more."""

    __slots__ = ("_kept", "full", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.full = False
        self._kept = bytearray()  # a list of single bytes would take 40 times their size

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return len(self._kept)

    def write(self, data: bytes) -> int:
        """Keep what fits; returns how many bytes were kept."""
        if self.full:
            return 0
        before = len(self._kept)
        room = self.limit - before
        self.full = len(data) > room
        self._kept += data[:room] + TRUNCATED if self.full else data
        return len(self._kept) - before

    def read(self) -> bytes:
        """Everything that was kept."""
        return bytes(self._kept)


class InstanceLog:
    """The last `limit` bytes that an instance printed and that belong to no single invocation."""

    __slots__ = ("_kept", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._kept = bytearray()

    @property
    def held(self) -> int:
        """Bytes that are held: at most twice `limit`, so that few writes move what is kept."""
        return len(self._kept)

    def write(self, data: bytes) -> None:
        """Append; the oldest goes."""
        self._kept += data[-self.limit :]
        if len(self._kept) > 2 * self.limit:
            del self._kept[: -self.limit]

    def read(self) -> bytes:
        """What is left, oldest first."""
        return bytes(self._kept[-self.limit :])


class LogStore:
    """The logs of the latest invocations.

    `per_invocation` and `total` are bytes; `remembered` is how many invocations are known at all, those that
    printed nothing included. The oldest are forgotten first.
    """

    def __init__(
        self, per_invocation: int = 256 * 1024, total: int = 64 * 2**20, remembered: int = 10_000
    ) -> None:
        self.per_invocation = per_invocation
        self._total = total
        self._remembered = remembered
        self._size = 0
        self._known: OrderedDict[str, LogBuffer | None] = OrderedDict()

    def remember(self, invocation: str) -> None:
        """Note that there is such an invocation, so that its empty log is told from an unknown one. What an earlier
        run of it printed stays."""
        self._known.setdefault(invocation, None)
        if len(self._known) > self._remembered:
            self._forget()

    def write(self, invocation: str, data: bytes) -> None:
        """Add to an invocation's log; beyond its bound the data is dropped."""
        buffer = self._known.get(invocation)
        if buffer is None:
            buffer = self._known[invocation] = LogBuffer(self.per_invocation)
        self._size += buffer.write(data)
        self._forget()

    def read(self, invocation: str) -> bytes | None:
        """What the invocation printed; None if it is not known (any more)."""
        if invocation not in self._known:
            return None
        buffer = self._known[invocation]
        return b"" if buffer is None else buffer.read()

    def _forget(self) -> None:
        """Forget the oldest until both bounds hold; one that prints after it was forgotten is the newest again."""
        known = self._known
        while len(known) > self._remembered or (self._size > self._total and len(known) > 1):
            _, buffer = known.popitem(last=False)
            if buffer is not None:
                self._size -= buffer.size
