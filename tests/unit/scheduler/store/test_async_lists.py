"""Lists of what is kept: each is found by an index, looks at a bounded number of rows, and holds up no writer."""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scheduler.calls.model import Ending, Query, Status
from scheduler.calls.store import StoreBusy, StoreError
from scheduler.jobs.model import Job, JobQuery, JobStatus, TaskState
from scheduler.store.sqlite.calls import SqliteCallStore
from scheduler.store.sqlite.readers import Readers, ReadLimits
from scheduler.store.sqlite.rows import (
    call_rows,
    dead_rows,
    job_rows,
    list_rows,
    run_rows,
    start_keys,
    trigger_rows,
)
from scheduler.store.sqlite.rows.list_rows import CLOCK_MARGIN, MOST_LOOKED_AT, page
from scheduler.store.sqlite.rows.room import Room
from scheduler.store.sqlite.store_file import StoreFile
from scheduler.store.sqlite.writer import Writer, open_database
from scheduler.work import NewCall, Request
from scheduler.workflows.model import RunQuery, RunStatus
from tests.support.lease_owners import ME

ROWS = 12_000
RARELY = 3000
"""One call in so many is of each rare status."""
STEPS_OF_A_PAGE = 60 * MOST_LOOKED_AT
"""Steps of SQLite's machine that a page may take: some for each row that it may look at."""
DEFINITION = {"function": "f", "count": 9}


def fill(db: sqlite3.Connection, rows: int = ROWS) -> None:
    """Keep calls of two functions and of a job, of which few have failed, and as many runs and jobs."""
    rare = [status.value for status in Status if status in list_rows.RARE]

    def status_of(number: int) -> str:
        place = number % RARELY
        return rare[place] if place < len(rare) else "succeeded"

    db.execute("BEGIN")
    db.executemany(
        "INSERT INTO invocations (id, function, status, accepted, since, due, ended, owner, part)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (f"{n:032x}", "fg"[n % 2], status_of(n), n, n, n, n, "job:j" if n % 3 == 0 else "", f"{n:07d}")
            for n in range(rows)
        ),
    )
    db.executemany(
        "INSERT INTO runs (id, workflow, status, functions, started, ended, depth) VALUES (?, ?, ?, ?, 0, 0, 0)",
        (
            (f"{n}", "vw"[n % 2], "failed" if n % RARELY == 0 else "succeeded", json.dumps(["f"]))
            for n in range(rows)
        ),
    )
    db.executemany(
        "INSERT INTO jobs (id, name, definition, status, count, parallel, created, ended, depth, context, counts)"
        " VALUES (?, '', ?, ?, 9, 1, 0, 0, 0, '[]', '{}')",
        ((f"{n}", json.dumps(DEFINITION), "failed" if n % RARELY == 0 else "succeeded") for n in range(rows)),
    )
    db.executemany(
        "INSERT INTO fires (trigger_name, at, cause, outcome, kind, target, id, detail)"
        " VALUES (?, 0, '', 'started', 'function', 'f', '', '')",
        ((f"t{n % 50}",) for n in range(rows // 10)),
    )
    db.executemany(
        "INSERT INTO callbacks (seq, message, url, host, body, status, due) VALUES (?, ?, '', 'h', '', 'pending', 0)",
        ((n, f"{n}") for n in range(1, rows // 10)),
    )
    db.execute("COMMIT")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """A file with many rows. Nothing of a test stays in it."""
    db = open_database(tmp_path_factory.mktemp("store") / "calls.db")
    fill(db)
    db.execute("BEGIN")
    yield db
    db.execute("ROLLBACK")
    db.close()


@pytest.fixture
def db(filled: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    filled.execute("SAVEPOINT test")
    yield filled
    filled.execute("ROLLBACK TO test")


JOB = Job(
    seq=1,
    id="j",
    name="",
    definition=job_rows.JobDefinition.model_validate(DEFINITION),
    status=JobStatus.RUNNING,
    count=9,
    parallel=1,
    begun=9,
    created=0.0,
    ended=None,
    depth=0,
    context=(),
)


def call_queries() -> Iterator[Query]:
    statuses: list[tuple[Status, ...]] = [
        (),
        *((status,) for status in Status),
        (Status.DEAD, Status.EXPIRED),
    ]
    for function, which, since, before, seen in itertools.product(
        (None, "f"), statuses, (None, 9_000.0), (None, 7_999), (None, lambda name: name == "g")
    ):
        yield Query(function, which, since, before, 50, visible=seen)
    for before in (None, 9_999):
        yield Query(before=before, owner="job:j")


def reads(db: sqlite3.Connection) -> Iterator[Any]:
    """Do every read of many rows that a caller can ask for, in every combination of its filters."""
    for query in call_queries():
        yield page(db, query)
    for workflow, run_status, before, sees in itertools.product(
        (None, "v"), (None, *RunStatus), (None, 9_999), (None, lambda names: "g" in names)
    ):
        yield run_rows.list_runs(db, RunQuery(workflow, run_status, before, 50, sees))
    for job_status, before, shown in itertools.product(
        (None, *JobStatus), (None, 9_999), (None, lambda job: job.name)
    ):
        yield job_rows.list_jobs(db, JobQuery(job_status, before, 50, shown))
    for state, after in itertools.product((None, *TaskState), (-1, 5_000)):
        yield job_rows.tasks(db, JOB, state, after, 50)
    yield trigger_rows.fires(db, "t7", 50)
    yield trigger_rows.latest_fires(db, [f"t{n}" for n in range(60)])
    yield call_rows.show(db, f"{7:032x}")
    yield call_rows.result(db, f"{7:032x}")
    yield run_rows.show(db, "7")
    yield run_rows.body(db, "7", "output")


def writes(db: sqlite3.Connection) -> Iterator[Any]:
    """Do everything that a writer does to many rows."""
    room = Room(Path("calls.db"), 2**40)
    for function in (None, "f"):
        yield dead_rows.redrive(db, status=Status.DEAD, after=0, function=function, now=1e9, room=room)
        yield dead_rows.purge(db, status=Status.EXPIRED, after=0, function=function, now=1e9)
    yield call_rows.forget(db, call_rows.FORGETTABLE)
    yield call_rows.forget(db, f"ended < ? AND {call_rows.FREE}", 1e9)
    yield start_keys.prune(db, 1e9)
    yield job_rows.outdated(db, 1e9)


@contextmanager
def statements(db: sqlite3.Connection) -> Iterator[list[str]]:
    """Collect what is executed."""
    seen: list[str] = []
    db.set_trace_callback(seen.append)
    try:
        yield seen
    finally:
        db.set_trace_callback(None)


def faults_of(db: sqlite3.Connection, statement: str) -> list[str]:
    """Return what SQLite would scan or sort for a statement."""
    plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}")]
    # There are as few callers as keys and triggers.
    harmless = ("SCAN json_each", "SCAN (subquery", "SCAN CONSTANT ROW", "SCAN callers")
    return [
        line
        for line in plan
        if "TEMP B-TREE" in line or (line.startswith("SCAN") and not line.startswith(harmless))
    ]


@pytest.mark.parametrize("work", [reads, writes])
def test_nothing_that_reads_or_changes_many_rows_scans_a_table_or_sorts(
    db: sqlite3.Connection, work: Any
) -> None:
    with statements(db) as seen:
        for _ in work(db):
            pass
    asked = {statement for statement in seen if statement.startswith(("SELECT", "UPDATE", "DELETE"))}
    assert len(asked) > 5
    faults = {statement: found for statement in asked if (found := faults_of(db, statement))}
    assert not faults


def test_no_page_looks_at_more_rows_than_its_bound(db: sqlite3.Connection) -> None:
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 100

    db.set_progress_handler(count, 100)
    try:
        for _ in reads(db):
            assert steps < STEPS_OF_A_PAGE
            steps = 0
    finally:
        db.set_progress_handler(None, 0)


def follow(db: sqlite3.Connection, query: Query) -> list[str]:
    """Read all pages of a list."""
    found: list[str] = []
    before = query.before
    for _ in range(ROWS):
        part = page(
            db,
            Query(
                query.function, query.statuses, query.since, before, query.limit, query.owner, query.visible
            ),
        )
        found += [record.id for record in part.records]
        if part.cursor is None:
            return found
        assert before is None or part.cursor < before, "each page goes on"
        before = part.cursor
    raise AssertionError("the list has no end")


def fitting(db: sqlite3.Connection, query: Query) -> list[str]:
    """Return every call that a list shall have, found without it."""
    return [
        id
        for seq, id, function, status, accepted, owner in db.execute(
            "SELECT seq, id, function, status, accepted, owner FROM invocations ORDER BY seq DESC"
        )
        if (query.function in (None, function))
        and (not query.statuses or status in query.statuses)
        and (query.since is None or accepted >= query.since)
        and (query.before is None or seq < query.before)
        and (query.owner in (None, owner))
        and (query.visible is None or query.visible(function))
    ]


def test_the_pages_of_a_list_have_every_call_that_fits_once(db: sqlite3.Connection) -> None:
    db.execute("UPDATE invocations SET status = 'running' WHERE seq IN (5, 6, 7)")
    db.execute("UPDATE invocations SET status = 'queued' WHERE seq % 3 = 1 AND seq < 10000")
    for query in call_queries():
        assert follow(db, replace(query, limit=900)) == fitting(db, query), query


def test_a_list_since_a_time_ends_where_all_are_older(db: sqlite3.Connection) -> None:
    oldest = ROWS - MOST_LOOKED_AT
    ends, goes_on = oldest + CLOCK_MARGIN + 1, oldest + CLOCK_MARGIN
    assert page(db, Query(since=ends, limit=4000)).cursor is None
    assert page(db, Query(since=goes_on, limit=4000)).cursor is not None, "the clock may have been set back"


@pytest.mark.parametrize("state", [None, *TaskState])
def test_the_pages_of_a_jobs_tasks_have_every_task_once(
    db: sqlite3.Connection, state: TaskState | None
) -> None:
    wanted = tuple(Status) if state is None else state.statuses
    parts = db.execute("SELECT part, status FROM invocations WHERE owner = 'job:j' ORDER BY part").fetchall()
    found: list[str] = []
    after = -1
    while True:
        some = job_rows.tasks(db, JOB, state, after, 900)
        found += [record.part for record in some.records]
        if some.cursor is None:
            break
        assert some.cursor > after
        after = some.cursor
    assert found == [part for part, status in parts if Status(status) in wanted]


# -- dead letters -------------------------------------------------------------------------------------------------


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteCallStore]:
    made = SqliteCallStore(Writer(tmp_path / "calls.db"), 2**30)
    yield made
    await made.close()


async def dead_letters(store: SqliteCallStore, count: int, now: float) -> None:
    calls = [NewCall(f"{number:032x}", "f", Request(), b"") for number in range(count)]
    await store.begin(calls, now)
    while claims := await store.claim(ME, dict.fromkeys(await store.backlogs(now), 500), now):
        await store.finish(ME, [Ending(claim.call.id, Status.DEAD, 1) for claim in claims], now)


@pytest.mark.parametrize("verb", ["redrive", "purge"])
async def test_dead_letters_are_done_some_at_a_time_and_calls_are_accepted_between(
    store: SqliteCallStore, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr(dead_rows, "LOOKED_AT_ONCE", 10)
    await dead_letters(store, 100, 5.0)
    before = store.commits
    work = asyncio.ensure_future(getattr(store, verb)(6.0))
    accepted = 0
    while not work.done():
        await store.accept(NewCall(f"{1000 + accepted:032x}", "g", Request(), b""), 6.0)
        accepted += 1
    assert await work == 100
    assert store.commits - before > 10
    assert accepted > 5


async def test_what_dies_again_is_not_redriven_without_end(
    store: SqliteCallStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_rows, "LOOKED_AT_ONCE", 10)
    await dead_letters(store, 25, 7.0)
    assert await store.redrive(6.0) == 0, "they ended later than that"
    assert await store.redrive(7.0) == 25


# -- readers ------------------------------------------------------------------------------------------------------


async def test_a_read_sees_what_was_on_disk_when_it_was_asked_for(store: SqliteCallStore) -> None:
    for number in range(50):
        record = await store.accept(NewCall(f"{number:032x}", "f", Request(), b""), 0.0)
        assert await store.show(record.id) == record
        assert (await store.page(Query(limit=1))).records == [record]
        assert await store.counts() == {("f", Status.QUEUED): number + 1}


async def test_a_long_read_holds_up_no_writer_and_is_ended(tmp_path: Path) -> None:
    file = tmp_path / "calls.db"
    store = SqliteCallStore(Writer(file), 2**30)
    await store.accept(NewCall(f"{0:032x}", "f", Request(), b""), 0.0)
    readers = Readers(StoreFile(file), ReadLimits(threads=1, run_seconds=1.0))
    endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    slow = asyncio.ensure_future(readers.do(lambda db: db.execute(endless).fetchone()))
    await store.accept(NewCall(f"{1:032x}", "f", Request(), b""), 0.0)
    assert not slow.done()
    with pytest.raises(StoreBusy, match="took longer than 1 s; ask for less"):
        await slow
    assert readers.refusals == {"slow": 1}
    assert await readers.do(lambda db: db.execute("SELECT count(*) FROM invocations").fetchone()) == (2,)
    await readers.close()
    await store.close()


async def test_reads_wait_within_bounds(tmp_path: Path) -> None:
    file = tmp_path / "calls.db"
    open_database(file).close()
    readers = Readers(StoreFile(file), ReadLimits(threads=1, waiting=3, wait_seconds=0.0))
    results: Sequence[Any] = await asyncio.gather(
        *(readers.do(lambda db: db.execute("SELECT 1").fetchone()) for _ in range(5)), return_exceptions=True
    )
    assert [str(result) for result in results] == [
        *["the store is busy with other reads; try again later"] * 3,
        *["too many reads of the store wait already; try again later"] * 2,
    ]
    assert readers.refusals == {"busy": 5}
    await readers.close()


async def test_a_reader_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "calls.db"
    open_database(file).close()
    readers = Readers(StoreFile(file))
    with pytest.raises(StoreError, match="readonly"):
        await readers.do(lambda db: db.execute("DELETE FROM invocations"))
    await readers.close()
