"""Those who wait for the end of something that is kept: of a call, of a run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from pool.clock import Clock, wake

MOST_WAITING = 10_000
"""Callers that wait for ends of one kind, at most. Each holds a connection and a few KiB."""


class Waiters:
    """Who waits for what, by its id. Its length is how much is waited for."""

    def __init__(self, clock: Clock) -> None:
        self.total = 0
        """How many wait."""
        self._clock = clock
        self._of: dict[str, set[asyncio.Future[None]]] = {}

    @contextmanager
    def waiting(self, id: str, seconds: float | None = None) -> Iterator[asyncio.Future[None]]:
        """A future that is done when the end is told, or after so many seconds, if any are said. Only ends that are
        told within the block are seen: what may have ended before is looked at inside it."""
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
        """Return whether so many wait that nobody else may."""
        return self.total >= MOST_WAITING

    def tell(self, id: str) -> None:
        """It has ended."""
        for waiter in self._of.get(id, ()):
            wake(waiter)

    def __len__(self) -> int:
        return len(self._of)
