"""The rows of workflow runs, inside somebody's transaction."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from scheduler.calls.leases import LeaseOwner
from scheduler.calls.model import Page, Status
from scheduler.definitions.language.call_overrides import CallOverrides, RetryPolicy
from scheduler.definitions.workflows import StepDefinition, WorkflowDefinition
from scheduler.store.sqlite.rows import call_rows, piece_rows
from scheduler.store.sqlite.rows.begin_rows import begin
from scheduler.store.sqlite.rows.call_rows import AGAIN, as_kept
from scheduler.store.sqlite.rows.lease_rows import is_leased, lease
from scheduler.store.sqlite.rows.list_rows import NEWEST
from scheduler.work import Body, NewCall, Request
from scheduler.workflows.model import (
    Changes,
    ClosedStep,
    FailedCall,
    OpenedStep,
    RunProgress,
    RunQuery,
    RunRecord,
    RunStatus,
    StepRecord,
    StepState,
    StepStatus,
    owner_of,
)

COLUMNS = "seq, id, workflow, status, functions, started, ended, error, detail, depth, revision"
MOST_LOOKED_AT = 1000
"""Runs that one page looks at. The functions of each are read to see who may know of it, and may be many."""
OPEN = "status IN ('queued', 'running')"
FAILED = f"status IN ({', '.join(repr(s.value) for s in Status if s.ended and s is not Status.SUCCEEDED)})"
OF_STEP = "owner = ? AND owner != ''"
CALLS = f"FROM invocations WHERE {OF_STEP}"
"""The calls of a step. Queries at the end of each call must not look at all of them: a `map` has thousands."""


# -- reading --------------------------------------------------------------------------------------------------


def show(db: sqlite3.Connection, id: str) -> RunRecord | None:
    """Return one run, or None if there is none."""
    row = db.execute(f"SELECT {COLUMNS} FROM runs WHERE id = ?", (id,)).fetchone()
    return None if row is None else _record(row)


def caller_of(db: sqlite3.Connection, run: RunRecord) -> int:
    """Return the number of the caller whom a run's bytes count to."""
    (caller,) = db.execute("SELECT caller FROM runs WHERE seq = ?", (run.seq,)).fetchone()
    return int(caller)


def list_runs(db: sqlite3.Connection, query: RunQuery) -> Page[RunRecord]:
    """Return runs, newest first. At most `MOST_LOOKED_AT` rows are looked at."""
    conditions, values = ["seq < ?"], list[object]()
    values.append(NEWEST if query.before is None else query.before)
    for column, value in (("workflow", query.workflow), ("status", query.status)):
        if value is not None:
            conditions.append(f"{column} = ?")
            values.append(value)
    most = query.limit + 1 if query.visible is None else MOST_LOOKED_AT
    found: list[RunRecord] = []
    latest: RunRecord | None = None
    rows = db.execute(
        f"SELECT {COLUMNS} FROM runs WHERE {' AND '.join(conditions)} ORDER BY seq DESC LIMIT ?",
        (*values, most),
    )
    for number, row in enumerate(rows, 1):
        if len(found) == query.limit:
            return Page(found, found[-1].seq)
        latest = _record(row)
        if query.visible is None or query.visible(latest.functions):
            found.append(latest)
        if number == most:
            return Page(found, latest.seq)
    return Page(found, None)


def unfinished(db: sqlite3.Connection, owner: LeaseOwner) -> list[str]:
    """Return the ids of the runs that have not ended and are not leased to another, the oldest first."""
    statement = "SELECT id FROM runs WHERE status = 'running' AND lease_owner IN ('', ?) ORDER BY seq"
    return [id for (id,) in db.execute(statement, (owner.id,))]


def definition(db: sqlite3.Connection, record: RunRecord) -> WorkflowDefinition:
    """Return the definition that a run was begun with."""
    (text,) = db.execute("SELECT definition FROM run_data WHERE seq = ?", (record.seq,)).fetchone()
    return _parsed(text)


@lru_cache(maxsize=256)
def _parsed(text: str) -> WorkflowDefinition:
    return WorkflowDefinition.model_validate(json.loads(text))


def body(db: sqlite3.Connection, id: str, which: str) -> Body | None:
    """Return the `input` or `output` of a run, or None if there is none."""
    row = db.execute(
        f"SELECT {which}, {which}_type FROM run_data JOIN runs USING (seq) WHERE id = ?", (id,)
    ).fetchone()
    return None if row is None or row[0] is None else Body(row[0], row[1])


def progress(db: sqlite3.Connection, owner: LeaseOwner, id: str, now: float) -> RunProgress | None:
    """Lease a run to an owner. Return the facts that its next moves follow from, or None if it cannot be leased."""
    record = show(db, id)
    if record is None or record.status.ended or not lease(db, "runs", record.seq, owner, now):
        return None
    made = definition(db, record)
    steps = {
        step: _state(db, id, step, StepStatus(status), total, made.steps[step].parallel)
        for step, status, total in db.execute(
            "SELECT step, status, total FROM run_steps WHERE seq = ?", (record.seq,)
        ).fetchall()
    }
    (size,) = db.execute("SELECT bytes FROM runs WHERE seq = ?", (record.seq,)).fetchone()
    return RunProgress(record, made, steps, size)


def _state(
    db: sqlite3.Connection, id: str, step: str, status: StepStatus, total: int, parallel: int
) -> StepState:
    if status is not StepStatus.RUNNING:
        return StepState(status, total)
    owner = owner_of(id, step)
    new = "SELECT 1 FROM run_items JOIN runs USING (seq) WHERE id = ? AND step = ?"
    held = f"SELECT 1 {CALLS} AND status = 'held'"
    (waiting,) = db.execute(
        f"SELECT count(*) FROM ({new} UNION ALL {held} LIMIT ?)", (id, step, owner, parallel)
    ).fetchone()
    (open,) = db.execute(f"SELECT count(*) {CALLS} AND {OPEN}", (owner,)).fetchone()
    (failed,) = db.execute(
        f"SELECT count(*) FROM (SELECT 1 {CALLS} AND {FAILED} LIMIT 1)", (owner,)
    ).fetchone()
    return StepState(status, total, waiting, open, failed)


def _counts(db: sqlite3.Connection, owner: str) -> dict[Status, int]:
    return {
        Status(status): count
        for status, count in db.execute(
            "SELECT status, count(*) FROM invocations WHERE owner = ? AND owner != '' GROUP BY status",
            (owner,),
        )
    }


def step_records(db: sqlite3.Connection, record: RunRecord) -> Iterator[StepRecord]:
    """Yield the steps of a run that were begun or have ended."""
    for step, status, total, started, ended, error, detail in db.execute(
        "SELECT step, status, total, started, ended, error, detail FROM run_steps WHERE seq = ?",
        (record.seq,),
    ).fetchall():
        owner = owner_of(record.id, step)
        attempts, first = db.execute(
            "SELECT coalesce(sum(attempts), 0), min(id) FROM invocations WHERE owner = ? AND owner != ''",
            (owner,),
        ).fetchone()
        yield StepRecord(
            step,
            StepStatus(status),
            total,
            started,
            ended,
            error,
            detail,
            _counts(db, owner),
            attempts,
            first if total == 1 else None,
        )


def answers(db: sqlite3.Connection, id: str, step: str, most: int) -> list[Body | None] | None:
    """Return the answers of a step's calls, in order, with None for each call that has not succeeded.

    Returns None if they have over `most` bytes together.
    """
    which = "FROM invocations LEFT JOIN results USING (seq) WHERE owner = ? AND owner != ''"
    owner = owner_of(id, step)
    kept = "(SELECT bytes FROM payloads WHERE payloads.id = payload)"
    (size,) = db.execute(
        f"SELECT coalesce(sum(length(body) + coalesce({kept}, 0)), 0) {which}", (owner,)
    ).fetchone()
    if size > most:
        return None
    rows = db.execute(
        f"SELECT invocations.status, headers, body, payload {which} ORDER BY cast(part AS INTEGER)", (owner,)
    ).fetchall()
    return [
        Body(data if payload is None else piece_rows.whole(db, payload), _content_type(headers))
        if status == Status.SUCCEEDED and headers
        else None
        for status, headers, data, payload in rows
    ]


def first_failure(db: sqlite3.Connection, id: str, step: str) -> FailedCall | None:
    """Return the first call of a step that has failed, or None if none has."""
    row = db.execute(
        "SELECT cast(part AS INTEGER), coalesce(error, status), detail FROM invocations"
        f" WHERE owner = ? AND owner != '' AND {FAILED} ORDER BY 1 LIMIT 1",
        (owner_of(id, step),),
    ).fetchone()
    return None if row is None else FailedCall(*row)


# -- changing -------------------------------------------------------------------------------------------------


def apply(
    db: sqlite3.Connection, owner: LeaseOwner, id: str, changes: Changes, revision: int, now: float
) -> bool:
    """Write all that was decided. Return False if the run was ended or resumed meanwhile, or the lease is lost."""
    record = show(db, id)
    if record is None or record.status.ended or record.revision != revision:
        return False
    if not is_leased(db, "runs", record.seq, owner):
        return False
    made = definition(db, record)
    for opened in changes.opened:
        _open(db, record, made.steps[opened.step], opened, now)
    for step, count in changes.more:
        _begin_items(db, record, step, made.steps[step], count, now)
    for closed in changes.closed:
        _close(db, record, closed, now)
    if (end := changes.end) is not None:
        db.execute(
            "UPDATE runs SET status = ?, ended = ?, error = ?, detail = ? WHERE seq = ?",
            (end.status, now, end.error, as_kept(end.detail), record.seq),
        )
        db.execute(
            "UPDATE run_data SET output = ?, output_type = ? WHERE seq = ?",
            (end.output.data, end.output.content_type, record.seq),
        )
        for work in end.follow:
            begin(db, work, now, caller_of(db, record))
    return True


def _open(
    db: sqlite3.Connection, run: RunRecord, step: StepDefinition, opened: OpenedStep, now: float
) -> None:
    db.execute(
        "INSERT INTO run_steps (seq, step, status, total, started) VALUES (?, ?, 'running', ?, ?)",
        (run.seq, opened.step, len(opened.bodies), now),
    )
    db.executemany(
        "INSERT INTO run_items VALUES (?, ?, ?, ?, ?)",
        [
            (run.seq, opened.step, number, item.data, item.content_type)
            for number, item in enumerate(opened.bodies)
        ],
    )
    _begin_items(db, run, opened.step, step, opened.at_once, now)


def _begin_items(
    db: sqlite3.Connection, run: RunRecord, name: str, step: StepDefinition, count: int, now: float
) -> None:
    """Queue the calls of a step's next items, and move the items' bodies to them. Held calls come first."""
    held = f"SELECT seq {CALLS} AND status = 'held' ORDER BY seq LIMIT ?"  # begun in order, so that is the items'
    again = db.execute(
        f"UPDATE invocations SET {AGAIN} WHERE seq IN ({held})", (now, now, owner_of(run.id, name), count)
    ).rowcount
    rows = db.execute(
        "SELECT number, body, type FROM run_items WHERE seq = ? AND step = ? ORDER BY number LIMIT ?",
        (run.seq, name, count - again),
    ).fetchall()
    caller = caller_of(db, run)
    for number, data, content_type in rows:
        call_rows.insert(db, _call(run, name, step, number, Body(data, content_type)), now, caller)
    db.executemany(
        "DELETE FROM run_items WHERE seq = ? AND step = ? AND number = ?",
        [(run.seq, name, number) for number, _, _ in rows],
    )


def _call(run: RunRecord, name: str, step: StepDefinition, number: int, body: Body) -> NewCall:
    headers = [(b"content-length", b"%d" % len(body.data))]
    if body.content_type:
        headers.append((b"content-type", body.content_type.encode()))
    told = [("Workflow", run.workflow), ("Run-Id", run.id), ("Step", name)]
    if step.map is not None:
        told.append(("Item", str(number)))
    policy = None
    if (retries := step.retries) is not None:
        policy = RetryPolicy(retries.attempts, retries.backoff, retries.max_backoff, frozenset(retries.on))
    return NewCall(
        id=secrets.token_hex(16),
        function=step.function,
        request=Request(headers=headers),
        body=body.data,
        depth=run.depth,
        owner=owner_of(run.id, name),
        part=str(number),
        overrides=CallOverrides(policy, step.timeout, tuple(told)),
    )


def _close(db: sqlite3.Connection, run: RunRecord, closed: ClosedStep, now: float) -> None:
    db.execute(
        "INSERT INTO run_steps (seq, step, status, total, started, ended, error, detail)"
        " VALUES (?, ?, ?, 0, ?, ?, ?, ?) ON CONFLICT (seq, step) DO UPDATE"
        " SET status = excluded.status, ended = excluded.ended, error = excluded.error, detail = excluded.detail",
        (run.seq, closed.step, closed.status, now, now, closed.error, as_kept(closed.detail)),
    )
    let_go(db, OF_STEP, (owner_of(run.id, closed.step),), now)


def let_go(db: sqlite3.Connection, which: str, values: Sequence[str], now: float) -> None:
    """Cancel the held ones of these calls. They go on if their run is resumed."""
    db.execute(
        f"UPDATE invocations SET status = 'cancelled', ended = ? WHERE {which} AND status = 'held'",
        (now, *values),
    )


def _content_type(headers: str) -> str:
    pairs: list[tuple[str, str]] = json.loads(headers)
    return next((value for name, value in pairs if name == "content-type"), "")


def _record(row: Sequence[Any]) -> RunRecord:
    return RunRecord(row[0], row[1], row[2], RunStatus(row[3]), tuple(json.loads(row[4])), *row[5:])
