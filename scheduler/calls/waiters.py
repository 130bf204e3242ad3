"""Waiters for the end of stored things, such as calls and runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from pool.clock import Clock, wake

MAX_WAITERS = 10_000
"""Callers that may wait for ends of one kind. Each holds a connection and a few KiB."""


class Waiters:
    """The waiters of one gateway, by the id that they wait for. `len` is the number of ids."""

    def __init__(self, clock: Clock) -> None:
        self.total = 0
        """Number of waiters."""
        self._clock = clock
        self._of: dict[str, set[asyncio.Future[None]]] = {}

    @contextmanager
    def waiting(self, id: str, seconds: float | None = None) -> Iterator[asyncio.Future[None]]:
        """Yield a future that is done when the end is told, or after `seconds` unless they are None.

        It notices ends that are told within the block only. Check inside the block for an earlier end.
        """
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._of.setdefault(id, set())
        waiters.add(ended)
        self.total += 1
        timer = None if seconds is None else self._clock.call_later(seconds, wake, ended)
        try:
            yield ended
        finally:
            if timer is not None:
                timer.cancel()
            waiters.discard(ended)
            self.total -= 1
            if not waiters:
                self._of.pop(id, None)

    @property
    def full(self) -> bool:
        """Return whether the limit of waiters is reached."""
        return self.total >= MAX_WAITERS

    def tell(self, id: str) -> None:
        """Wake the waiters for this id, which has ended."""
        for waiter in self._of.get(id, ()):
            wake(waiter)

    def __len__(self) -> int:
        return len(self._of)
