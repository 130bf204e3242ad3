"""Has jobs go on: whenever a task has ended, and for each unfinished job at the start, by its next step."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from pool.backoff import Retries
from pool.clock import Clock
from pool.observe.metrics import Metrics
from pool.supervise import Supervisor
from pool.workload import Keep
from scheduler.calls.destinations import call_of, led_too_deep
from scheduler.calls.followers import collect_follow_ups
from scheduler.calls.model import Idempotency
from scheduler.calls.store import STORE_RETRY, StoreError, StoreFull
from scheduler.definitions.file import FunctionDefinition
from scheduler.jobs.decisions import outcome
from scheduler.jobs.model import Counts, Job, JobStatus, JobSummary
from scheduler.jobs.own_function import KEPT, own_definition
from scheduler.jobs.store import JobStore
from scheduler.work import NewJob, Work

log = logging.getLogger("hearth.jobs")

LOOK_AGAIN = 0.05
"""Seconds until it is looked again whether a task that could not be interrupted is recorded."""
PRUNE_EVERY = 60.0

Follower = Callable[[JobSummary], Iterable[Work]]
"""Says what is begun with the record of a job's end. Must not raise."""


class OwnFunctions(Protocol):
    """Brings functions into service that no definitions file names."""

    async def add(self, definition: FunctionDefinition, keep: Keep) -> object:
        """Until it is removed. One that cannot be set up now is tried again by itself."""

    def remove(self, name: str) -> None:
        """Take it out of service; harmless for one that is not there."""


class Keeper(Protocol):
    """Has an eye on the containers that jobs have kept."""

    async def clear(self, function: str) -> None:
        """Remove those of a function."""

    async def clear_all_but(self, functions: Collection[str]) -> None:
        """Remove those of all other functions."""


class TaskQueue(Protocol):
    """Who carries out the tasks; `scheduler.calls.running.worker.Worker`."""

    def notify(self) -> None: ...

    async def cancel(self, id: str) -> bool: ...


class Jobs:
    """One a gateway."""

    def __init__(
        self,
        store: JobStore,
        worker: TaskQueue,
        functions: OwnFunctions,
        clock: Clock,
        metrics: Metrics,
        retention: float,
        keeper: Keeper,
    ) -> None:
        """`retention`: seconds for which a job is remembered when it has ended."""
        self.store = store
        self.on_followed: list[Callable[[Sequence[Work]], None]] = []
        """Are given what followers have said when it is on disk."""
        self.on_job_ended: list[Follower] = [call_destination]
        """Say what is begun in the commit that records the end of a job. Set before `start`."""
        self._worker = worker
        self._functions = functions
        self._clock = clock
        self._metrics = metrics
        self._retention = retention
        self._keeper = keeper
        self._in_service: dict[str, asyncio.Future[object]] = {}
        """Functions that jobs have of their own; done when one has been set up."""
        self._look = False
        """Whether jobs may have been begun that we do not know of."""
        self._due: set[str] = set()
        """Jobs of which something has changed."""
        self._wake = asyncio.Event()
        self._interrupting: dict[str, asyncio.Task[None]] = {}
        self._supervisor: Supervisor
        """Set by `start`."""
        self._store_retries = Retries(STORE_RETRY)
        self._loops: list[asyncio.Task[None]] = []

    # -- its life -------------------------------------------------------------------------------------------

    async def start(self, supervisor: Supervisor) -> None:
        """Go on with the jobs that an earlier process has left.

        When it returns, the jobs' own functions are in service as far as they can be, so no task is run before."""
        if self.store.exists:
            with suppress(StoreError):
                for job in await self.store.unfinished():
                    if (
                        job.status is JobStatus.CANCELLING
                    ):  # else what ran would be run again, and then interrupted
                        await self.store.cancel(job.id, self._clock.wall(), nothing_runs=True)
                    await self._serve(job)
        self.begun()
        self._supervisor = supervisor
        self._loops = [
            supervisor.supervise("jobs", self._go_on),
            supervisor.supervise("jobs-pruning", self._prune),
        ]

    async def close(self) -> None:
        """Do nothing more; the next start goes on."""
        tasks: list[asyncio.Future[Any]] = [*self._loops, *self._interrupting.values()]
        tasks += self._in_service.values()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- what may be asked of it ----------------------------------------------------------------------------

    async def begin(self, work: NewJob, key: Idempotency | None = None, caller: str = "") -> Job:
        """Keep a job whose bytes count to `caller`: its tasks will be run. With a known idempotency key the job that
        it was first used for. Raises `KeyReused` and `StoreError`."""
        job = await self.store.begin(work, self._clock.wall(), key, caller)
        if job.id == work.id:  # an earlier one is in service already, or has ended
            await self._serve(job)
            self.note(job.id)
        return job

    async def cancel(self, id: str) -> Job | None:
        """Let no further task of a job run, and interrupt those that do, which may take a moment longer than this.
        The job as it was; None: there is none. Raises `StoreError`."""
        found = await self.store.cancel(id, self._clock.wall())
        self.note(id)
        return None if found is None else found[0]

    async def retry(self, id: str) -> Job | None:
        """Run those tasks of a job that has failed or was cancelled once more that have not succeeded. The job as it
        was; None: there is none. Raises `StoreError`."""
        job = await self.store.retry(id)
        self.begun()
        return job

    async def forget(self, id: str) -> None:
        """Forget a job that has ended, with its tasks and the containers that it has kept. Raises `StoreError`."""
        found = await self.store.show(id)
        while await self.store.forget(id):
            await self._clock.sleep(0)
        if found is not None and KEPT[found[0].definition.remove] is not Keep.NONE:
            await self._keeper.clear(found[0].function)

    def begun(self, ids: Collection[str] = ()) -> None:
        """A job may have been begun by somebody else."""
        self._look = True
        self._wake.set()

    def note(self, id: str) -> None:
        """Something has changed of a job: a task has ended."""
        self._due.add(id)
        self._wake.set()

    # -- going on -------------------------------------------------------------------------------------------

    async def _go_on(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            look, self._look = self._look, False
            due, self._due = self._due, set()
            try:
                if look and self.store.exists:
                    for job in await self.store.unfinished():
                        await self._serve(job)
                        due.add(job.id)
                for id in due:
                    await self._look_after(id)
            except StoreError:
                self._look |= look
                self._due |= due
                self._clock.call_later(self._store_retries.failed(), self._wake.set)
            except Exception:
                self._look |= look
                self._due |= due
                self._wake.set()  # the loop is started again, and nothing is forgotten
                raise
            else:
                self._store_retries.succeeded()

    async def _look_after(self, id: str) -> None:
        try:
            await self._advance(id)
        except StoreFull:  # the others may need no room
            self._due.add(id)
            self._clock.call_later(STORE_RETRY.first, self._wake.set)
        except StoreError:
            raise
        except Exception:  # the same, and the others are looked after now
            log.exception("looking after job %s failed", id)

    async def _serve(self, job: Job) -> None:
        """Bring a job's own function into service."""
        if job.definition.function is not None:
            return
        if (serving := self._in_service.get(job.function)) is None:
            adding = self._functions.add(own_definition(job), KEPT[job.definition.remove])
            serving = self._in_service[job.function] = asyncio.ensure_future(adding)
        await asyncio.shield(serving)

    async def _advance(self, id: str) -> None:
        advanced = await self.store.advance(id, self._clock.wall())
        if advanced is None:
            return
        job = advanced.job
        if advanced.queued:
            self._worker.notify()
        if advanced.counts is not None:
            await self._end(job, advanced.counts)
        elif job.status is JobStatus.CANCELLING and id not in self._interrupting:
            interrupting = self._supervisor.supervise("jobs-interrupting", partial(self._interrupt, id))
            self._interrupting[id] = interrupting
            interrupting.add_done_callback(lambda _: self._interrupted(id))

    async def _end(self, job: Job, tasks: Counts) -> None:
        now = self._clock.wall()
        status = outcome(tasks, job.count, job.status is JobStatus.CANCELLING)
        summary = JobSummary(job, status, now, tasks)
        follow = collect_follow_ups(lambda: f"job {job.id}", self.on_job_ended, summary)
        if await self.store.end(job, status, tasks, follow, now):
            log.info("job %s has ended: %s", job.id, status)
            self._metrics.jobs_ended.labels(status).value += 1
            self._worker.notify()
            for told in self.on_followed:
                told(follow)
        if self._in_service.pop(job.function, None) is not None:
            self._functions.remove(job.function)

    async def _interrupt(self, id: str) -> None:
        """Interrupt the tasks of a job that was cancelled, until none runs.

        Recording the end of a task may queue it once more, so all are looked at until they have ended.
        """
        retries = Retries(STORE_RETRY)
        while True:
            try:
                found = await self.store.cancel(id, self._clock.wall())
            except StoreError:
                await self._clock.sleep(retries.failed())
                continue
            running = [] if found is None else found[1]
            if not running:
                return
            interrupted = await asyncio.gather(*map(self._worker.cancel, running))
            if not any(interrupted):
                await self._clock.sleep(LOOK_AGAIN)

    def _interrupted(self, id: str) -> None:
        del self._interrupting[id]
        self.note(id)

    # -- retention ------------------------------------------------------------------------------------------

    async def _prune(self) -> None:
        with suppress(StoreError):
            await self._keeper.clear_all_but(await self.store.functions() if self.store.exists else ())
        while True:
            await self._clock.sleep(PRUNE_EVERY)
            with suppress(StoreError):
                while self.store.exists and (
                    outdated := await self.store.outdated(self._clock.wall() - self._retention)
                ):
                    for id in outdated:
                        await self.forget(id)


def call_destination(summary: JobSummary) -> Iterable[Work]:
    """Return the call of `on_success` or `on_failure`. A job that was cancelled has none."""
    job, definition = summary.job, summary.job.definition
    if summary.status is JobStatus.CANCELLED:
        return ()
    name = definition.on_success if summary.status is JobStatus.SUCCEEDED else definition.on_failure
    if name is None or led_too_deep(f"job {job.id}", job.depth, f"{name} is not called"):
        return ()
    return (call_of(name, summary.to_json(), secrets.token_hex(16), job.depth + 1),)
