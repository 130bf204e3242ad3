"""Jobs of a gateway: begins them, queues their next tasks when others end, and records their ends."""

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
from scheduler.calls.destinations import call_with_json, chain_too_deep
from scheduler.calls.followers import collect_follow_ups
from scheduler.calls.model import Idempotency
from scheduler.calls.running.lease_keeper import StoreSettings
from scheduler.calls.store import STORE_RETRY, StoreError, StoreFull
from scheduler.definitions.file import FunctionDefinition
from scheduler.jobs.decisions import final_status
from scheduler.jobs.model import Counts, Job, JobStatus, JobSummary
from scheduler.jobs.own_function import KEEP_BY_REMOVE, own_definition
from scheduler.jobs.store import JobEnd, JobStore
from scheduler.work import NewJob, Work

log = logging.getLogger("hearth.jobs")

INTERRUPT_RETRY_SECONDS = 0.05
"""Pause before a cancelled job looks again for running tasks, if it could interrupt none."""
PRUNE_EVERY_SECONDS = 60.0

Follower = Callable[[JobSummary], Iterable[Work]]
"""Return the work to begin in the transaction that records a job's end. Must not raise."""


class OwnFunctions(Protocol):
    """The registry of private functions, which functions.yaml does not name."""

    async def add(self, definition: FunctionDefinition, keep: Keep) -> object:
        """Bring a function into service until it is removed. If its set-up fails, it is tried again."""

    def remove(self, name: str) -> None:
        """Take a function out of service; harmless if it does not exist."""


class Keeper(Protocol):
    """The containers that jobs have kept; `scheduler.jobs.kept_containers.KeptContainers`."""

    async def clear(self, function: str) -> None:
        """Remove the kept containers of a function."""

    async def clear_all_but(self, functions: Collection[str]) -> None:
        """Remove the kept containers of all other functions."""


class TaskQueue(Protocol):
    """The worker that runs the tasks; `scheduler.calls.running.worker.Worker`."""

    def notify(self) -> None: ...

    async def cancel(self, id: str) -> bool: ...


class Jobs:
    """The jobs of one gateway."""

    def __init__(
        self,
        store: JobStore,
        worker: TaskQueue,
        functions: OwnFunctions,
        clock: Clock,
        metrics: Metrics,
        settings: StoreSettings,
        keeper: Keeper,
    ) -> None:
        self.store = store
        self.on_followed: list[Callable[[Sequence[Work]], None]] = []
        """Called with the work of the followers once it is on disk."""
        self.on_job_ended: list[Follower] = [call_destination]
        """Followers of jobs. Add to it before `start` only."""
        self._worker = worker
        self._functions = functions
        self._clock = clock
        self._metrics = metrics
        self._retention = settings.retention
        self._leases = settings.leases
        self._leased: set[str] = set()
        """Jobs that are leased to this process."""
        self._leases.holders.append(lambda: bool(self._leased))
        self._leases.on_lost.append(self._look_for_lost)
        self._keeper = keeper
        self._in_service: dict[str, asyncio.Future[object]] = {}
        """Set-up of each private function in service; done when it is set up."""
        self._look = False
        """True if there may be new jobs in the store."""
        self._due: set[str] = set()
        """Jobs that have changed since the loop looked at them."""
        self._wake = asyncio.Event()
        self._interrupting: dict[str, asyncio.Task[None]] = {}
        self._supervisor: Supervisor
        """Set by `start`."""
        self._store_retries = Retries(STORE_RETRY)
        self._loops: list[asyncio.Task[None]] = []

    # -- its life -------------------------------------------------------------------------------------------

    async def start(self, supervisor: Supervisor) -> None:
        """Continue the jobs of an earlier process.

        The jobs' private functions are set up when it returns, unless that failed. So no task runs before.
        """
        if self.store.exists:
            with suppress(StoreError):
                # First, so that tasks of a job that is being cancelled are not run again to be interrupted.
                await self._leases.requeue_abandoned()
                for job in await self._unfinished():
                    await self._serve(job)
        self.begun()
        self._supervisor = supervisor
        self._loops = [
            supervisor.supervise("jobs", self._go_on),
            supervisor.supervise("jobs-pruning", self._prune),
        ]

    async def close(self) -> None:
        """Stop all loops. The next start continues the jobs."""
        tasks: list[asyncio.Future[Any]] = [*self._loops, *self._interrupting.values()]
        tasks += self._in_service.values()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- public verbs ----------------------------------------------------------------------------

    async def begin(self, work: NewJob, key: Idempotency | None = None, caller: str = "") -> Job:
        """Store a job, whose bytes count to `caller`, and run its tasks. Return it.

        With a known idempotency key, return the job that the key was first used for. Raises `KeyReused` and
        `StoreError`.
        """
        job = await self.store.begin(work, self._clock.wall(), key, caller)
        if job.id == work.id:  # an earlier one is in service already, or has ended
            await self._serve(job)
            self.note(job.id)
        return job

    async def cancel(self, id: str) -> Job | None:
        """Start no further task of a job, and interrupt its running ones soon after.

        Returns the job as it was before, or None if there is none. Raises `StoreError`.
        """
        found = await self.store.cancel(id, self._clock.wall())
        self.note(id)
        return None if found is None else found[0]

    async def retry(self, id: str) -> Job | None:
        """Run the tasks of a failed or cancelled job again that have not succeeded.

        Returns the job as it was before, or None if there is none. Raises `StoreError`.
        """
        job = await self.store.retry(id)
        self.begun()
        return job

    async def forget(self, id: str) -> None:
        """Forget an ended job, with its tasks and its kept containers. Raises `StoreError`."""
        found = await self.store.show(id)
        while await self.store.forget(id):
            await self._clock.sleep(0)
        if found is not None and KEEP_BY_REMOVE[found[0].definition.remove] is not Keep.NONE:
            await self._keeper.clear(found[0].function)

    def begun(self, ids: Collection[str] = ()) -> None:
        """Look for jobs that another part has stored."""
        self._look = True
        self._wake.set()

    def note(self, id: str) -> None:
        """Note that a job has changed, for example by the end of a task."""
        self._due.add(id)
        self._wake.set()

    # -- continuing jobs -------------------------------------------------------------------------------------------

    async def _unfinished(self) -> list[Job]:
        """Lease all jobs that nobody has. Return those of this process. Raises `StoreError`."""
        now = self._clock.wall()
        jobs = await self._leases.lease(lambda owner: self.store.unfinished(owner, now))
        self._leased |= {job.id for job in jobs}
        return jobs

    def _look_for_lost(self) -> None:
        """Look for the jobs whose leases were lost: nobody may have taken them yet."""
        self._leased.clear()
        self.begun()

    async def _go_on(self) -> None:
        await self._leases.take_over()
        while True:
            await self._wake.wait()
            self._wake.clear()
            look, self._look = self._look, False
            due, self._due = self._due, set()
            try:
                if look and self.store.exists:
                    for job in await self._unfinished():
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
                self._wake.set()  # the supervisor starts the loop again; nothing is lost
                raise
            else:
                self._store_retries.succeeded()

    async def _look_after(self, id: str) -> None:
        try:
            await self._advance(id)
        except StoreFull:  # other jobs may need no space
            self._due.add(id)
            self._clock.call_later(STORE_RETRY.first, self._wake.set)
        except StoreError:
            raise
        except Exception:  # the other jobs go on
            log.exception("job %s cannot go on; it is tried again when one of its tasks ends", id)

    async def _serve(self, job: Job) -> None:
        """Bring a job's private function into service, if it has one."""
        if job.definition.function is not None:
            return
        if (serving := self._in_service.get(job.function)) is None:
            adding = self._functions.add(own_definition(job), KEEP_BY_REMOVE[job.definition.remove])
            serving = self._in_service[job.function] = asyncio.ensure_future(adding)
        await asyncio.shield(serving)

    async def _advance(self, id: str) -> None:
        now = self._clock.wall()
        advanced = await self._leases.lease(lambda owner: self.store.advance(owner, id, now))
        if advanced is None:
            self._leased.discard(id)
            return
        self._leased.add(id)
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
        status = final_status(tasks, job.count, job.status is JobStatus.CANCELLING)
        summary = JobSummary(job, status, now, tasks)
        follow = collect_follow_ups(lambda: f"job {job.id}", self.on_job_ended, summary)
        self._leased.discard(job.id)
        if await self.store.end(self._leases.owner, job, JobEnd(status, tasks, follow), now):
            log.info("job %s has %s", job.id, status)
            self._metrics.jobs_ended.labels(status).value += 1
            self._worker.notify()
            for told in self.on_followed:
                told(follow)
        if self._in_service.pop(job.function, None) is not None:
            self._functions.remove(job.function)

    async def _interrupt(self, id: str) -> None:
        """Interrupt the tasks of a cancelled job, until none runs.

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
                await self._clock.sleep(INTERRUPT_RETRY_SECONDS)

    def _interrupted(self, id: str) -> None:
        del self._interrupting[id]
        self.note(id)

    # -- retention ------------------------------------------------------------------------------------------

    async def _prune(self) -> None:
        with suppress(StoreError):
            await self._keeper.clear_all_but(await self.store.functions() if self.store.exists else ())
        while True:
            await self._clock.sleep(PRUNE_EVERY_SECONDS)
            with suppress(StoreError):
                while self.store.exists and (
                    outdated := await self.store.outdated(self._clock.wall() - self._retention)
                ):
                    for id in outdated:
                        await self.forget(id)


def call_destination(summary: JobSummary) -> Iterable[Work]:
    """Return the call of a job's `on_success` or `on_failure`; a cancelled job has none."""
    job, definition = summary.job, summary.job.definition
    if summary.status is JobStatus.CANCELLED:
        return ()
    name = definition.on_success if summary.status is JobStatus.SUCCEEDED else definition.on_failure
    if name is None or chain_too_deep(f"job {job.id}", job.depth, f"{name} is not called"):
        return ()
    return (call_with_json(name, summary.to_json(), secrets.token_hex(16), job.depth + 1),)
