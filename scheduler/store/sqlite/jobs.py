"""Jobs in one SQLite file."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from scheduler.calls.leases import LeaseOwner
from scheduler.calls.model import CallRecord, Idempotency, Page
from scheduler.calls.store import StoreBusy
from scheduler.jobs.model import KIND, Counts, Job, JobQuery, TaskState
from scheduler.jobs.store import Advanced, JobEnd
from scheduler.store.sqlite.id_search import ids_with_prefix
from scheduler.store.sqlite.rows import job_rows, start_keys
from scheduler.store.sqlite.rows.begin_rows import begin
from scheduler.store.sqlite.rows.room import Room
from scheduler.store.sqlite.writer import Writer
from scheduler.work import RUNS, NewJob


class SqliteJobStore:
    """Jobs in the file of the accepted calls. Its verbs are those of `JobStore`."""

    def __init__(self, writer: Writer, room: Room) -> None:
        self._writer = writer
        self._room = room

    @property
    def exists(self) -> bool:
        return self._writer.file.exists

    async def begin(self, work: NewJob, now: float, key: Idempotency | None = None, caller: str = "") -> Job:
        def operation(db: sqlite3.Connection) -> Job:
            if key is not None and (known := start_keys.known(db, KIND, key, now, job_rows.show)) is not None:
                return known
            self._room.make(db, direct=True)
            number = self._room.caller(db, caller + RUNS)
            begin(db, work, now, number)
            self._room.admit(db, number, 0, direct=True)
            if key is not None:
                start_keys.remember(db, KIND, key, work.id, now)
            job = job_rows.show(db, work.id)
            assert job is not None
            return job

        return await self._writer.do(operation)

    async def advance(self, owner: LeaseOwner, id: str, now: float) -> Advanced | None:
        def operation(db: sqlite3.Connection) -> Advanced | None:
            advanced = job_rows.advance(db, owner, id, now)
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

    async def end(self, owner: LeaseOwner, job: Job, end: JobEnd, now: float) -> bool:
        return await self._writer.do(partial(job_rows.end, owner=owner, job=job, end=end, now=now))

    async def cancel(self, id: str, now: float) -> tuple[Job, list[str]] | None:
        return await self._writer.do(partial(job_rows.cancel, id=id, now=now))

    async def retry(self, id: str) -> Job | None:
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
        return await self._writer.do(partial(job_rows.forget, id=id))

    async def unfinished(self, owner: LeaseOwner, now: float) -> list[Job]:
        return await self._writer.do(partial(job_rows.unfinished, owner=owner, now=now))

    async def functions(self) -> set[str]:
        return await self._writer.do(job_rows.functions)

    async def outdated(self, before: float) -> list[str]:
        def operation(db: sqlite3.Connection) -> list[str]:
            outdated = job_rows.outdated(db, before)
            return outdated if outdated or self._room.has_room(db) else job_rows.outdated(db, math.inf)[:1]

        return await self._writer.do(operation)

    async def show(self, id: str) -> tuple[Job, Counts] | None:
        def operation(db: sqlite3.Connection) -> tuple[Job, Counts] | None:
            job = job_rows.show(db, id)
            return None if job is None else (job, job_rows.counts(db, job))

        return await self._writer.read_many(operation)

    async def ids_with_prefix(self, prefix: str, visible: Callable[[Job], bool]) -> Sequence[str]:
        return await self._writer.read(lambda db: ids_with_prefix(db, "jobs", job_rows.show, prefix, visible))

    async def page(self, query: JobQuery) -> Page[tuple[Job, Counts]]:
        def operation(db: sqlite3.Connection) -> Page[tuple[Job, Counts]]:
            jobs = job_rows.list_jobs(db, query)
            return Page([(job, job_rows.counts(db, job)) for job in jobs.records], jobs.cursor)

        return await self._writer.read_many(operation)

    async def tasks(
        self, job: Job, state: TaskState | None = None, after: int = -1, limit: int = 100
    ) -> Page[CallRecord]:
        return await self._writer.read_many(
            partial(job_rows.tasks, job=job, state=state, after=after, limit=limit)
        )
