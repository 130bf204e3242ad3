"""A database that the version before leases had owners has left: it is adopted, with rows of each kind."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import get_args

import pytest

from scheduler.calls.callback_store import CallbackAttempt
from scheduler.calls.callbacks import CallbackStatus
from scheduler.calls.leases import LeaseOwner
from scheduler.calls.model import Ending, Result, Status
from scheduler.definitions.jobs import JobDefinition
from scheduler.definitions.workflows import StepDefinition, WorkflowDefinition
from scheduler.jobs.model import JobStatus
from scheduler.store.sqlite.callbacks import SqliteCallbackStore
from scheduler.store.sqlite.calls import SqliteCallStore
from scheduler.store.sqlite.jobs import SqliteJobStore
from scheduler.store.sqlite.leases import SqliteLeaseStore
from scheduler.store.sqlite.rows.begin_rows import begin
from scheduler.store.sqlite.runs import SqliteRunStore
from scheduler.store.sqlite.schema import MIGRATIONS, version_of
from scheduler.store.sqlite.triggers import SqliteTriggerStore
from scheduler.store.sqlite.writer import Writer, open_database
from scheduler.work import Fire, NewCall, NewCallback, NewJob, NewRun, Outcome, Request, Work
from scheduler.workflows.model import RunStatus
from scheduler.workflows.moves import decide
from scheduler.workflows.values import value_to_body

BEFORE = 11
"""Version of the tables before leases had owners."""
ONE = WorkflowDefinition(steps={"a": StepDefinition(function="f")})
JOB = JobDefinition.model_validate({"function": "f", "count": 2})
WORKS: tuple[Work, ...] = (
    NewCall("1", "f", Request(), b"waits"),
    NewCall("2", "f", Request(), b"runs"),
    NewCall("3", "f", Request(), b"has ended"),
    NewCallback("3", "m", "https://example.com/", "example.com", b"{}"),
    NewRun("r", "one", ONE, value_to_body(1)),
    NewJob(id="j", definition=JOB, parallel=2),
    NewJob(id="k", definition=JOB, parallel=2),
    Fire("t", "hand", Outcome.STARTED, "function", "f", "4", work=NewCall("4", "f", Request(), b"fired")),
)
STATES = """
    UPDATE invocations SET status = 'running', attempts = 1, started = 5 WHERE id = '2';
    UPDATE invocations SET status = 'succeeded', attempts = 1, ended = 6 WHERE id = '3';
    UPDATE jobs SET status = 'cancelling', begun = 2 WHERE id = 'k';
    INSERT INTO invocations (id, function, status, attempts, accepted, since, due, owner, part)
        VALUES ('5', 'f', 'running', 1, 0, 0, 0, 'job:k', '0000000'),
            ('6', 'f', 'queued', 1, 0, 0, 0, 'job:k', '0000001');
    INSERT INTO requests (seq, head, body)
        SELECT seq, 'POST' || char(10, 10, 10), '' FROM invocations WHERE id IN ('5', '6');
    INSERT INTO triggers (name, timetable, considered) VALUES ('t', '* * * * * UTC', 60);
    INSERT INTO payloads (caller, expected, bytes) VALUES (1, 100, 50);
"""


def make_database(file: Path) -> None:
    """Write a file as that version has left it when its process died."""
    db = sqlite3.connect(file, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    for number, migration in enumerate(MIGRATIONS[:BEFORE], 1):
        db.executescript(f"BEGIN; {migration} PRAGMA user_version = {number}; COMMIT;")
    for work in WORKS:
        begin(db, work, 1.0, 1)
    db.executescript(STATES)
    db.close()


class Process:
    """The stores of a process of today on that file."""

    def __init__(self, file: Path) -> None:
        self.me = LeaseOwner("a", "1")
        self.writer = Writer(file)
        self.calls = SqliteCallStore(self.writer, 2**30)
        self.leases = SqliteLeaseStore(self.writer)
        self.runs = SqliteRunStore(self.writer, self.calls.room)
        self.jobs = SqliteJobStore(self.writer, self.calls.room)
        self.triggers = SqliteTriggerStore(self.writer, self.calls.room)
        self.callbacks = SqliteCallbackStore(self.writer)

    async def finish(self, id: str) -> bool:
        """End a call that is leased well."""
        result = Result(200, [], b"1")
        (recorded,) = await self.calls.finish(self.me, [Ending(id, Status.SUCCEEDED, 0, result)], 20.0)
        return recorded


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Process]:
    make_database(tmp_path / "calls.db")
    made = Process(tmp_path / "calls.db")
    yield made
    await made.calls.close()


def test_there_is_a_row_of_everything_that_can_be_begun() -> None:
    assert {type(work) for work in WORKS} == set(get_args(Work))


def test_the_file_gets_todays_tables_and_keeps_all_rows(tmp_path: Path) -> None:
    file = tmp_path / "calls.db"
    make_database(file)
    before = rows_of(sqlite3.connect(file))
    db = open_database(file)
    assert version_of(db) == len(MIGRATIONS) > BEFORE
    assert rows_of(db) == before
    db.close()


def rows_of(db: sqlite3.Connection) -> dict[str, int]:
    tables = (
        "invocations",
        "requests",
        "callbacks",
        "runs",
        "jobs",
        "fires",
        "triggers",
        "payloads",
        "callers",
    )
    return {name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}


async def test_calls_that_ran_are_run_again_and_those_that_waited_too(process: Process) -> None:
    assert await process.leases.requeue_abandoned(process.me, 10.0, 10.0) == 1
    claims = await process.calls.claim(process.me, {"f": 9}, 11.0)
    assert {claim.call.id: claim.attempt for claim in claims} == {"1": 1, "2": 2, "4": 1}
    assert [claim.call.body for claim in claims] == [b"waits", b"fired", b"runs"]
    assert [await process.finish(id) for id in ("1", "2", "4")] == [True, True, True]
    kept = await process.calls.usage()
    assert kept.unfinished > 0, "the run and the jobs"
    ended = await process.calls.show("3")
    assert ended is not None and ended.status is Status.SUCCEEDED


async def test_tasks_of_a_cancelled_job_that_ran_or_waited_to_run_again_are_not_run(process: Process) -> None:
    await process.leases.requeue_abandoned(process.me, 10.0, 10.0)
    for id in ("5", "6"):
        task = await process.calls.show(id)
        assert task is not None and task.status is Status.CANCELLED
    advanced = await process.jobs.advance(process.me, "k", 11.0)
    assert advanced is not None and advanced.ends and advanced.job.status is JobStatus.CANCELLING


async def test_a_run_goes_on_to_its_end(process: Process) -> None:
    assert await process.runs.unfinished(process.me) == ["r"]
    for _ in range(2):
        progress = await process.runs.progress(process.me, "r", 11.0)
        assert progress is not None
        changes = await decide(process.runs, progress)
        assert await process.runs.apply(process.me, "r", changes, progress.record.revision, 11.0)
        for claim in await process.calls.claim(process.me, {"f": 9}, 12.0):
            assert await process.finish(claim.call.id)
    record = await process.runs.show("r")
    assert record is not None and record.status is RunStatus.SUCCEEDED


async def test_a_job_goes_on_with_its_tasks(process: Process) -> None:
    assert [job.id for job in await process.jobs.unfinished(process.me, 11.0)] == ["j", "k"]
    advanced = await process.jobs.advance(process.me, "j", 11.0)
    assert advanced is not None and advanced.queued == 2


async def test_triggers_and_callbacks_are_as_they_were(process: Process) -> None:
    (trigger,) = await process.triggers.all()
    assert (trigger.name, trigger.course.state.considered) == ("t", 60.0)
    (fire,) = await process.triggers.fires("t", 9)
    assert (fire.id, fire.outcome) == ("4", Outcome.STARTED)
    (delivery,), _ = await process.callbacks.due(process.me, 10.0, 4)
    assert await process.callbacks.lease(process.me, [delivery.message], 10.0) == {"m"}
    attempt = CallbackAttempt(CallbackStatus.DELIVERED, 1, 0.0, None)
    assert await process.callbacks.record(process.me, delivery.message, attempt)
    record = await process.callbacks.of("3")
    assert record is not None and record.status is CallbackStatus.DELIVERED


async def test_a_body_that_was_coming_is_discarded(process: Process) -> None:
    before = (await process.calls.usage()).unfinished
    await process.leases.requeue_abandoned(process.me, 10.0, 10.0)
    assert (await process.calls.usage()).unfinished == before - 100
