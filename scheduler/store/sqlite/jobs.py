"""What keeps jobs: the same file as accepted calls, through the same writer."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from scheduler.calls.model import Idempotency, Page, Record
from scheduler.calls.shares import RUNS
from scheduler.calls.store import StoreBusy
from scheduler.calls.work import begin
from scheduler.jobs.model import KIND, Counts, Job, JobQuery, JobStatus, NewJob, TaskState
from scheduler.store.sqlite.rows import job_rows, start_keys
from scheduler.store.sqlite.rows.job_rows import Advanced
from scheduler.store.sqlite.rows.room import Room
from scheduler.store.sqlite.writer import Writer


class JobStore:
    """Each verb is atomic and on disk when it returns. All raise `StoreError`."""

    def __init__(self, writer: Writer, room: Room) -> None:
        self._writer = writer
        self._room = room

    @property
    def exists(self) -> bool:
        """Whether anything was ever kept here."""
        return self._writer.file.exists

    async def begin(self, work: NewJob, now: float, key: Idempotency | None = None, caller: str = "") -> Job:
        """Keep a job whose bytes count to `caller`: its tasks will be run. With a known idempotency key the job that
        it was first used for, unless that is forgotten. Raises `KeyReused` and `StoreFull`."""

        def operation(db: sqlite3.Connection) -> Job:
            if key is not None and (known := start_keys.known(db, KIND, key, now, job_rows.show)) is not None:
                return known
            self._room.make(db, direct=True)
            number = self._room.caller(db, caller + RUNS)
            begin(work, db, now, number)
            self._room.admit(db, number, 0, direct=True)
            if key is not None:
                start_keys.remember(db, KIND, key, work.id, now)
            job = job_rows.show(db, work.id)
            assert job is not None
            return job

        return await self._writer.do(operation)

    async def advance(self, id: str, now: float) -> Advanced | None:
        """Queue the tasks of a job whose turn it is. None: there is no such job, or it has ended. Raises
        `StoreFull`."""

        def operation(db: sqlite3.Connection) -> Advanced | None:
            advanced = job_rows.advance(db, id, now)
            if advanced is not None and advanced.queued:
                self._room.make(db)
            return advanced

        advanced = await self._writer.do(operation)
        if advanced is None or not advanced.ends:
            return advanced
        return replace(advanced, counts=await self._counts(advanced.job))

    async def _counts(self, job: Job) -> Counts:
        """Count the tasks of a job that ends, beside the writer if a reader has time: a million take 0.2 s."""
        count = partial(job_rows.counts, job=job)
        try:
            return await self._writer.read_many(count)
        except StoreBusy:
            return await self._writer.do(count)

    async def end(
        self, job: Job, status: JobStatus, tasks: Counts, follow: Iterable[object], now: float
    ) -> bool:
        """Record that a job has ended, and begin what follows from it. False: it had ended before."""
        follow = tuple(follow)
        return await self._writer.do(lambda db: job_rows.end(db, job, status, tasks, follow, now))

    async def cancel(self, id: str, now: float, nothing_runs: bool = False) -> tuple[Job, list[str]] | None:
        """Let no further task of a job run: those that wait are ended. The job as it was, and the ids of its calls
        that run; None: there is none. `nothing_runs`: what is recorded as running was left by an earlier process."""
        return await self._writer.do(partial(job_rows.cancel, id=id, now=now, nothing_runs=nothing_runs))

    async def retry(self, id: str) -> Job | None:
        """Have those tasks of a job that has ended run again that have not succeeded. The job as it was; None: there
        is none."""

        def operation(db: sqlite3.Connection, after: str) -> tuple[Job | None, str | None]:
            job, goes_on = job_rows.retry(db, id, after)
            if job is not None and job.status.ended:
                self._room.check_share(db, (job_rows.caller_of(db, job),))
            return job, goes_on

        first, after = await self._writer.do(partial(operation, after=""))
        while after is not None:
            _, after = await self._writer.do(partial(operation, after=after))
        return first

    async def forget(self, id: str) -> bool:
        """Forget a part of a job that has ended; whether it is to be called again."""
        return await self._writer.do(partial(job_rows.forget, id=id))

    async def unfinished(self) -> list[Job]:
        """Jobs that have not ended, oldest first."""
        return await self._writer.do(job_rows.unfinished)

    async def functions(self) -> set[str]:
        """The functions that all jobs have of their own, those that have ended included."""
        return await self._writer.do(job_rows.functions)

    async def outdated(self, before: float) -> list[str]:
        """Ids of jobs that ended before this time; while the store is over its size, of the one that ended first."""

        def operation(db: sqlite3.Connection) -> list[str]:
            outdated = job_rows.outdated(db, before)
            return outdated if outdated or self._room.has_room(db) else job_rows.outdated(db, math.inf)[:1]

        return await self._writer.do(operation)

    async def show(self, id: str) -> tuple[Job, Counts] | None:
        """A job, and its tasks by state; None: there is none."""

        def operation(db: sqlite3.Connection) -> tuple[Job, Counts] | None:
            job = job_rows.show(db, id)
            return None if job is None else (job, job_rows.counts(db, job))

        return await self._writer.read_many(operation)

    async def page(self, query: JobQuery) -> Page[tuple[Job, Counts]]:
        """Return jobs and their tasks by state, newest first."""

        def operation(db: sqlite3.Connection) -> Page[tuple[Job, Counts]]:
            jobs = job_rows.list_jobs(db, query)
            return Page([(job, job_rows.counts(db, job)) for job in jobs.records], jobs.cursor)

        return await self._writer.read_many(operation)

    async def tasks(
        self, job: Job, state: TaskState | None = None, after: int = -1, limit: int = 100
    ) -> Page[Record]:
        """Return tasks that were queued at least once, in the order of their indices; those behind `after`."""
        return await self._writer.read_many(
            partial(job_rows.tasks, job=job, state=state, after=after, limit=limit)
        )
