"""Parses data with many short lines in slices, so that thousands of chunks of one byte each hold nobody up.

The parser calls back for each chunk, which takes about 2 µs. One read of a connection brings up to 44,000 chunks, and
a thousand clients can send as much at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl

SLICE_BYTES = 2048
"""Bytes that are parsed in one turn of the loop: at most 340 chunks, which takes about 1 ms."""
BYTES_OF_A_LINE = 256
"""Data with shorter lines than this on average is parsed in slices."""


def has_many_lines(data: bytes) -> bool:
    """Return whether data may hold so many chunks that it must be parsed in slices."""
    return len(data) > SLICE_BYTES and data.count(b"\r\n") * BYTES_OF_A_LINE > len(data)


def rest_of_declared(cycle: Any, read: int) -> int:
    """Return the bytes to come of a body whose length was declared; 0 for any other. They are no chunks.

    `cycle` is the latest request of a connection, if there was one, and `read` are the bytes of its body so far.
    """
    if cycle is None or not getattr(cycle, "more_body", False):
        return 0
    lengths = (int(value) for name, value in cycle.scope["headers"] if name == b"content-length")
    return next(lengths, 0) - read


class HoldableFlow(FlowControl):
    """The reading side of one connection. Held, it reads nothing; wishes of others count from its release on."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self._held = False
        self._paused_on_release = False

    def hold(self) -> None:
        """Read nothing until `release`."""
        if not self._held:
            self._paused_on_release = self.read_paused
            super().pause_reading()
            self._held = True

    def release(self) -> None:
        """Read on, unless somebody wished otherwise meanwhile."""
        if self._held:
            self._held = False
            if not self._paused_on_release:
                super().resume_reading()

    def pause_reading(self) -> None:
        """Read no more, from the release on if it is held."""
        if self._held:
            self._paused_on_release = True
        else:
            super().pause_reading()

    def resume_reading(self) -> None:
        """Read on, from the release on if it is held."""
        if self._held:
            self._paused_on_release = False
        else:
            super().resume_reading()


class SliceQueue:
    """Connections whose data is parsed in slices: one slice of one of them in each turn of the loop."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], bool]] = deque()

    def put(self, parse: Callable[[], bool]) -> None:
        """Have `parse` called, once in its turn and again as often as it returns that something is left."""
        self._waiting.append(parse)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        left = False
        try:
            # It stays in the queue meanwhile, so that `put` sees that a turn is due.
            left = self._waiting[0]()
        finally:  # a fault of one connection must not hold up all others
            parse = self._waiting.popleft()
            if left:
                self._waiting.append(parse)
            if self._waiting:
                asyncio.get_running_loop().call_soon(self._turn)
