"""Place in a revision's queue for a task that waits there."""

from __future__ import annotations

import asyncio
from functools import partial

from pool.lease import Lease
from scheduler.dispatch.dispatcher import Dispatcher
from scheduler.dispatch.function import Revision


class Queued:
    """A place in a revision's queue, for a task that waits in it. Raises `QueueFull` and `Gone`."""

    def __init__(self, dispatcher: Dispatcher, revision: Revision, invocation: str, arrived: float) -> None:
        self._dispatcher = dispatcher
        self._lease: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        self._waiter = dispatcher.enqueue(revision, invocation, arrived, self._settle)

    def _settle(self, lease: Lease | None, fault: Exception | None) -> None:
        if self._lease.done():  # cancelled, and its task has not run since
            if lease is not None:
                asyncio.get_running_loop().call_soon(partial(self._dispatcher.release, lease, used=False))
        elif lease is not None:
            self._lease.set_result(lease)
        elif fault is not None:
            self._lease.set_exception(fault)

    async def collect(self) -> Lease:
        """Wait for the first slot that is freed or started, and return its lease.

        Raises `NoCapacity` if none comes in time or the platform cannot start an instance, `FunctionBroken` if the
        function's instances do not start, and `Gone`. A cancelled caller leaves no trace.
        """
        try:
            return await self._lease
        except asyncio.CancelledError:
            self._dispatcher.leave(self._waiter)
            if not self._lease.cancelled() and self._lease.exception() is None:
                self._dispatcher.release(
                    self._lease.result(), used=False
                )  # the slot came just before the caller was cancelled
            raise

    def refuse(self, fault: Exception) -> None:
        """Give up the place, unless a slot has come already; `collect` raises the fault."""
        self._dispatcher.refuse(self._waiter, fault)
