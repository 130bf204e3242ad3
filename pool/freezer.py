"""The freezer: an idle instance is stopped by the kernel until it is leased again.

By a write to the container's cgroup where that is possible: about 0.2 ms, at once, no engine call. Else over the
engine, some 20 ms each way: then the calls of a thawing instance wait, and nobody else does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Protocol, cast

from pool.clock import Clock
from pool.contracts.base import Freezing
from pool.engine.base import EngineDown, EngineError
from pool.instance import Instance
from pool.ledger import Ledger
from pool.states import Reason, State
from pool.workload import Workload

log = logging.getLogger("hearth.freezer")

THAW_TIMEOUT = 10.0
"""Seconds that the engine gets to thaw an instance before that counts as dead."""


COUNT_EVERY_SECONDS = 10.0
"""Between two counts of the processes of an idle instance that has workers: one that starts may have a helper."""


class Pauses(Protocol):
    """Freezing and thawing over the engine. Both raise `EngineError`."""

    async def pause(self, instance: Instance) -> None: ...

    async def unpause(self, instance: Instance) -> None: ...


def may_freeze(instance: Instance, now: float) -> bool:
    """Whether an instance has been idle for its function's `freeze_after`, and nothing runs in it that we know of.

    With a slot that is not connected, a call that nobody waits for any more may still run: its shim dials after it.
    """
    workload, link = instance.workload, instance.link
    return (
        instance.state is State.IDLE
        and instance.freezable
        and workload is not None
        and workload.contract.freezing is not Freezing.NEVER
        and workload.freeze_after is not None
        and now - instance.last_used >= workload.freeze_after
        and link is not None
        and link.free_slots(0) >= workload.concurrency
    )


def may_freeze_processes(workload: Workload, processes: int | None) -> bool:
    """Return whether an instance with so many processes may be frozen; None: it is not known how many.

    A master that watches its workers by a clock takes them for hung when they have all been frozen, and kills them.
    """
    return workload.freeze_workers or processes == 1


def is_due(instance: Instance, now: float) -> bool:
    """Return whether an instance is to be frozen now. Its processes are counted only when all else says so."""
    if not may_freeze(instance, now):
        return False
    workload = cast(Workload, instance.workload)
    if workload.freeze_workers:
        return True
    if now - instance.counted_at < COUNT_EVERY_SECONDS:
        return False
    instance.counted_at = now
    processes = None
    if instance.cgroup is not None:
        with contextlib.suppress(OSError):
            processes = instance.cgroup.processes()
    return may_freeze_processes(workload, processes)


class Freezer:
    """Freezes idle instances and thaws them. `remove` takes away one that cannot be thawed."""

    def __init__(
        self, ledger: Ledger, clock: Clock, engine: Pauses, remove: Callable[[Instance, Reason], None]
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._engine = engine
        self._remove = remove

    def freeze(self, instance: Instance) -> None:
        """Freeze an idle instance, or begin to. One that cannot be frozen stays idle, and is tried no more."""
        if instance.thawing is not None:
            return  # the engine is still at work on it
        direct = False
        if instance.cgroup is not None:
            with contextlib.suppress(OSError):  # not allowed to write, most likely: the engine is
                instance.cgroup.freeze()
                direct = True
        self._ledger.enter(instance, State.FROZEN, self._clock.now())
        if not direct:
            instance.pausing = asyncio.ensure_future(self._pause(instance))

    async def _pause(self, instance: Instance) -> bool:
        try:
            await self._engine.pause(instance)
        except Exception as error:
            if not (
                isinstance(error, EngineDown) and not error.asked
            ):  # else it is frozen when the engine is back
                instance.freezable = False
                if instance.state not in (State.STOPPING, State.GONE):
                    unforeseen = None if isinstance(error, EngineError) else error
                    log.warning(
                        "Cannot freeze %r, so it keeps running: %s", instance, error, exc_info=unforeseen
                    )
                try:
                    await self._engine.unpause(instance)  # it may have been done, and only the answer lost
                except EngineError as unknown:
                    self._bury(instance, unknown)
            if instance.state is State.FROZEN:
                self._ledger.enter(instance, State.IDLE, self._clock.now())
                instance.pausing = None
            return False
        return True

    def thaw(self, instance: Instance) -> None:
        """Let an instance go on that was frozen until now: at once, or its `thawing` says when. One that cannot be
        thawed is removed."""
        if instance.pausing is not None:
            instance.thawing = asyncio.ensure_future(self._unpause(instance, instance.pausing))
            return
        try:
            assert instance.cgroup is not None
            instance.cgroup.thaw()
        except OSError as error:
            instance.thawing = asyncio.get_running_loop().create_future()
            instance.thawing.set_result(False)
            self._bury(instance, error)

    async def _unpause(self, instance: Instance, pausing: asyncio.Future[bool]) -> bool:
        try:
            async with self._clock.timeout(THAW_TIMEOUT):
                if await asyncio.shield(pausing):
                    await self._engine.unpause(instance)
        except Exception as error:
            self._bury(instance, error)
            return False
        instance.pausing = instance.thawing = None
        return True

    def _bury(self, instance: Instance, error: Exception) -> None:
        if instance.state not in (State.STOPPING, State.GONE):
            unforeseen = None if isinstance(error, EngineError | OSError) else error
            log.warning("Cannot thaw %r; removing it: %s", instance, error, exc_info=unforeseen)
        self._remove(instance, Reason.DEAD)

    async def finished(self, instance: Instance) -> None:
        """Return when the engine is no longer at work on the instance."""
        at_work = [task for task in (instance.pausing, instance.thawing) if task is not None]
        if at_work:
            await asyncio.wait(at_work)
