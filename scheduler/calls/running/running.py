"""A run of an accepted call while it is under way: who begins it, who is told its end, who may interrupt it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from pool.contracts import problem_slugs as slugs
from scheduler.calls.model import Claim, Result

log = logging.getLogger("hearth.durable")


class Run(Protocol):
    """A run that is under way."""

    def interrupt(self) -> None:
        """Have it end soon. Its end is told as ever."""


Ended = Callable[[Result | None], None]
"""Is told what came of a run; None: it was interrupted before it brought anything."""
Runner = Callable[[Claim, Ended], Run]
"""Begins a run. Must not raise, and tells its end once, be it before this returns."""


class TaskRun:
    """A run that is a task."""

    def __init__(self, work: Coroutine[Any, Any, Result], ended: Ended) -> None:
        self._ended = ended
        self._task = asyncio.get_running_loop().create_task(work)
        self._task.add_done_callback(self._done)

    def interrupt(self) -> None:
        """Cancel the task, when it has taken its first step: it may have taken something over to be given back."""
        self._task.get_loop().call_soon(self._task.cancel)

    def _done(self, task: asyncio.Task[Result]) -> None:
        if task.cancelled():
            self._ended(None)
        elif (fault := task.exception()) is not None:
            self._ended(faulty(fault))
        else:
            self._ended(task.result())


def faulty(fault: BaseException) -> Result:
    """Return the result of a run that raised unexpectedly: a fault of the platform, so it is tried again."""
    log.error("An accepted call could not run because of a fault of the gateway", exc_info=fault)
    detail = "the gateway has a fault; its log says more"
    return Result(500, [], b"", slugs.INTERNAL_ERROR, detail, "platform")
