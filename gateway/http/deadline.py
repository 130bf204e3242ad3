"""A bound to how long a task may take for a part of its work."""

from __future__ import annotations

import asyncio

from pool.clock import Clock


class Deadline:
    """Cancels the task that made it when its time has come: `asyncio.timeout` at a quarter of its cost.

    The task waits inside the guarded block whenever the timer can run, so the cancellation always ends up there.
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
        """Whether a cancellation that was caught is the deadline's, and nobody else's as well."""
        return self._passed and self._task is not None and self._task.uncancel() == 0

    def disarm(self) -> None:
        """The block has ended."""
        self._timer.cancel()
