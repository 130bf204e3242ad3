"""A time limit for a part of a task's work."""

from __future__ import annotations

import asyncio

from pool.clock import Clock


class Deadline:
    """A time limit that cancels the task which created it. It costs a quarter of `asyncio.timeout`.

    A timer runs only while its task waits. A task that waits only inside the guarded block is cancelled only there.
    """

    __slots__ = ("_passed", "_task", "_timer")

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._task = asyncio.current_task()
        self._passed = False
        self._timer = clock.call_later(seconds, self._pass)

    def _pass(self) -> None:
        self._passed = True
        if self._task is not None:
            self._task.cancel()

    def caught(self) -> bool:
        """Return whether a cancellation that the task caught came from this deadline alone."""
        return self._passed and self._task is not None and self._task.uncancel() == 0

    def disarm(self) -> None:
        """End the limit. Call it when the block ends."""
        self._timer.cancel()
