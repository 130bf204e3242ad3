"""The rows of jobs, inside somebody's transaction.

A job's tasks are accepted calls that it owns; their rows are those of `call_rows`. The part is the task's index,
padded so that parts are in the order of indices.
"""

from __future__ import annotations

import json
import logging
import secrets
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from scheduler.calls.leases import LeaseOwner
from scheduler.calls.model import CallRecord, Page, Status
from scheduler.definitions.jobs import IMAGE_TIMEOUT_SECONDS, JobDefinition
from scheduler.definitions.language.call_overrides import FAILURE_KINDS, CallOverrides, RetryPolicy
from scheduler.jobs.decisions import JobProgress, next_tasks, open_window
from scheduler.jobs.model import Counts, Job, JobQuery, JobStatus, TaskState, own_function, task_state
from scheduler.jobs.store import Advanced, JobEnd
from scheduler.store.sqlite.rows import call_rows
from scheduler.store.sqlite.rows.begin_rows import begin
from scheduler.store.sqlite.rows.call_rows import AGAIN, COLUMNS
from scheduler.store.sqlite.rows.lease_rows import check, lease
from scheduler.store.sqlite.rows.list_rows import NEWEST
from scheduler.work import NewCall, Request

log = logging.getLogger("hearth.jobs")

JOB_COLUMNS = (
    "seq, id, name, definition, status, count, parallel, begun, created, ended, depth, context, counts"
)
OWNED = "owner = ? AND owner != ''"
LAST_PART = ":"
"""Sorts behind every index, since those are digits."""
MOST_LOOKED_AT = 1000
"""Jobs that one page looks at. The definition of each is read to see who may know of it."""
MOST_TASKS_LOOKED_AT = 5000
"""Tasks that one page looks at, which takes about ten milliseconds."""
OUTDATED_AT_ONCE = 100
NOTED_AT_ONCE = 5000
"""Tasks that one transaction notes to be run again, or whose notes and inputs it forgets: the next one waits."""
FORGOTTEN_AT_ONCE = 500
"""Tasks that one transaction forgets: the next transaction waits for it."""


def show(db: sqlite3.Connection, id: str) -> Job | None:
    """Return one job, or None if there is none."""
    row = db.execute(f"SELECT {JOB_COLUMNS} FROM jobs WHERE id = ?", (id,)).fetchone()
    return None if row is None else _job(row)


def caller_of(db: sqlite3.Connection, job: Job) -> int:
    """Return the number of the caller whom a job's bytes count to."""
    (caller,) = db.execute("SELECT caller FROM jobs WHERE seq = ?", (job.seq,)).fetchone()
    return int(caller)


def list_jobs(db: sqlite3.Connection, query: JobQuery) -> Page[Job]:
    """Return jobs, newest first. At most `MOST_LOOKED_AT` rows are looked at."""
    conditions, values = ["seq < ?"], list[object]()
    values.append(NEWEST if query.before is None else query.before)
    if query.status is not None:
        conditions.append("status = ?")
        values.append(query.status)
    most = query.limit + 1 if query.visible is None else MOST_LOOKED_AT
    found: list[Job] = []
    rows = db.execute(
        f"SELECT {JOB_COLUMNS} FROM jobs WHERE {' AND '.join(conditions)} ORDER BY seq DESC LIMIT ?",
        (*values, most),
    )
    for number, row in enumerate(rows, 1):
        if len(found) == query.limit:
            return Page(found, found[-1].seq)
        job = _job(row)
        if query.visible is None or query.visible(job):
            found.append(job)
        if number == most:
            return Page(found, job.seq)
    return Page(found, None)


def unfinished(db: sqlite3.Connection, owner: LeaseOwner, now: float) -> list[Job]:
    """Lease the jobs that have not ended to an owner. Return all that it has then, oldest first."""
    waiting = "ended IS NULL AND lease_owner = ''"
    if db.execute(f"SELECT 1 FROM jobs WHERE {waiting} LIMIT 1").fetchone():
        check(db, owner, now)
        db.execute(f"UPDATE jobs SET lease_owner = ?, leased = ? WHERE {waiting}", (owner.id, now))
    found = []
    which = "ended IS NULL AND lease_owner = ?"
    for row in db.execute(
        f"SELECT {JOB_COLUMNS} FROM jobs WHERE {which} ORDER BY seq", (owner.id,)
    ).fetchall():
        try:
            found.append(_job(row))
        except ValueError:  # of another version of this program; the others go on
            log.error("job %s cannot be read by this version; it stays stored and does nothing", row[1])
    return found


def counts(db: sqlite3.Connection, job: Job) -> Counts:
    """Return the tasks of a job by state, with those that were not queued yet."""
    if job.counts is not None:
        return job.counts
    found: Counter[TaskState] = Counter()
    for status, number in db.execute(
        f"SELECT status, count(*) FROM invocations WHERE {OWNED} GROUP BY status", (job.owner,)
    ):
        found[task_state(Status(status))] += number
    if job.status is not JobStatus.CANCELLING:  # else what was noted is not run again
        for status, number in db.execute(
            "SELECT status, count(*) FROM job_again JOIN invocations ON owner = ? AND owner != '' AND"
            " invocations.part = job_again.part WHERE job = ? GROUP BY status",
            (job.owner, job.seq),
        ):
            found[task_state(Status(status))] -= number
            found[TaskState.QUEUED] += number
    waiting = TaskState.CANCELLED if job.status is JobStatus.CANCELLING else TaskState.QUEUED
    found[waiting] += job.count - job.begun
    return {state: found[state] for state in TaskState}


def advance(db: sqlite3.Connection, owner: LeaseOwner, id: str, now: float) -> Advanced | None:
    """Lease a job to an owner and queue the tasks whose turn it is. Return the step, or None if it cannot go on."""
    job = show(db, id)
    if job is None or job.status.ended or not lease(db, "jobs", job.seq, owner, now):
        return None
    cancelling = job.status is JobStatus.CANCELLING
    (pending,) = db.execute(
        f"SELECT count(*) FROM invocations WHERE {OWNED} AND status IN ('queued', 'running')", (job.owner,)
    ).fetchone()
    window = open_window(job.parallel, job.definition.function is None)
    (again,) = db.execute(
        "SELECT count(*) FROM (SELECT 1 FROM job_again WHERE job = ? LIMIT ?)", (job.seq, window)
    ).fetchone()
    step = next_tasks(
        JobProgress(
            count=job.count,
            begun=job.begun,
            again=again,
            open=pending,
            window=window,
            cancelling=cancelling,
        )
    )
    if step.again:
        _queue_again(db, job, step.again, now)
    if step.fresh:
        caller = caller_of(db, job)
        for call in _tasks_of(db, job, job.begun, step.fresh):
            call_rows.insert(db, call, now, caller)
        db.execute("UPDATE jobs SET begun = begun + ? WHERE seq = ?", (step.fresh, job.seq))
    return Advanced(job, step.again + step.fresh, step.ends)


def _tasks_of(db: sqlite3.Connection, job: Job, first: int, number: int) -> Iterable[NewCall]:
    (each,) = db.execute("SELECT each FROM jobs WHERE seq = ?", (job.seq,)).fetchone()
    bodies: dict[int, bytes] = dict(
        db.execute(
            "SELECT number, body FROM job_inputs WHERE job = ? AND number >= ? AND number < ?",
            (job.seq, first, first + number),
        ).fetchall()
    )
    for index in range(first, first + number):
        body = bodies.get(index, b"%d" % index if each is None else each)
        yield task_call(job, index, body)


def task_call(job: Job, index: int, body: bytes) -> NewCall:
    """Return the accepted call that is a task of a job."""
    definition = job.definition
    headers = [(b"content-length", b"%d" % len(body))]
    timeout = definition.timeout
    if definition.function is not None:
        headers.append((b"content-type", b"application/json"))
    elif timeout is None:
        timeout = IMAGE_TIMEOUT_SECONDS
    policy = RetryPolicy(
        attempts=definition.retries + 1,
        backoff=definition.backoff,
        max_backoff=definition.max_backoff,
        on=frozenset(FAILURE_KINDS),
        max_event_age=definition.max_event_age,
    )
    told = (("Job-Id", job.id), ("Task-Index", str(index)), ("Task-Count", str(job.count)))
    return NewCall(
        id=secrets.token_hex(16),
        function=job.function,
        request=Request(headers=headers),
        body=body,
        depth=job.depth,
        owner=job.owner,
        part=f"{index:07d}",
        overrides=CallOverrides(policy, timeout, (*told, *job.context)),
    )


def _queue_again(db: sqlite3.Connection, job: Job, number: int, now: float) -> None:
    parts = [
        (job.owner, part)
        for (part,) in db.execute(
            "SELECT part FROM job_again WHERE job = ? ORDER BY part LIMIT ?", (job.seq, number)
        )
    ]
    db.executemany(
        f"DELETE FROM results WHERE seq = (SELECT seq FROM invocations WHERE {OWNED} AND part = ?)", parts
    )
    db.executemany(
        f"UPDATE invocations SET {AGAIN} WHERE {OWNED} AND part = ?", [(now, now, *part) for part in parts]
    )
    db.executemany("DELETE FROM job_again WHERE job = ? AND part = ?", [(job.seq, part) for _, part in parts])


def end(db: sqlite3.Connection, owner: LeaseOwner, job: Job, end: JobEnd, now: float) -> bool:
    """Record that a job has ended, and begin what follows. Return False if it had, or is leased to another."""
    ended = db.execute(
        "UPDATE jobs SET status = ?, ended = ?, counts = ? WHERE seq = ? AND ended IS NULL AND lease_owner = ?",
        (end.status, now, json.dumps(end.tasks), job.seq, owner.id),
    ).rowcount
    if ended:
        for work in end.follow:
            begin(db, work, now, caller_of(db, job))
    return bool(ended)


def cancel(db: sqlite3.Connection, id: str, now: float) -> tuple[Job, list[str]] | None:
    """Let no further task of a job run: those that wait are ended. Return the job as it was, and calls that run."""
    job = show(db, id)
    if job is None or job.status.ended:
        return None if job is None else (job, [])
    db.execute("UPDATE jobs SET status = 'cancelling' WHERE seq = ?", (job.seq,))
    db.execute(
        f"UPDATE invocations SET status = 'cancelled', ended = ? WHERE {OWNED} AND status = 'queued'",
        (now, job.owner),
    )
    rows = db.execute(f"SELECT id FROM invocations WHERE {OWNED} AND status = 'running'", (job.owner,))
    return job, [row[0] for row in rows]


def retry(db: sqlite3.Connection, id: str, after: str = "") -> tuple[Job | None, str | None]:
    """Note some unsuccessful tasks of a failed or cancelled job, to be run once more.

    Returns the job as it was, and the part to go on `after`, or None at the end: then the job goes on.
    """
    job = show(db, id)
    if job is None or job.status not in (JobStatus.FAILED, JobStatus.CANCELLED):
        return job, None
    behind = f"FROM invocations INDEXED BY invocations_part WHERE {OWNED} AND part > ?"
    rows = db.execute(f"SELECT part {behind} ORDER BY part LIMIT ?", (job.owner, after, NOTED_AT_ONCE))
    parts = [part for (part,) in rows]
    if parts:
        db.execute(
            f"INSERT OR IGNORE INTO job_again SELECT ?, part {behind} AND part <= ? AND status != 'succeeded'",
            (job.seq, job.owner, after, parts[-1]),
        )
    if len(parts) == NOTED_AT_ONCE:
        return job, parts[-1]
    db.execute(
        "UPDATE jobs SET status = 'running', ended = NULL, counts = NULL, lease_owner = '' WHERE seq = ?",
        (job.seq,),
    )
    return job, None


def forget(db: sqlite3.Connection, id: str) -> bool:
    """Forget a part of a job, if it has ended. Return whether there is more of it to forget."""
    job = show(db, id)
    if job is None or not job.status.ended:
        return False
    some = f"SELECT seq FROM invocations WHERE {OWNED} LIMIT {FORGOTTEN_AT_ONCE}"
    if db.execute(f"DELETE FROM invocations WHERE seq IN ({some})", (job.owner,)).rowcount:
        return True
    for table, key in (("job_again", "part"), ("job_inputs", "number")):
        some = f"SELECT {key} FROM {table} WHERE job = ? LIMIT {NOTED_AT_ONCE}"
        rows = db.execute(f"DELETE FROM {table} WHERE job = ? AND {key} IN ({some})", (job.seq, job.seq))
        if rows.rowcount == NOTED_AT_ONCE:
            return True
    db.execute("DELETE FROM jobs WHERE seq = ?", (job.seq,))
    return False


def functions(db: sqlite3.Connection) -> set[str]:
    """Return the private functions of all jobs."""
    return {own_function(id) for (id,) in db.execute("SELECT id FROM jobs")}


def outdated(db: sqlite3.Connection, before: float) -> list[str]:
    """Return some of the jobs that ended before this time, those that ended first."""
    rows = db.execute(
        "SELECT id FROM jobs WHERE ended < ? ORDER BY ended LIMIT ?", (before, OUTDATED_AT_ONCE)
    )
    return [id for (id,) in rows]


def tasks(
    db: sqlite3.Connection, job: Job, state: TaskState | None, after: int, limit: int
) -> Page[CallRecord]:
    """Return tasks behind the index `after` that were queued at least once, in the order of their indices.

    At most `MOST_TASKS_LOOKED_AT` are looked at.
    """
    wanted = () if state is None else state.statuses
    begin = f"{after:07d}" if after >= 0 else ""
    behind = f"FROM invocations INDEXED BY invocations_part WHERE {OWNED} AND part > ?"
    row = db.execute(
        f"SELECT part {behind} ORDER BY part LIMIT 1 OFFSET ?",
        (job.owner, begin, MOST_TASKS_LOOKED_AT - 1 if wanted else limit - 1),
    ).fetchone()
    last = LAST_PART if row is None else row[0]
    condition = f"AND status IN ({', '.join('?' * len(wanted))})" if wanted else ""
    rows = db.execute(
        f"SELECT {COLUMNS} {behind} AND part <= ? {condition} ORDER BY part LIMIT ?",
        (job.owner, begin, last, *wanted, limit),
    )
    found = [call_rows.record(row) for row in rows]
    if len(found) == limit:
        last = found[-1].part
    return Page(found, None if last == LAST_PART else int(last))


def _job(row: Sequence[Any]) -> Job:
    seq, id, name, definition, status, count, parallel, begun, created, ended, depth, context, tasks = row
    return Job(
        seq=seq,
        id=id,
        name=name,
        definition=JobDefinition.model_validate(json.loads(definition)),
        status=JobStatus(status),
        count=count,
        parallel=parallel,
        begun=begun,
        created=created,
        ended=ended,
        depth=depth,
        context=tuple((key, value) for key, value in json.loads(context)),
        counts=None if tasks is None else {TaskState(k): v for k, v in json.loads(tasks).items()},
    )
