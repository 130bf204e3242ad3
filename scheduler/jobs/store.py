"""The store of jobs, whichever database is behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from scheduler.calls.leases import LeaseOwner
from scheduler.calls.model import CallRecord, Idempotency, Page
from scheduler.jobs.model import Counts, Job, JobQuery, JobStatus, TaskState
from scheduler.work import NewJob, Work


@dataclass(frozen=True, slots=True)
class Advanced:
    """One step of a job: how many tasks were queued, and whether all of its tasks have ended."""

    job: Job
    queued: int
    ends: bool
    counts: Counts | None = None
    """Tasks by state, of a job that ends."""


@dataclass(frozen=True, slots=True)
class JobEnd:
    """The end of a job: its status and tasks, and the work that is begun together with the record."""

    status: JobStatus
    tasks: Counts
    follow: tuple[Work, ...] = ()


class JobStore(Protocol):
    """Jobs and their tasks. Each verb is atomic and on disk when it returns. All raise `StoreError`."""

    @property
    def exists(self) -> bool:
        """Return whether anything was ever kept here."""

    async def begin(self, work: NewJob, now: float, key: Idempotency | None = None, caller: str = "") -> Job:
        """Keep a job whose bytes count to `caller`: its tasks will be run.

        With a known idempotency key, return the job that it was first used for, unless that is forgotten. Raises
        `KeyReused` and `StoreFull`.
        """

    async def advance(self, owner: LeaseOwner, id: str, now: float) -> Advanced | None:
        """Lease a job to an owner, and queue the tasks whose turn it is. Return the step.

        Returns None if no such job goes on, or it is leased to another. Raises `StoreFull` and `LeaseLost`.
        """

    async def end(self, owner: LeaseOwner, job: Job, end: JobEnd, now: float) -> bool:
        """Record that a job has ended, and begin what follows.

        Returns False if it had ended before, or is not leased to this owner; then nothing is written.
        """

    async def cancel(self, id: str, now: float) -> tuple[Job, list[str]] | None:
        """Let no further task of a job run: those that wait are ended.

        Returns the job as it was and the ids of its calls that run, or None if there is none.
        """

    async def retry(self, id: str) -> Job | None:
        """Have the tasks of a job that has ended run again, except those that have succeeded.

        Returns the job as it was, or None if there is none.
        """

    async def forget(self, id: str) -> bool:
        """Forget a part of a job that has ended. Return whether there is more of it to forget."""

    async def unfinished(self, owner: LeaseOwner, now: float) -> list[Job]:
        """Lease the jobs that have not ended to an owner. Return all that it has then, oldest first.

        Raises `LeaseLost`.
        """

    async def functions(self) -> set[str]:
        """Return the functions that all jobs have of their own, also those of jobs that have ended."""

    async def outdated(self, before: float) -> list[str]:
        """Return ids of jobs that ended before this time.

        While the store is over its size, return the id of the job that ended first.
        """

    async def show(self, id: str) -> tuple[Job, Counts] | None:
        """Return a job and its tasks by state, or None if there is none."""

    async def ids_with_prefix(self, prefix: str, visible: Callable[[Job], bool]) -> Sequence[str]:
        """Return a few ids of visible jobs that begin with these hexadecimal digits. `visible` runs on a reader's
        thread."""

    async def page(self, query: JobQuery) -> Page[tuple[Job, Counts]]:
        """Return jobs and their tasks by state, newest first."""

    async def tasks(
        self, job: Job, state: TaskState | None = None, after: int = -1, limit: int = 100
    ) -> Page[CallRecord]:
        """Return tasks behind the index `after` that were queued at least once, in the order of their indices."""
