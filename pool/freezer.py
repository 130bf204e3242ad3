"""Freezer: lets the kernel stop an idle instance until it is leased again.

It writes to the container's cgroup if that is possible: about 0.2 ms, without an engine call. Otherwise it asks the
engine, which takes some 20 ms each way; then the calls of that instance wait for it, and no others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Protocol, cast

from pool.clock import Clock
from pool.contracts.facts import ContractFacts, Freezing
from pool.engine.base import EngineDown, EngineError
from pool.instance import Instance
from pool.ledger import Ledger
from pool.states import Reason, State
from pool.workload import Workload

log = logging.getLogger("hearth.freezer")

THAW_TIMEOUT_SECONDS = 10.0
"""Time that the engine has to thaw an instance before the instance counts as dead."""
COUNT_EVERY_SECONDS = 10.0
"""Pause between two counts of an idle instance's processes. At its start there may be a short-lived helper."""


class Pauses(Protocol):
    """Freezing and thawing through the engine. Both raise `EngineError`."""

    async def pause(self, instance: Instance) -> None: ...

    async def unpause(self, instance: Instance) -> None: ...


def may_freeze(instance: Instance, now: float) -> bool:
    """Return whether an instance has been idle for its function's `freeze_after` and no call runs in it.

    In a slot without a connection, an abandoned call may still run: its shim dials again only afterwards.
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


def may_freeze_processes(contract: ContractFacts, processes: int | None) -> bool:
    """Return whether an instance with so many processes, ours among them, may be frozen. None: nobody can count them.

    A master process that watches its workers by the clock would take them for hung after a thaw and kill them.
    gunicorn with `--timeout 5` did that after every pause of 8 s and more that we measured. Short thaws would have to
    know how long a master waits, and nobody outside knows.
    """
    return processes is not None and processes <= 1 + contract.own_processes


def is_due(instance: Instance, now: float) -> bool:
    """Return whether to freeze an instance now. Its processes are counted last, because that costs a file read."""
    if not may_freeze(instance, now):
        return False
    workload = cast(Workload, instance.workload)
    if workload.contract.freezing is Freezing.ALWAYS:
        return True
    if now - instance.counted_at < COUNT_EVERY_SECONDS:
        return False
    instance.counted_at = now
    processes = None
    if instance.cgroup is not None:
        with contextlib.suppress(OSError):
            processes = instance.cgroup.processes()
    return may_freeze_processes(workload.contract, processes)


class Freezer:
    """Freezes and thaws instances. It calls `remove` for an instance that cannot be thawed."""

    def __init__(
        self, ledger: Ledger, clock: Clock, engine: Pauses, remove: Callable[[Instance, Reason], None]
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._engine = engine
        self._remove = remove

    def freeze(self, instance: Instance) -> None:
        """Freeze an idle instance, or begin to. After a failure it stays idle and is not tried again."""
        if instance.thawing is not None:
            return  # the engine still thaws it
        direct = False
        if instance.cgroup is not None:
            with contextlib.suppress(OSError):  # probably no right to write; the engine has it
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
            ):  # otherwise it is tried again when the engine is back
                instance.freezable = False
                if instance.state not in (State.STOPPING, State.GONE):
                    unforeseen = None if isinstance(error, EngineError) else error
                    log.warning(
                        "Cannot freeze %r, so it keeps running: %s", instance, error, exc_info=unforeseen
                    )
                try:
                    await self._engine.unpause(instance)  # it may be frozen, with only the answer lost
                except EngineError as unknown:
                    self._give_up(instance, unknown)
            if instance.state is State.FROZEN:
                self._ledger.enter(instance, State.IDLE, self._clock.now())
                instance.pausing = None
            return False
        return True

    def thaw(self, instance: Instance) -> None:
        """Thaw an instance: it runs at once, or when its `thawing` is done. Remove it if that fails."""
        if instance.pausing is not None:
            instance.thawing = asyncio.ensure_future(self._unpause(instance, instance.pausing))
            return
        try:
            assert instance.cgroup is not None
            instance.cgroup.thaw()
        except OSError as error:
            instance.thawing = asyncio.get_running_loop().create_future()
            instance.thawing.set_result(False)
            self._give_up(instance, error)

    async def _unpause(self, instance: Instance, pausing: asyncio.Future[bool]) -> bool:
        try:
            async with self._clock.timeout(THAW_TIMEOUT_SECONDS):
                if await asyncio.shield(pausing):
                    await self._engine.unpause(instance)
        except Exception as error:
            self._give_up(instance, error)
            return False
        instance.pausing = instance.thawing = None
        return True

    def _give_up(self, instance: Instance, error: Exception) -> None:
        if instance.state not in (State.STOPPING, State.GONE):
            unforeseen = None if isinstance(error, EngineError | OSError) else error
            log.warning("Cannot thaw %r; removing it: %s", instance, error, exc_info=unforeseen)
        self._remove(instance, Reason.DEAD)

    async def finished(self, instance: Instance) -> None:
        """Wait until the engine neither freezes nor thaws the instance any more."""
        at_work = [task for task in (instance.pausing, instance.thawing) if task is not None]
        if at_work:
            await asyncio.wait(at_work)
