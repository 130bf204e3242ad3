"""Trials of new revisions: an instance is started and its handler imported before any call goes to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from pool.clock import Clock
from pool.errors import FunctionBroken
from pool.lease import Lease
from pool.states import Reason
from pool.workload import Workload
from scheduler.dispatch.dispatcher import Dispatcher
from scheduler.dispatch.errors import NoCapacity, SchedulerError
from scheduler.dispatch.function import Limits, Revision
from scheduler.dispatch.queued import Queued

log = logging.getLogger("hearth.registry")

TRIAL_WAIT_SECONDS = 300.0
"""Seconds that a trial waits for memory and a place, far longer than a call would. Then it is begun again later."""
ATTEMPTS = 3
SUDDEN_END_SECONDS = 10.0
"""An instance that ends sooner, without a report of its import, may have been killed from outside."""


@dataclass(frozen=True, slots=True)
class TrialFault:
    """The reason why a revision was not put into service."""

    message: str
    may_pass: bool
    """True if the same code may work later, because the platform was to blame."""
    printed: str = ""
    """The latest output of the instance, such as a traceback."""


@dataclass(slots=True, eq=False)
class Trial:
    """A revision to try out, and the callback for its outcome."""

    workload: Workload
    limits: Limits
    ended: Callable[[TrialFault | None], None]
    """Takes the fault, or None: then this puts the revision into service."""
    task: asyncio.Task[None] | None = None


class Trials:
    """Tries the new revisions of functions in service out, a few at a time.

    A trial is a place in the queue of the new revision, so it gets memory, a place below `max_instances` and a start
    by the same rules as a call. The instance that it was made with serves the first calls.
    """

    def __init__(self, dispatcher: Dispatcher, clock: Clock) -> None:
        self._dispatcher = dispatcher
        self._clock = clock
        self._under_way: dict[str, Trial] = {}
        self._called = asyncio.Semaphore(dispatcher.cores)
        """Limits trials of functions with instances or waiting calls."""
        self._idle = asyncio.Semaphore(1)
        """Limits trials of all other functions: no call waits for them, and one saved file may change a thousand."""

    def needed(self, workload: Workload) -> bool:
        """Return whether a function would get another revision that an instance can test."""
        revision = self._dispatcher.revision_for(workload.function)
        return revision is not None and revision.version != workload.version

    def begin(self, trial: Trial) -> None:
        """Try a revision out, in place of any other of its function. A trial of the same revision goes on.

        A gateway that shuts down begins none.
        """
        if self._dispatcher.draining:
            return
        name = trial.workload.function
        before = self._under_way.get(name)
        self._under_way[name] = trial
        if before is not None and before.workload.version == trial.workload.version:
            trial.task = before.task
            return
        cancel(before)
        trial.task = asyncio.ensure_future(self._run(name, trial.workload))

    def drop(self, function: str) -> None:
        """End the trial of a function, if there is one, without calling back."""
        cancel(self._under_way.pop(function, None))

    def workloads(self) -> Iterator[Workload]:
        """Yield the workload of each trial, waiting ones included."""
        return (trial.workload for trial in self._under_way.values())

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [trial.task for trial in self._under_way.values() if trial.task is not None]

    async def finished(self) -> None:
        """Wait until no trial is under way."""
        while tasks := self._tasks():
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """End every trial."""
        tasks = self._tasks()
        for name in list(self._under_way):
            self.drop(name)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, name: str, workload: Workload) -> None:
        called = self._is_called(name)
        async with self._called if called else self._idle:
            limits = replace(self._under_way[name].limits, queue_timeout=TRIAL_WAIT_SECONDS, queue_size=1)
            revision = self._dispatcher.try_out(workload, limits)
            try:
                fault = await self._try(name, revision, called)
            except Exception:  # an unforeseen fault must be reported too
                log.exception("function %s: its new version could not be tried out", name)
                fault = TrialFault("the gateway has a fault; its log says more", may_pass=False)
            finally:
                self._dispatcher.abandon(revision)  # unless it is in service now
            trial = self._under_way.pop(name, None) if fault is not None else None
            if trial is not None and not self._dispatcher.draining:
                trial.ended(fault)

    def _is_called(self, name: str) -> bool:
        """Return whether a function has instances or waiting calls."""
        dispatcher = self._dispatcher
        return dispatcher.functions[name].waiting > 0 or dispatcher.pool.ledger.count(name) > 0

    async def _try(self, name: str, revision: Revision, called: bool) -> TrialFault | None:
        """Put a revision into service once an instance of it is ready, or return why there is none."""
        pool = self._dispatcher.pool
        try:
            lease = await self._slot(revision)
        except FunctionBroken as error:
            message = str(error) if error.imported else f"{error.kind}: {error}"
            return TrialFault(message, may_pass=False, printed=error.printed)
        except SchedulerError as error:
            return TrialFault(str(error), may_pass=isinstance(error, NoCapacity))
        fatal = None
        try:
            self._under_way.pop(name).ended(None)
            if not called and pool.ledger.memory_free < revision.workload.container.memory:
                fatal = Reason.EVICTED  # no call waits for it, and others may need the memory
        finally:
            self._dispatcher.release(lease, fatal, used=False)
        return None

    async def _slot(self, revision: Revision) -> Lease:
        """Return a slot of an instance, after several attempts if instances end without a word of why.

        Raises what `Queued.collect` does.
        """
        for _ in range(ATTEMPTS - 1):
            began = self._clock.now()
            try:
                return await Queued(self._dispatcher, revision, "", began).collect()
            except FunctionBroken as error:
                if not error.imported or self._clock.now() - began > SUDDEN_END_SECONDS:
                    raise
        return await Queued(self._dispatcher, revision, "", self._clock.now()).collect()


def cancel(trial: Trial | None) -> None:
    """End the task of a trial, if there is one."""
    if trial is not None and trial.task is not None:
        trial.task.cancel()
